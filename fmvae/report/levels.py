"""The levels beside scores of disentanglement: shuffled factors, and an untrained encoder. No input or output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fmvae.evaluation.columns import Column
from fmvae.report.collect import short
from fmvae.report.settings import DATA, Setting, Statistic, differing, label, shown
from fmvae.report.tables import number

LEVELS = {"chance": "shuffled factors", "untrained": "an untrained encoder"}
LONGEST = 16  # characters of a value in a name
# keys of the data that do not change the test images, or of which that is not known
NOT_THE_DATA = ("data.seed", "data.batch_size", "data.num_train", "data.val_size")


def by_data(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Return the settings by their data, of which the numbers do not compare.

    They stand under the name of the data's class and, where there are several of a class, the arguments in which
    those differ, such as ``Sprites, num_test 500``.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        config = setting.first.config
        key = repr([(k, config[k]) for k in sorted(config) if k.startswith("data.") and k not in NOT_THE_DATA])
        groups.setdefault(key, []).append(setting)
    of_class: dict[str, list[list[Setting]]] = {}
    for group in groups.values():
        of_class.setdefault(short(group[0].first.config.get(DATA, "data")), []).append(group)
    named: dict[str, list[Setting]] = {}
    for name, same in of_class.items():
        keys = differing([group[0].first.config for group in same])
        keys = [key for key in keys if key.startswith("data.") and key not in NOT_THE_DATA]
        for group in same:
            parts = [f"{label(key, keys)} {_cut(shown(key, group[0].first) or 'null')}" for key in keys]
            told = ", ".join([name, *parts])
            named[told if told not in named else f"{told} ({len(named) + 1})"] = group
    return named


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:8]}…"  # such as a hash


def level(settings: Sequence[Setting], column: Column, name: str) -> Statistic | None:
    """Return a score's level ``chance`` or ``untrained``, over the settings' runs; None if none has it.

    Equal numbers of one seed count once: settings that differ in what is trained have the same untrained encoders.
    """
    group, _, score = column.tag.partition("/")
    tag = f"{group}/{name}/{score}"
    runs = [run for setting in settings for run in setting.runs]
    found = {(run.config.get("seed"), run.scalars[tag]) for run in runs if tag in run.scalars}
    return Statistic.of(sorted(value for _, value in found))


def told(column: Column, statistic: Statistic, *, of_mean: bool = False) -> str:
    """Return a level as text, ± its standard deviation over seeds or, ``of_mean``, the mean's standard error."""
    scale = math.sqrt(statistic.n) if of_mean else 1.0
    spread = "" if statistic.sd is None else f" ± {number(statistic.sd / scale, column.digits)}"
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
