"""The levels beside scores of disentanglement: shuffled factors, and an untrained encoder. No input or output."""

from __future__ import annotations

from collections.abc import Sequence

from fmvae.evaluation.columns import Column
from fmvae.report.collect import short
from fmvae.report.settings import Setting, Statistic
from fmvae.report.tables import number

LEVELS = {"chance": "shuffled factors", "untrained": "an untrained encoder"}
# keys of the data that do not change the test images, or of which that is not known
NOT_THE_DATA = ("data.seed", "data.batch_size", "data.num_train", "data.val_size")


def by_data(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Return the settings by their data, of which the numbers do not compare, under the name of the data's class.

    Data of one class with other arguments are told apart by a number.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        config = setting.first.config
        key = repr([(k, config[k]) for k in sorted(config) if k.startswith("data.") and k not in NOT_THE_DATA])
        groups.setdefault(key, []).append(setting)
    named: dict[str, list[Setting]] = {}
    for group in groups.values():
        name = short(group[0].first.config.get("data._target_", "data"))
        same = sum(other.partition(" (")[0] == name for other in named)
        named[f"{name} ({same + 1})" if same else name] = group
    return named


def level(settings: Sequence[Setting], column: Column, name: str) -> Statistic | None:
    """Return a score's level ``chance`` or ``untrained``, over the settings' runs; None if none has it.

    Equal numbers count once: settings that differ in what is trained have the same untrained encoders.
    """
    group, _, score = column.tag.partition("/")
    tag = f"{group}/{name}/{score}"
    runs = [run for setting in settings for run in setting.runs]
    return Statistic.of(sorted({run.scalars[tag] for run in runs if tag in run.scalars}))


def told(column: Column, statistic: Statistic) -> str:
    """Return a level as text, with its standard deviation over seeds."""
    spread = "" if statistic.sd is None else f" ± {number(statistic.sd, column.digits)}"
    return f"{number(statistic.mean, column.digits)}{spread}"


def levels_beside(settings: Sequence[Setting], column: Column) -> str:
    """Return the levels of a score for a caption, by data and model where there are several; empty without any."""
    groups: dict[str, list[Setting]] = {}
    for data, same in by_data(settings).items():
        for setting in same:
            z = setting.first.latent_dim
            groups.setdefault(f"{setting.first.model}, z = {z}, {data}", []).append(setting)
    parts = {}
    for name, group in groups.items():
        found = {said: level(group, column, which) for which, said in LEVELS.items()}
        if known := [f"{said} {told(column, one)}" for said, one in found.items() if one]:
            parts[name] = ", ".join(known)
    if len(parts) < 2:
        return "".join(f"; {one}" for one in parts.values())
    return "; " + "; ".join(f"{name}: {one}" for name, one in parts.items())
