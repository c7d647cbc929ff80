"""The registry of measures: those that come with fmvae, and the user's own that a config names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from fmvae.config.building import build
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import NAME, RESERVED, Column, built_in_columns, kinds
from fmvae.evaluation.measure import Context, Measure, Need
from fmvae.evaluation.measures.accuracy import Accuracy
from fmvae.evaluation.measures.decomposition import Decomposition
from fmvae.evaluation.measures.disentanglement import Disentanglement
from fmvae.evaluation.measures.elbo import Elbo
from fmvae.evaluation.measures.fid import Distances
from fmvae.evaluation.measures.iwae import ImportanceWeighted
from fmvae.evaluation.measures.latent import Latents
from fmvae.evaluation.measures.samplers import Sampled
from fmvae.evaluation.planned import BuiltIn

# by the top-level name in results.json, in the order in which they are measured and written
BUILT_IN: dict[str, type[BuiltIn]] = {
    "test": Elbo,
    "iwae": ImportanceWeighted,
    "latent": Latents,
    "decomposition": Decomposition,
    "fid": Distances,
    "disentanglement": Disentanglement,
    "accuracy": Accuracy,
    "samplers": Sampled,
}
OWN = "evaluation.measures"


class Own:
    """A user's measure, with its name and its node in the config."""

    def __init__(self, name: str, node: Mapping[str, Any]):
        self.node = dict(node)
        self.measure = build(node, f"{OWN}.{name}", Measure)
        if isinstance(self.measure, BuiltIn):
            problem = f"{node['_target_']} comes with fmvae, and evaluation has keys for it"
            raise ConfigError(f"{OWN}.{name}", problem, "leave it out")
        self.measure.name = name
        self._check_statements(f"{OWN}.{name}")
        _ = self.settings  # reports a mistake in them now, and not after training

    def _check_statements(self, key: str) -> None:
        """Check the class attributes ``needs`` and ``columns``."""
        needs, columns = self.measure.needs, self.measure.columns
        if not isinstance(needs, tuple | list) or not set(needs) <= set(get_args(Need)):
            known = ", ".join(map(repr, get_args(Need)))
            raise ConfigError(key, f"its needs are {needs!r}", f'give a tuple, as ("labels",), of {known}')
        if not isinstance(columns, tuple | list):
            raise ConfigError(key, f"its columns are {columns!r}", "give a tuple, as (Column(...),)")
        for column in columns:
            if not isinstance(column, Column) or Column.read(column.stored()) is None:
                problem = f"{column!r} is not a column with tag, header, unit, digits and direction"
                raise ConfigError(key, problem, "see fmvae.evaluation.Column")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its block, converted to JSON and back."""
        try:
            return json.loads(json.dumps({"measure": self.node, **self.measure.settings}, allow_nan=False))
        except (TypeError, ValueError) as error:
            way_out = f"correct `settings` of {self.node['_target_']}: texts, finite numbers, lists and mappings"
            raise ConfigError(f"{OWN}.{self.measure.name}", f"its settings: {error}", way_out) from None

    @property
    def columns(self) -> list[Column]:
        """Its columns, with full tags."""
        return [column.within(self.measure.name) for column in self.measure.columns]


def own_measures(evaluation: Mapping[str, Any]) -> list[Own]:
    """Build the measures that ``evaluation.measures`` names.

    Raises:
        ConfigError: a name is taken or cannot be the name of a block, or a node is not a measure.
    """
    made = []
    for name, node in evaluation.get("measures", {}).items():
        key, taken = f"{OWN}.{name}", [*kinds(), *RESERVED]
        if name in taken:
            raise ConfigError(key, f"{name!r} is the name of something else in results", "give it another name")
        if not NAME.fullmatch(name):
            raise ConfigError(key, f"{name!r} cannot name a block of results", "take letters, digits and _")
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise ConfigError(key, f"{node!r} is no measure", f"give {key}._target_=<class>, and its arguments")
        made.append(Own(name, node))
    return made


def built_in(context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
    """Yield fmvae's measures that ``evaluation`` requests, in their order."""
    for kind in BUILT_IN.values():
        yield from kind.asked(context, evaluation)


def all_columns(evaluation: Mapping[str, Any]) -> list[Column]:
    """Return the columns of every known measure, requested or not, with full tags."""
    return built_in_columns() + [column for own in own_measures(evaluation) for column in own.columns]


def nothing(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``evaluation`` with every optional measure turned off."""
    off: dict[str, Any] = {**evaluation, "measures": {}}
    for kind in BUILT_IN.values():
        off |= merged(off, kind.off)
    return off


def merged(evaluation: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of ``evaluation`` that change, with the changes applied."""
    return {
        key: {**evaluation[key], **change} if isinstance(change, Mapping) else change
        for key, change in changes.items()
    }
