"""Densities of latents: N(0, 1), mixtures of Gaussians, and the KL divergence of posteriors from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

LOG_2PI = math.log(2 * math.pi)
BLOCK = 4_000_000  # numbers of a block: of 32 MB in float64
CACHED_BLOCK = 400_000  # numbers of a block that stays in a CPU's cache between operations (benchmarks.mixtures)
DRAWS, DRAWN = 2048, 32_768  # for statistics without a closed form: at least so many draws, and so many numbers
ROUNDING = 1e-9  # nats that a product of matrices may lose to cancellation, as estimated
HALVINGS = 60  # of an interval that holds a quantile, to float64's rounding


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


def in_blocks(function: Callable[[Tensor], Tensor], z: Tensor, per_row: int, block: int | None = None) -> Tensor:
    """Apply a function from rows (N, D) to (N,) to z (..., D), block by block, to bound the memory.

    Args:
        per_row: how many numbers the function holds at once for a row.
        block: how many numbers it may hold at once; None means ``BLOCK``.
    """
    rows = z.reshape(-1, z.shape[-1]).split(max(1, (block or BLOCK) // per_row))
    return torch.cat([function(block) for block in rows]).view(z.shape[:-1])


class Density(ABC):
    """A density of latents, on one device, as a prior is at one moment of training.

    Args:
        latent_dim: number of dimensions.
        like: a tensor with the device and the dtype of draws.
    """

    is_standard: ClassVar[bool] = False  # N(0, 1)

    def __init__(self, latent_dim: int, like: Tensor):
        self.latent_dim, self.device, self.dtype = latent_dim, like.device, like.dtype

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

    # --- each dimension alone, in float64 on the CPU; from draws, if a class does not override it

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of each dimension, each (latent_dim,)."""
        return self._draws.mean(0), self._draws.std(0)

    def quantiles(self, shares: Tensor) -> Tensor:
        """Return the quantiles (S, latent_dim) of each dimension at shares (S,) in (0, 1)."""
        return self._draws.quantile(shares.to(self._draws), dim=0)

    def shares_below(self, z: Tensor) -> Tensor:
        """Return the share of the mass of each dimension that is below z (S, latent_dim): (S, latent_dim)."""
        z = z.to(self._draws)
        ranks = torch.searchsorted(self._draws.T.contiguous(), z.T.contiguous(), right=True)
        return ranks.T.to(self._draws) / len(self._draws)

    @cached_property
    def _draws(self) -> Tensor:
        """The same draws each time, sorted in each dimension."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        with torch.no_grad():
            z = self.sample(max(DRAWS, DRAWN // self.latent_dim), generator)
        return z.to("cpu", torch.float64).sort(dim=0).values


class StandardNormal(Density):
    """N(0, 1) in each dimension."""

    is_standard = True

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        shape = (num, self.latent_dim)
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)

    def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
        return kl_divergence(mu, logvar).sum(1)

    def moments(self) -> tuple[Tensor, Tensor]:
        mean = torch.zeros(self.latent_dim, dtype=torch.float64)
        return mean, torch.ones_like(mean)

    def quantiles(self, shares: Tensor) -> Tensor:
        return ndtri(shares.to("cpu", torch.float64))[:, None].expand(-1, self.latent_dim)

    def shares_below(self, z: Tensor) -> Tensor:
        return ndtr(z.to("cpu", torch.float64))


class Mixture(Density):
    """A mixture of K diagonal Gaussians.

    Args:
        mu, logvar: of the components, (K, latent_dim).
        log_weights: (K,); the weights add up to 1.
    """

    def __init__(self, mu: Tensor, logvar: Tensor, log_weights: Tensor):
        super().__init__(mu.shape[1], mu)
        self.mu, self.logvar, self.log_weights = mu, logvar, log_weights

    def log_prob(self, z: Tensor) -> Tensor:
        mu, logvar, log_weights = (part.to(z.dtype) for part in (self.mu, self.logvar, self.log_weights))
        inverse_std = (-0.5 * logvar).exp()
        log_peaks = log_weights - 0.5 * (logvar + LOG_2PI).sum(1)
        # not in training: a gradient is summed block by block, and other blocks would round it differently
        block = CACHED_BLOCK if z.device.type == "cpu" and not torch.is_grad_enabled() else BLOCK

        def of_rows(rows: Tensor) -> Tensor:
            # differences, not a product of matrices, which would cancel where a component is narrow
            distances = ((rows[:, None] - mu) * inverse_std).square().sum(2)  # (N, K)
            return (log_peaks - 0.5 * distances).logsumexp(1)

        if z.dtype != torch.float64 or torch.is_grad_enabled() or not self._is_wide(z):
            return in_blocks(of_rows, z, mu.numel(), block)
        precision = inverse_std.square()
        squares, products = -0.5 * precision.T, (mu * precision).T  # (latent_dim, K)
        constants = log_peaks - 0.5 * (mu.square() * precision).sum(1)

        def multiplied_out(rows: Tensor) -> Tensor:
            return (rows.square() @ squares + rows @ products + constants).logsumexp(1)

        return in_blocks(multiplied_out, z, max(mu.shape), block)

    def _is_wide(self, z: Tensor) -> bool:
        """Return whether the squares of (z - mu) / sigma can be multiplied out in float64, for all of z.

        The error is estimated as float64's rounding of the largest terms that cancel; with many dimensions, their
        roundings add up.
        """
        if not z.numel():
            return False
        largest = sum(torch.stack(part.double().aminmax()).abs().amax().square() for part in (z, self.mu))
        added_up = max(1.0, self.latent_dim / 64)
        return (largest * (-self.logvar.double()).exp().sum(1).amax() * added_up * 2**-52 <= ROUNDING).item()

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        components = self.log_weights.exp().multinomial(num, replacement=True, generator=generator)
        shape = (num, self.latent_dim)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        return self.mu[components] + noise * (0.5 * self.logvar[components]).exp()

    def moments(self) -> tuple[Tensor, Tensor]:
        mu, std, weights = self._in_float64()
        mean = weights @ mu
        return mean, (weights @ (std.square() + (mu - mean).square())).sqrt()

    def quantiles(self, shares: Tensor) -> Tensor:
        mu, std, _ = self._in_float64()
        wanted = shares.to("cpu", torch.float64)[:, None]
        # every component has its quantile within, and a mixture's lies between those of its components
        ends = mu + ndtri(wanted)[..., None] * std  # (S, K, latent_dim)
        low, high = ends.amin(1), ends.amax(1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self.shares_below(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def shares_below(self, z: Tensor) -> Tensor:
        mu, std, weights = self._in_float64()
        return weights @ ndtr((z.to(mu)[:, None] - mu) / std)

    def _in_float64(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return means, standard deviations and weights on the CPU."""
        parts = (self.mu, self.logvar, self.log_weights)
        mu, logvar, log_weights = (part.detach().to("cpu", torch.float64) for part in parts)
        return mu, (0.5 * logvar).exp(), log_weights.exp()
