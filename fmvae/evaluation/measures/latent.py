"""The block ``latent``: activity of the latent dimensions, the aggregate posterior, and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.latent import latent_measures
from fmvae.evaluation.measure import BuiltIn, Context

PROBE_IMAGES = 10_000  # training images that the linear probe is fit on
PROBE = "linear_probe_accuracy"


class Latents(BuiltIn):
    """Measures of the test images' posteriors; the linear probe is fitted on ``num_train`` training images."""

    name = "latent"
    off: ClassVar = {"latent": False}
    way_in = "give evaluation.latent=true"

    def __init__(self, num_train: int | None):
        self.num_train = num_train

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        if not evaluation["latent"]:
            return
        if not context.data.labelled:
            context.notes.append("the linear probe of the latents is left out: the data have no labels")
        yield cls(min(PROBE_IMAGES, len(context.data.train)) if context.data.labelled else None)

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"latent": True}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_train": self.num_train} if self.num_train else {}

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return tuple(column for column in BLOCKS[self.name] if self.num_train or column.tag != PROBE)

    def compute(self, context: Context) -> dict[str, Any]:
        train = context.posteriors(context.random_train(self.num_train)) if self.num_train else None
        return latent_measures(train, context.posteriors(context.data.test), context.data.num_classes)
