"""Densities of latents: N(0, 1), mixtures of Gaussians, and the KL divergence of posteriors from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) per latent dimension (Kingma & Welling 2014, app. B).

    Args:
        mu, logvar: (B, latent_dim).

    Returns:
        (B, latent_dim), in nats, >= 0.
    """
    # expm1: near the prior, exp(logvar) - 1 - logvar cancels, and rounding could make it negative
    return 0.5 * (mu.square() + logvar.expm1() - logvar)


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Return log N(z; mu, exp(logvar)) per latent dimension, in nats; the shapes are broadcast."""
    return -0.5 * ((z - mu).square() * (-logvar).exp() + logvar + LOG_2PI)


class Density(ABC):
    """A density of latents, on one device, as a prior is at one moment of training."""

    is_standard: ClassVar[bool] = False  # N(0, 1)

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) (...) in nats, for z (..., latent_dim), in the dtype of z."""

    @abstractmethod
    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw z (num, latent_dim) from a generator on the density's device, or from torch's global one."""

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        """Return KL(q || p) of posteriors q = N(mu, exp(logvar)): (B,), in nats.

        Without a closed form it is estimated by log q(z) - log p(z) at one draw z, which can be negative.

        Args:
            mu, logvar, z: (B, latent_dim); z drawn from the posteriors.
        """
        return log_normal(z, mu, logvar).sum(1) - self.log_prob(z)


class StandardNormal(Density):
    """N(0, 1) in each dimension.

    Args:
        latent_dim: number of dimensions.
        like: a tensor with the device and the dtype of draws.
    """

    is_standard = True

    def __init__(self, latent_dim: int, like: Tensor):
        self.latent_dim, self.device, self.dtype = latent_dim, like.device, like.dtype

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        shape = (num, self.latent_dim)
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return kl_divergence(mu, logvar).sum(1)
