"""Group runs that differ only in the seed into settings, with means and standard deviations over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fmvae.common.digests import canonical_json
from fmvae.config.identity import NAMED
from fmvae.report.collect import SEEDS, Run, short

BETA, Z, DATA = "beta.value", "latent_dim.value", "data._target_"
# keys that have a column or an axis of their own
OWN = ("model._name_", "model._target_", Z, BETA, "beta._target_", *SEEDS)


class Statistic(NamedTuple):
    """A number's mean over ``n`` runs of a setting; ``sd`` is the sample standard deviation, None for one run."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Statistic | None:
        """Return the statistic of numbers; None if there are none."""
        values = np.array(list(numbers), np.float64)
        if not len(values):
            return None
        return cls(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Setting:
    """Complete runs (one or more) whose configs differ only in the seed, sorted by seed."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @cached_property
    def but_numbers(self) -> tuple[int | None, bytes]:
        """z, and the config without other numbers: settings with equal ones may differ in their strength."""
        config = {key: "" if _is_number(value) else value for key, value in self.first.config.items()}
        return self.first.latent_dim, canonical_json(config)

    @cached_property
    def _statistics(self) -> dict[str, Statistic | None]:
        return {}

    def statistic(self, tag: str) -> Statistic | None:
        """Return the statistic of the final number ``tag`` over the runs that have it; None if none has it."""
        if tag not in self._statistics:
            self._statistics[tag] = Statistic.of(run.scalars[tag] for run in self.runs if tag in run.scalars)
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


def differing(configs: Sequence[Mapping[str, Any]], keys: Collection[str] | None = None) -> list[str]:
    """Return the keys whose values differ between configs, or that some configs lack, sorted.

    Args:
        keys: those to look at; None is all. With thousands of configs, looking at each takes seconds.
    """
    first, missing = (configs[0] if configs else {}), object()
    if keys is None:
        keys = set().union(*configs)
    return sorted(
        key for key in keys if any(config.get(key, missing) != first.get(key, missing) for config in configs[1:])
    )


def in_scale(key: str) -> bool:
    """Return whether nats per image of runs that differ in this key do not compare.

    Densities of grey values and probabilities of black and white pixels have different scales.
    """
    return key.startswith("likelihood.") or key == "data.binarize"


def source(key: str) -> str | None:
    """Return the key from which this one has its value, unless it is set apart; None if there is none."""
    return Z if key.endswith(".latent_dim") else "seed" if key == "data.seed" else None


def kind(run: Run, group: str) -> str:
    """Return the word for a run's model, loss, prior, schedule or data; empty for other groups."""
    if group == "data":
        return str(run.config.get(DATA, ""))
    return run.schedule if group == "beta" else run.word(group) if group in NAMED else ""


class Telling(NamedTuple):
    """The keys other than model, z, schedule, beta and seed in which runs differ.

    Args:
        keys: ``<group>._name_`` for a loss or prior, which stands for :meth:`Run.word`, then other keys, sorted.
        within: the group, the word of its kind, and the key, for each key in which runs of this kind differ.
    """

    keys: list[str]
    within: frozenset[tuple[str, str, str]]

    def of(self, run: Run) -> list[str]:
        """Return the keys that tell something of this run: those in which runs of its kind differ.

        Two losses may have a key of one name and two meanings, such as ``gamma``. It is told of the loss of which
        there are runs with several ``gamma``, and not of the other one.
        """
        return [key for key in self.keys if is_word(key) or (*_kind_of(run, key), key) in self.within]

    def with_scale(self, other: Telling) -> Telling:
        """Return these keys and those of ``other`` by which nats per image do not compare."""
        added = [key for key in other.keys if in_scale(key) and key not in self.keys]
        return Telling([*self.keys, *added], self.within | {one for one in other.within if one[2] in added})


def is_word(key: str) -> bool:
    return key.endswith("._name_")


def _kind_of(run: Run, key: str) -> tuple[str, str]:
    group = key.partition(".")[0]
    return group, kind(run, group)


def telling(runs: Sequence[Run]) -> Telling:
    """Return the keys in which runs differ.

    A key of the model, loss, prior, schedule or data counts only if runs with the same model (loss, ...) differ in
    it. That ``base`` has a ``hidden_dim`` and ``conv`` has none is already clear from the model's name.
    """
    keys: defaultdict[str, set[str]] = defaultdict(set)  # by group
    for key in set().union(*(run.config for run in runs)):
        keys[key.partition(".")[0]].add(key)
    kinds: dict[tuple[str, str], list[Run]] = {}
    for group in keys:
        for run in runs:
            kinds.setdefault((group, kind(run, group)), []).append(run)
    within = {
        (group, word, key)
        for (group, word), own in kinds.items()
        for key in differing([run.config for run in own], keys[group])
        if key not in OWN and not source(key) and not is_word(key)
    }
    data = {word for group, word in kinds if group == "data"}
    within |= {("data", word, DATA) for word in data if len(data) > 1}
    named = [f"{group}._name_" for group in NAMED if group != "model"]
    words = [key for key in named if len({shown(key, run) for run in runs}) > 1]
    return Telling([*words, *sorted({key for _, _, key in within})], frozenset(within))


def label(key: str, keys: Sequence[str]) -> str:
    """Return a short, unambiguous label for a key in ``keys``: ``lr``, or ``likelihood`` for its ``_target_``."""

    def last(name: str) -> str:
        return name.removesuffix("._target_").removesuffix("._name_").rpartition(".")[2]

    return last(key) if [last(other) for other in keys].count(last(key)) == 1 else key


def shown(key: str, run: Run) -> str:
    """Return a config value as text; empty if the config lacks it."""
    if is_word(key):
        return run.word(key.removesuffix("._name_"))
    if key not in run.config:
        return ""
    value = run.config[key]
    if key.endswith("._target_"):
        return short(value)
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def particulars(run: Run, told: Telling, without: str = "") -> str:
    """Return a run's own values as text, such as ``tc, lr 0.001, dropout 0.1``.

    A loss is its word alone, a prior is ``prior vamp``.

    Args:
        without: a key to leave out.
    """

    def one(key: str) -> str:
        value = shown(key, run)
        return value if key == "loss._name_" else f"{label(key, told.keys)} {value}"

    return ", ".join(one(key) for key in told.of(run) if key != without and (is_word(key) or key in run.config))


class Curve(NamedTuple):
    """Settings that differ only in one number, the strength, sorted by it.

    Args:
        model: the model's name.
        traits: the schedule if it is not constant, and the keys other than the strength in which settings of this
            model differ; may be empty.
        strength: the key of the number.
    """

    model: str
    traits: str
    latent_dim: int
    settings: list[Setting]
    strength: str = BETA

    @property
    def family(self) -> str:
        return ", ".join(filter(None, [self.model, self.traits]))

    def value(self, setting: Setting) -> float:
        """Return the strength of a setting of this curve."""
        return setting.first.config[self.strength]


def curves_of(settings: Sequence[Setting]) -> list[Curve]:
    """Group the settings into curves, in the order of the settings.

    Settings that are alike in z and in all but numbers have one strength: beta, or else, where beta is the same in
    all, the only number in which they differ. If several numbers differ, it is beta, and the others tell curves
    apart. So do a likelihood's numbers: nats of different likelihoods do not compare.
    """
    of_model, alike, groups = defaultdict(list), defaultdict(list), defaultdict(list)
    for setting in settings:
        of_model[setting.first.model].append(setting.first)
        alike[setting.but_numbers].append(setting.first.config)
    every = telling([setting.first for setting in settings])
    told = {model: telling(own).with_scale(every) for model, own in of_model.items()}
    strengths = {key: _strength(configs) for key, configs in alike.items()}
    for setting in settings:
        strength = strengths[setting.but_numbers]
        groups[strength, without(setting.first.config, (strength, *SEEDS))].append(setting)
    curves = []
    for (strength, _), group in groups.items():
        first: Run = group[0].first
        schedule = first.schedule if first.schedule != "constant" else ""
        traits = filter(None, [schedule, particulars(first, told[first.model], strength)])
        curve = Curve(first.model, ", ".join(traits), first.latent_dim or 0, group, strength)
        curves.append(curve._replace(settings=sorted(group, key=curve.value)))
    return curves


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _strength(configs: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key in differing(configs) if key not in SEEDS]
    return keys[0] if len(keys) == 1 and not in_scale(keys[0]) else BETA
