"""The model's own prior as a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.base import Latents, Sampler
from fmvae.models import VAE


class PriorSampler(Sampler):
    """p(z), with the model's current weights. Nothing is fitted.

    Draws are those of ``VAE.sample``, bit for bit: the generator must be on the model's device. A conditional
    model with a learned prior takes and gives standardised latents, whose prior is N(0, 1) for every class.
    """

    name = "prior"
    stored = False

    def __init__(self, model: VAE):
        super().__init__()
        self.model = model

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        pass

    @torch.no_grad()
    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.model.prior_density().sample(num, generator).double()

    @torch.no_grad()
    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.model.prior_density().log_prob(z.double())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        pass
