"""Maximum mean discrepancy (Gretton et al. 2012), and InfoVAE, which presses the aggregate to the prior by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fmvae.objectives.densities import kl_divergence
from fmvae.objectives.likelihoods import Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, check_weight
from fmvae.objectives.terms import Batch, Model, Terms

Kernel = Callable[[Tensor, Tensor, float], Tensor]


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    # from differences: |a|^2 + |b|^2 - 2 ab would cancel for near points, and be rounded further with tf32
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def imq_kernel(a: Tensor, b: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Return the inverse multiquadric C / (C + |a_i - b_j|^2), (M, N), of Tolstikhin et al. 2018.

    C = 2 * latent_dim * bandwidth^2 is the mean squared distance between two draws from N(0, bandwidth^2).

    Args:
        a, b: (M, latent_dim) and (N, latent_dim).
    """
    scale = 2 * a.shape[-1] * bandwidth**2
    return scale / (scale + _squared_distances(a, b))


def gaussian_kernel(a: Tensor, b: Tensor, bandwidth: float = 1.0) -> Tensor:
    """Return the Gaussian exp(-|a_i - b_j|^2 / C), (M, N), with C as for ``imq_kernel``.

    Args:
        a, b: (M, latent_dim) and (N, latent_dim).
    """
    scale = 2 * a.shape[-1] * bandwidth**2
    return (-_squared_distances(a, b) / scale).exp()


KERNELS: dict[str, Kernel] = {"imq": imq_kernel, "gaussian": gaussian_kernel}


def unbiased_mmd(a: Tensor, b: Tensor, kernel: Kernel = imq_kernel, bandwidth: float = 1.0) -> Tensor:
    """Estimate the squared MMD between two distributions from draws: () (Gretton et al. 2012, eq. 3).

    Its expectation is the squared MMD, so it is negative for about half of the draws from equal distributions.

    Args:
        a, b: (M, latent_dim) and (N, latent_dim); M, N >= 2.
        kernel: with the value 1 for equal points.
    """
    within = [(kernel(x, x, bandwidth).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return within[0] + within[1] - 2 * kernel(a, b, bandwidth).mean()


class InfoVAE(Objective):
    """recon + (1 - alpha) * beta * kl + (alpha + lam - 1) * mmd (Zhao et al. 2019, eq. 6).

    mmd is the unbiased estimate of the squared MMD between the aggregate posterior and the prior N(0, 1), from one
    draw for each image and as many from the prior. alpha = 0 and lam = 1 give the ELBO; alpha = 1 gives the WAE
    with MMD (Tolstikhin et al. 2018).

    Part ``mmd``: without its weight.

    Args:
        alpha: the paper's weight of the mutual information, finite and <= 1.
        lam: the paper's lambda, finite and >= 1 - alpha, so that mmd has no negative weight.
        kernel: ``imq``, the inverse multiquadric, or ``gaussian``.
        bandwidth: of the kernel, in standard deviations of the prior, > 0.
    """

    num_draws = 2  # the posterior's, and the prior's
    smallest_batch = 2  # images; the estimate divides by B - 1

    def __init__(
        self,
        alpha: float = 0.0,
        lam: float = 1000.0,
        kernel: str = "imq",
        bandwidth: float = 1.0,
        likelihood: Likelihood | None = None,
        beta: BetaSchedule | None = None,
    ):
        super().__init__(likelihood, beta)
        if not (math.isfinite(alpha) and alpha <= 1):
            raise ValueError(f"alpha must be finite and <= 1, got {alpha}")
        if not (math.isfinite(lam) and lam >= 1 - alpha):
            raise ValueError(f"lam must be finite and >= 1 - alpha, here {1 - alpha:g}, got {lam}")
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}")
        if not (math.isfinite(bandwidth) and bandwidth > 0):
            raise ValueError(f"bandwidth must be finite and > 0, got {bandwidth}")
        self.kl_weight = check_weight("1 - alpha", 1 - alpha)
        self.mmd_weight = check_weight("alpha + lam - 1", lam - (1 - alpha))
        self.kernel, self.bandwidth = KERNELS[kernel], bandwidth

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        posterior_noise, prior = batch.noise
        output = model(batch.x, batch.labels, noise=posterior_noise)
        recon = self.likelihood.nll(output.logits, batch.x).mean()
        kl = kl_divergence(output.mu, output.logvar).sum(1).mean()
        mmd = unbiased_mmd(output.z, prior, self.kernel, self.bandwidth)
        loss = recon + self.kl_weight * self.beta.penalty(kl, numbers) + self.mmd_weight * mmd
        return Terms(loss, {"recon": recon, "kl": kl, "mmd": mmd})
