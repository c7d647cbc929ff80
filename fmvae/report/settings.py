"""Group runs that differ only in the seed into settings, with means and standard deviations over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fmvae.common.digests import canonical_json
from fmvae.report.collect import SEEDS, Run, short

# keys whose values follow from other keys
DERIVED = ("model.latent_dim", "data.seed")
# keys that have a column or an axis of their own
NAMED = ("model._name_", "model._target_", "latent_dim.value", "beta.value", "beta._target_", *SEEDS, *DERIVED)


class Statistic(NamedTuple):
    """A number's mean over ``n`` runs of a setting; ``sd`` is the sample standard deviation, None for one run."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Setting:
    """Complete runs (one or more) whose configs differ only in the seed, sorted by seed."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def _statistics(self) -> dict[str, Statistic | None]:
        return {}

    def statistic(self, tag: str) -> Statistic | None:
        """Return the statistic of the final number ``tag`` over the runs that have it; None if none has it."""
        if tag not in self._statistics:
            values = np.array([run.scalars[tag] for run in self.runs if tag in run.scalars], np.float64)
            n = len(values)
            sd = float(values.std(ddof=1)) if n > 1 else None
            self._statistics[tag] = Statistic(float(values.mean()), sd, n) if n else None
        return self._statistics[tag]


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Return the settings of the complete runs, in the order of the runs."""
    groups: defaultdict[bytes, list[Run]] = defaultdict(list)
    for run in runs:
        if run.complete:
            groups[without(run.config, SEEDS)].append(run)
    return [Setting(tuple(group)) for group in groups.values()]


def without(config: Mapping[str, Any], keys: Sequence[str]) -> bytes:
    """Return the canonical JSON of a config without these keys."""
    return canonical_json({key: value for key, value in config.items() if key not in keys})


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ between configs, or that some configs lack, sorted."""
    first, keys = (configs[0] if configs else {}), {key for config in configs for key in config}
    missing = object()
    return sorted(
        key for key in keys if any(config.get(key, missing) != first.get(key, missing) for config in configs[1:])
    )


def telling(runs: Sequence[Run]) -> list[str]:
    """Return the keys other than model, z, schedule, beta and seed in which runs differ.

    A key of the model or schedule counts only if runs with the same model or schedule differ in it. That ``base``
    has a ``hidden_dim`` and ``conv`` has none is already clear from the model's name.
    """
    configs = [run.config for run in runs]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        for kind in (("model.", run.model), ("beta.", run.schedule)):
            groups.setdefault(kind, []).append(run.config)
    within = {key for (prefix, _), group in groups.items() for key in differing(group) if key.startswith(prefix)}
    return [
        key
        for key in differing(configs)
        if key not in NAMED and (not key.startswith(("model.", "beta.")) or key in within)
    ]


def label(key: str, keys: Sequence[str]) -> str:
    """Return a short, unambiguous label for a key in ``keys``: ``lr``, or ``likelihood`` for its ``_target_``."""

    def last(name: str) -> str:
        return name.removesuffix("._target_").rpartition(".")[2]

    return last(key) if [last(other) for other in keys].count(last(key)) == 1 else key


def shown(key: str, config: Mapping[str, Any]) -> str:
    """Return a config value as text; empty if the config lacks it."""
    if key not in config:
        return ""
    value = config[key]
    if key.endswith("._target_"):
        return short(value)
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def particulars(run: Run, keys: Sequence[str]) -> str:
    """Return a run's values of ``keys`` as text, such as ``lr 0.001, dropout 0.1``."""
    return ", ".join(f"{label(key, keys)} {shown(key, run.config)}" for key in keys if key in run.config)


class Curve(NamedTuple):
    """Settings that differ only in beta, sorted by beta.

    Args:
        family: the model, the schedule if it is not constant, and the other keys in which settings of this model
            differ.
    """

    family: str
    latent_dim: int
    settings: list[Setting]


def curves_of(settings: Sequence[Setting]) -> list[Curve]:
    """Group the settings into curves, in the order of the settings."""
    of_model, groups = defaultdict(list), defaultdict(list)
    for setting in settings:
        of_model[setting.first.model].append(setting)
        groups[without(setting.first.config, ("beta.value", *SEEDS))].append(setting)
    keys = {model: telling([setting.first for setting in own]) for model, own in of_model.items()}
    curves = []
    for group in groups.values():
        first: Run = group[0].first
        parts = [first.model, first.schedule if first.schedule != "constant" else ""]
        parts.append(particulars(first, keys[first.model]))
        curves.append(Curve(", ".join(filter(None, parts)), first.latent_dim or 0, group))
    return curves
