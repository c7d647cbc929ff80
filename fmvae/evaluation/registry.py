"""Which measures there are: those that come with fmvae, and those of one's own that a config names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fmvae.config.building import build
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import NAME, RESERVED, Column, built_in_columns, kinds
from fmvae.evaluation.measure import BuiltIn, Context, Measure
from fmvae.evaluation.measures.accuracy import Accuracy
from fmvae.evaluation.measures.elbo import Elbo
from fmvae.evaluation.measures.fid import Distances
from fmvae.evaluation.measures.iwae import ImportanceWeighted
from fmvae.evaluation.measures.latent import Latents

# by the top-level name in results.json, in the order in which they are measured and written
BUILT_IN: dict[str, type[BuiltIn]] = {
    "test": Elbo,
    "iwae": ImportanceWeighted,
    "latent": Latents,
    "fid": Distances,
    "accuracy": Accuracy,
}
OWN = "evaluation.measures"


class Own:
    """A measure of one's own, with the name and the node that the config gives it."""

    def __init__(self, name: str, node: Mapping[str, Any]):
        self.node = dict(node)
        self.measure = build(node, f"{OWN}.{name}", Measure)
        if isinstance(self.measure, BuiltIn):
            problem = f"{node['_target_']} comes with fmvae, and evaluation has keys for it"
            raise ConfigError(f"{OWN}.{name}", problem, "leave it out")
        self.measure.name = name
        for column in self.measure.columns:
            if not isinstance(column, Column) or Column.read(column.stored()) is None:
                problem = f"{column!r} is no column of a tag, header, unit, digits and direction"
                raise ConfigError(f"{OWN}.{name}", problem, "see fmvae.evaluation.Column")

    @property
    def settings(self) -> dict[str, Any]:
        """Of its block, as they are read from a file."""
        try:
            return json.loads(json.dumps({"measure": self.node, **self.measure.settings}, allow_nan=False))
        except (TypeError, ValueError) as error:
            way_out = f"correct `settings` of {self.node['_target_']}: texts, finite numbers, lists and mappings"
            raise ConfigError(f"{OWN}.{self.measure.name}", f"its settings: {error}", way_out) from None

    @property
    def columns(self) -> list[Column]:
        """With whole tags."""
        return [column.within(self.measure.name) for column in self.measure.columns]


def own_measures(evaluation: Mapping[str, Any]) -> list[Own]:
    """The measures that ``evaluation.measures`` names.

    Raises:
        ConfigError: a name is taken or cannot be a block's, or a node is no measure.
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
    """The measures of fmvae that ``evaluation`` asks for, in their order."""
    for kind in BUILT_IN.values():
        yield from kind.asked(context, evaluation)


def all_columns(evaluation: Mapping[str, Any]) -> list[Column]:
    """The columns of every measure there is, with whole tags, whether or not it is asked for."""
    return built_in_columns() + [column for own in own_measures(evaluation) for column in own.columns]


def nothing(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """``evaluation`` with every measure that can be left out turned off."""
    off: dict[str, Any] = {**evaluation, "measures": {}}
    for kind in BUILT_IN.values():
        off |= merged(off, kind.off)
    return off


def merged(evaluation: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of ``evaluation`` with these changes in them."""
    return {
        key: {**evaluation[key], **change} if isinstance(change, Mapping) else change
        for key, change in changes.items()
    }
