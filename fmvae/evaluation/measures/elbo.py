"""The block ``test``: the terms of the objective on the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.evaluation.measure import BuiltIn, Context


class Elbo(BuiltIn):
    """The mean terms over the test split, sampled and at the posterior mean: always measured.

    Args:
        of_means: whether the objective is a function of the mean terms; if not, it has no value at the mean.
    """

    name = "test"

    def __init__(self, of_means: bool = True):
        self.of_means = of_means

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        yield cls(context.objective.of_means(0.0, 0.0) is not None)

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return tuple(c for c in BLOCKS[self.name] if self.of_means or c.tag != "objective_at_mean")

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
