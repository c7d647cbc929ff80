"""DIP-VAE: a penalty on the covariance of the aggregate posterior (Kumar et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmvae.objectives.densities import kl_divergence
from fmvae.objectives.likelihoods import Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, check_weight
from fmvae.objectives.terms import Batch, Model, Terms


def aggregate_covariance(mu: Tensor, logvar: Tensor | None = None) -> Tensor:
    """Return the covariance (latent_dim, latent_dim) of posterior means over the batch, normalised by B.

    Args:
        mu: (B, latent_dim).
        logvar: (B, latent_dim); with it, the posteriors' mean variances are added, which gives the covariance of
            the mixture of the posteriors.
    """
    centred = mu - mu.mean(0)
    covariance = centred.mT @ centred / len(mu)
    return covariance if logvar is None else covariance + torch.diag_embed(logvar.exp().mean(0))


class DIPVAE(Objective):
    """recon + beta * kl + off_diagonal * sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2.

    Kumar et al. 2018, DIP-VAE-I and II. C is a covariance over the batch: that of the posterior means for
    variant I, that of the posteriors' mixture for II. It is pressed to the identity, so the prior must be N(0, 1).

    Part ``dip``: the two penalties with their weights.

    Args:
        variant: 1 or 2.
        off_diagonal: the paper's lambda_od, finite and >= 0.
        diagonal: its lambda_d, finite and >= 0. None takes 10 * off_diagonal for variant I and off_diagonal
            for II, as Locatello et al. 2019.
    """

    smallest_batch = 2  # images; of one alone the covariance is 0

    def __init__(
        self,
        variant: int = 1,
        off_diagonal: float = 10.0,
        diagonal: float | None = None,
        likelihood: Likelihood | None = None,
        beta: BetaSchedule | None = None,
    ):
        super().__init__(likelihood, beta)
        if variant not in (1, 2):
            raise ValueError(f"variant must be 1 or 2, got {variant}")
        self.variant = variant
        self.off_diagonal = check_weight("off_diagonal", off_diagonal)
        usual = self.off_diagonal * (10 if variant == 1 else 1)
        self.diagonal = check_weight("diagonal", usual if diagonal is None else diagonal)

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        output = model(batch.x, batch.labels, noise=batch.noise)
        recon = self.likelihood.nll(output.logits, batch.x).mean()
        kl = kl_divergence(output.mu, output.logvar).sum(1).mean()
        covariance = aggregate_covariance(output.mu, output.logvar if self.variant == 2 else None)
        identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        squares = (covariance - identity).square()
        dip = ((self.off_diagonal * (1 - identity) + self.diagonal * identity) * squares).sum()
        return Terms(recon + self.beta.penalty(kl, numbers) + dip, {"recon": recon, "kl": kl, "dip": dip})
