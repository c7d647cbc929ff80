"""Posteriors for the tests of samplers: three clusters, and an aggregate that is N(0, 1)."""

import math

import torch

from fmvae.evaluation.samplers.base import Latents

CENTRES = torch.tensor([[-4.0, 0.0, 1.0], [0.5, 3.0, -1.0], [4.0, -2.0, 0.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(num: int, dim: int, seed: int = 0) -> Latents:
    """num posteriors in three clusters, which are the classes, in turn; float32."""
    labels = torch.arange(num) % 3
    spread = 0.6 * torch.randn(num, dim, generator=generator(seed))
    logvar = torch.linspace(-2, -1, num)[:, None].expand(num, dim).clone()
    return Latents(CENTRES[labels, :dim] + spread, logvar, labels)


def normal_latents(num: int, dim: int, seed: int = 0) -> Latents:
    """num posteriors of which the aggregate is N(0, 1)."""
    mu = math.sqrt(0.75) * torch.randn(num, dim, generator=generator(seed))
    return Latents(mu, torch.full_like(mu, math.log(0.25)), torch.zeros(num, dtype=torch.long))
