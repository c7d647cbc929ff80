"""The block ``test``: the terms of the objective on the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fmvae.evaluation.likelihood import measure_elbo
from fmvae.evaluation.measure import BuiltIn, Context


class Elbo(BuiltIn):
    """The mean terms over the test split, sampled and at the posterior mean: always measured."""

    name = "test"

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        yield cls()

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
