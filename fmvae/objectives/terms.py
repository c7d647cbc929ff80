"""The input and the output of an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fmvae.objectives.densities import Density


class Model(Protocol):
    """What an objective may use of a model; ``fmvae.models.VAE`` explains each."""

    def __call__(self, x: Tensor, labels: Tensor | None = None, *, noise: Tensor | None = None) -> Any: ...

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor: ...

    def reparameterize(
        self,
        mu: Tensor,
        logvar: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor: ...

    def prior_density(self) -> Density: ...


class Batch(NamedTuple):
    """The input of an objective.

    Attributes:
        x: images (B, C, H, W), in [0, 1].
        labels: (B,) integers; zeros for data without labels.
        noise: standard normal, for the posterior draws: (B, latent_dim), or (K, B, latent_dim) if ``num_draws`` of
            the objective is K > 1.
        num_train: images in the training split.
    """

    x: Tensor
    labels: Tensor
    noise: Tensor
    num_train: int


class Terms(NamedTuple):
    """The output of an objective.

    Attributes:
        loss: the scalar () to minimise.
        parts: named scalars () to record: ``recon`` and ``kl`` first, in nats per image, then others, in any unit.
            They may carry gradients.
        network_loss: the scalar () that trains ``Objective.network``; None without a network. Only the network's
            parameters get its gradient, and only the others get that of ``loss``, so nothing need be detached.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    network_loss: Tensor | None = None


def draw_noise(x: Tensor, latent_dim: int, num_draws: int, generator: torch.Generator) -> Tensor:
    """Draw ``Batch.noise`` for images x (B, C, H, W)."""
    shape = (len(x), latent_dim) if num_draws == 1 else (num_draws, len(x), latent_dim)
    return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
