"""The block ``latent``: activity of the latent dimensions, the aggregate posterior, and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.latent import OF_STANDARD_PRIOR, latent_measures
from fmvae.evaluation.measure import Context
from fmvae.evaluation.planned import BuiltIn

PROBE_IMAGES = 10_000  # training images that the linear probe is fit on
PROBE = "linear_probe_accuracy"


class Latents(BuiltIn):
    """Measures of the test images' posteriors; the linear probe is fitted on ``num_train`` training images.

    Args:
        num_train: None leaves the linear probe out.
        standard_prior: whether the prior is N(0, I); if not, the numbers that compare with it are left out.
    """

    name = "latent"
    off: ClassVar = {"latent": False}
    way_in = "give evaluation.latent=true"

    def __init__(self, num_train: int | None, standard_prior: bool = True):
        self.num_train, self.standard_prior = num_train, standard_prior

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        if not evaluation["latent"]:
            return
        if not context.data.labelled:
            context.notes.append("the linear probe of the latents is left out: the data have no labels")
        num_train = min(PROBE_IMAGES, len(context.data.train)) if context.data.labelled else None
        with torch.no_grad():  # a density may encode pseudo-inputs
            yield cls(num_train, context.model.prior_density().is_standard)

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"latent": True}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_train": self.num_train} if self.num_train else {}

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        absent = () if self.num_train else (PROBE,)
        absent += () if self.standard_prior else OF_STANDARD_PRIOR
        return tuple(column for column in BLOCKS[self.name] if column.tag not in absent)

    def compute(self, context: Context) -> dict[str, Any]:
        train = context.posteriors(context.random_train(self.num_train)) if self.num_train else None
        test, num_classes = context.posteriors(context.data.test), context.data.num_classes
        return latent_measures(train, test, num_classes, standard_prior=self.standard_prior)
