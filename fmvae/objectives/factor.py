"""FactorVAE: a penalty on the total correlation of the aggregate posterior (Kim & Mnih 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from fmvae.objectives.likelihoods import Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, check_weight
from fmvae.objectives.terms import Batch, Model, Terms


def permute_dimensions(z: Tensor, noise: Tensor) -> Tensor:
    """Permute each latent dimension over the batch on its own (Kim & Mnih 2018, algorithm 1).

    The result has the marginals of z, and its dimensions are independent of each other.

    Args:
        z: (B, latent_dim).
        noise: continuous random numbers with the shape of z; the order of each column is its permutation.
    """
    return z.gather(0, noise.argsort(dim=0, stable=True))  # stable: equal numbers have one order on all devices


def _discriminator(latent_dim: int, width: int, depth: int) -> nn.Sequential:
    """Return a network from (B, latent_dim) to logits (B, 1), with ``depth`` hidden layers."""
    layers: list[nn.Module] = []
    for num_inputs in [latent_dim] + [width] * (depth - 1):
        layers += [nn.Linear(num_inputs, width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(width, 1))


class FactorVAE(Objective):
    """recon + beta * kl + gamma * tc (Kim & Mnih 2018, eq. 2).

    The total correlation tc = KL(q(z) || prod_j q(z_j)) of the aggregate posterior q(z) is estimated by a
    discriminator D between latents z and latents with permuted dimensions: if D is optimal, tc is the mean of
    log D(z) - log(1 - D(z)), which is D's logit. ``network`` gives this logit, where the paper has two outputs
    whose difference it is. D learns from the same batch, and from the same weights of the encoder, as the model;
    algorithm 2 of the paper updates D after the model, on a second batch.

    Parts: ``tc``, without its weight (it can be negative, as D is never optimal), and ``discriminator``, the
    cross-entropy of D, which is log 2 if D cannot tell the two apart.

    Args:
        latent_dim: number of latent dimensions, >= 1.
        gamma: weight of tc, finite and >= 0.
        width, depth: units in each hidden layer of D, and hidden layers; >= 1.
        lr: learning rate of D, > 0.
    """

    num_draws = 2  # the posterior's, and the permutation's
    vmap = False  # the discriminators of several runs are separate networks
    any_prior = True
    smallest_batch = 2  # images; one alone cannot be permuted

    def __init__(
        self,
        latent_dim: int,
        gamma: float = 10.0,
        width: int = 1000,
        depth: int = 6,
        lr: float = 1e-4,
        likelihood: Likelihood | None = None,
        beta: BetaSchedule | None = None,
    ):
        super().__init__(likelihood, beta)
        for name, count in (("latent_dim", latent_dim), ("width", width), ("depth", depth)):
            if count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be finite and > 0, got {lr}")
        self.gamma, self.lr = check_weight("gamma", gamma), lr
        self.latent_dim = latent_dim
        self.network = _discriminator(latent_dim, width, depth)

    def network_optimizer(self) -> Optimizer:
        assert self.network is not None
        return Adam(self.network.parameters(), self.lr, betas=(0.5, 0.9), fused=True)

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        assert self.network is not None
        output = model(batch.x, batch.labels, noise=batch.noise[0])
        recon = self.likelihood.nll(output.logits, batch.x).mean()
        kl = model.prior_density().kl(output.mu, output.logvar, output.z).mean()
        joint = self.network(output.z)  # (B, 1)
        permuted = self.network(permute_dimensions(output.z, batch.noise[1]))
        tc = joint.mean()
        discriminator = 0.5 * (F.softplus(-joint).mean() + F.softplus(permuted).mean())
        loss = recon + self.beta.penalty(kl, numbers) + self.gamma * tc
        parts = {"recon": recon, "kl": kl, "tc": tc, "discriminator": discriminator}
        return Terms(loss, parts, discriminator)
