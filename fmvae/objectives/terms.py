"""What an objective is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """What an objective is computed on.

    Attributes:
        x: images (B, C, H, W), in [0, 1].
        labels: (B,) integers; zeros for data without labels.
        noise: standard normal, for the posterior draws: (B, latent_dim), or (K, B, latent_dim) if the objective's
            ``num_draws`` is K > 1.
        num_train: images in the training split.
    """

    x: Tensor
    labels: Tensor
    noise: Tensor
    num_train: int


class Terms(NamedTuple):
    """What an objective gives.

    Attributes:
        loss: what is minimised, a scalar ().
        parts: named scalars () in nats per image, which are recorded; ``recon`` and ``kl`` are always among them.
            They may carry gradients.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]


def draw_noise(x: Tensor, latent_dim: int, num_draws: int, generator: torch.Generator) -> Tensor:
    """The ``noise`` of a batch of images x (B, C, H, W)."""
    shape = (len(x), latent_dim) if num_draws == 1 else (num_draws, len(x), latent_dim)
    return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
