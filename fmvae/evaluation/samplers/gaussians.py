"""Mixtures of Gaussians with full covariances."""

from __future__ import annotations

import torch
from torch import Tensor

from fmvae.objectives.densities import BLOCK, LOG_2PI, Density, in_blocks


class FullGaussians(Density):
    """A mixture of K Gaussians with full covariances L Lᵀ, in float64.

    Args:
        weights: (K,), adding up to 1.
        means: (K, D).
        factors: the lower triangular L, (K, D, D).

    Raises:
        ValueError: the shapes do not fit.
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor):
        num, dim = means.shape
        if weights.shape != (num,) or factors.shape != (num, dim, dim):
            raise ValueError(f"weights {[*weights.shape]}, means {[*means.shape]}, factors {[*factors.shape]}")
        super().__init__(dim, means)
        self.weights, self.means, self.factors = weights, means, factors
        self._whitening: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def at(self, temperature: float) -> FullGaussians:
        """Return the mixture whose covariances are ``temperature``² times these."""
        return FullGaussians(self.weights, self.means, temperature * self.factors)

    def log_prob(self, z: Tensor) -> Tensor:
        means, (inverse, log_peaks) = self.means.to(z), self._whitened(z)

        def of_rows(rows: Tensor) -> Tensor:
            whitened = (rows - means[:, None]) @ inverse.mT  # (K, N, D)
            return (log_peaks[:, None] - 0.5 * whitened.square().sum(2)).logsumexp(0)

        return in_blocks(of_rows, z, 2 * means.numel())

    def _whitened(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse factors (K, D, D) and the logarithms of weighted peaks (K,), computed once."""
        key = like.dtype, like.device
        if key not in self._whitening:
            with torch.inference_mode(False), torch.no_grad():  # later calls may be in another mode
                weights, factors = (part.to(like.device, like.dtype) for part in (self.weights, self.factors))
                identity = torch.eye(self.latent_dim, dtype=like.dtype, device=like.device)
                inverse = torch.linalg.solve_triangular(factors, identity, upper=False)
                heights = factors.diagonal(dim1=1, dim2=2).log().sum(1)
                self._whitening[key] = inverse, weights.log() - heights - 0.5 * self.latent_dim * LOG_2PI
        return self._whitening[key]

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator else self.device
        like = {"generator": generator, "device": device, "dtype": self.dtype}
        return self.of_noise(torch.rand(num, **like), torch.randn((num, self.latent_dim), **like))

    def of_noise(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """Return draws (N, D): uniform (N,) in [0, 1) chooses the components, noise (N, D) is standard normal."""
        totals = self.weights.cumsum(0).to(uniform)
        chosen = torch.searchsorted(totals / totals[-1], uniform, right=True)
        means, factors = self.means.to(noise), self.factors.to(noise)
        drawn = [
            means[some] + (factors[some] @ part[..., None])[..., 0]
            for some, part in zip(
                *(t.split(max(1, BLOCK // self.latent_dim**2)) for t in (chosen, noise)), strict=True
            )
        ]
        return torch.cat(drawn)
