"""The block ``test``: the terms of the objective on the test images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.evaluation.measure import Context
from fmvae.evaluation.planned import BuiltIn


class Elbo(BuiltIn):
    """The mean terms over the test split, sampled and at the posterior mean: always measured.

    Args:
        of_means: whether the objective is a function of the mean terms; if not, it has no value at the mean.
        learned: names of what the likelihood has learned.
    """

    name = "test"

    def __init__(self, of_means: bool = True, learned: Collection[str] = ()):
        self.without = {*([] if of_means else ["objective_at_mean"]), *({"sigma"} - set(learned))}

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        objective = context.objective
        yield cls(objective.of_means(0.0, 0.0) is not None, objective.likelihood.learned())

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return tuple(column for column in BLOCKS[self.name] if column.tag not in self.without)

    def compute(self, context: Context) -> dict[str, Any]:
        data = context.data
        terms = measure_elbo(
            context.model,
            context.objective,
            data.test,
            context.noise(),
            at_mean=True,
            batch_size=data.batch_size,
            num_train=len(data.train),
        )
        return {"num_images": len(data.test), **terms}
