"""The block ``decomposition``: mutual information, total correlation and dimension-wise KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from fmvae.errors import ConfigError
from fmvae.evaluation.decomposition import decompose_kl
from fmvae.evaluation.measure import Context
from fmvae.evaluation.planned import BuiltIn

STREAM = 1  # the part of the posterior draws' stream


class Decomposition(BuiltIn):
    """The parts of the training images' KL, at ``num_samples`` posterior draws.

    The draws are of as many training images, in a fixed random order; of fewer images, each gives several.
    """

    name = "decomposition"
    off: ClassVar = {"decomposition": {"num_samples": 0}}
    way_in = "give evaluation.decomposition.num_samples, as 2000"

    def __init__(self, num_samples: int):
        self.num_samples = num_samples

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        num = evaluation["decomposition"]["num_samples"]
        if num == 1:
            way_out = "give 2 or more, or 0 to leave it out"
            raise ConfigError("evaluation.decomposition.num_samples", "one draw has no standard error", way_out)
        if num:
            yield cls(num)

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"decomposition": settings}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples}

    def compute(self, context: Context) -> dict[str, Any]:
        mu, logvar, _ = context.posteriors(context.data.train)
        order = context.random_order()
        images = order.repeat(-(-self.num_samples // len(order)))[: self.num_samples]
        noise = torch.randn(
            (self.num_samples, mu.shape[1]),
            generator=context.noise(STREAM),
            device=mu.device,
            dtype=torch.float64,
        )
        z = mu[images].double() + noise * (0.5 * logvar[images].double()).exp()
        parts = decompose_kl(mu, logvar, images, z, context.model.prior_density().log_prob(z))
        return {**parts, "num_draws": len(z), "num_images": len(mu)}
