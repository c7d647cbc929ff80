"""The beta-TCVAE: the KL divergence as three terms, estimated within a batch (Chen et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fmvae.objectives.densities import log_normal
from fmvae.objectives.likelihoods import Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, check_weight
from fmvae.objectives.terms import Batch, Model, Terms

Estimate = Literal["mss", "mws"]


def log_weights(estimate: Estimate, batch_size: int, num_train: int, like: Tensor) -> Tensor:
    """Return the log weight of each posterior of a batch in the estimate of q(z), for the draw of each image.

    With N = ``num_train`` and M = ``batch_size`` - 1:

    - ``mss``, minibatch stratified sampling (Chen et al. 2018, app. C.2): 1/N for the image's own posterior,
      (N - M) / (N M) for the next one in the batch, cyclically, and 1/M for the others. A row's weights add up
      to 1. The estimate of q(z) is unbiased; that of its logarithm is not.
    - ``mws``, minibatch weighted sampling (app. C.1): 1 / (N batch_size) for all. On average, the estimate of q(z)
      is too low by a factor between batch_size and about N.

    Args:
        num_train: N, the number of images whose mean posterior is q(z). A batch of more images (of another split)
            counts as the whole set in ``mss``.
        like: a tensor with the device and the dtype of the result.

    Returns:
        (B, B): a row for each draw, a column for each posterior.
    """
    shape = (batch_size, batch_size)
    if estimate == "mws":
        return torch.full(shape, -math.log(num_train * batch_size), dtype=like.dtype, device=like.device)
    others = batch_size - 1
    if others == 0:  # the image is all that is known of the set
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    num = max(num_train, batch_size)
    weights = torch.full(shape, -math.log(others), dtype=like.dtype, device=like.device)
    index = torch.arange(batch_size, device=like.device)
    offset = (index - index[:, None]) % batch_size  # 0 on the diagonal, 1 for the next image
    weights = weights.masked_fill(offset == 0, -math.log(num))
    return weights.masked_fill(offset == 1, math.log((num - others) / (num * others)))


def log_aggregate(z: Tensor, mu: Tensor, logvar: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate the log density of the aggregate posterior q(z), and of each of its marginals q(z_j), at draws z.

    Args:
        z: (B, latent_dim).
        mu, logvar: (B, latent_dim), of the posteriors in the batch.
        weights: (B, B), from ``log_weights``. They are part of every sum over posteriors, thus also of each
            marginal's, and count once in log q(z), not once for each dimension.

    Returns:
        log q(z) (B,) and log q(z_j) (B, latent_dim), in nats.
    """
    pairs = log_normal(z[:, None], mu, logvar)  # (B, B, latent_dim): draw, posterior, dimension
    return (pairs.sum(2) + weights).logsumexp(1), (pairs + weights[:, :, None]).logsumexp(1)


class BetaTCVAE(Objective):
    """recon + alpha * MI + beta * TC + gamma * dimension-wise KL (Chen et al. 2018, eq. 4).

    MI = E[log q(z|x) - log q(z)] is the mutual information of image and latents, TC = E[log q(z) - sum_j log
    q(z_j)] the total correlation, and the last term E[sum_j log q(z_j) - log p(z)] the KL divergence of the
    marginals from the prior. With a prior whose dimensions depend on each other, it also contains their dependence
    under the prior. All three use the same draw for each image and add up to its log q(z|x) - log p(z), the part
    ``kl``. With alpha = beta = gamma = 1 the loss is the negative ELBO of this draw.

    Args:
        beta: the schedule of the weight of TC.
        alpha, gamma: finite, >= 0.
        estimate: of q(z) within a batch, ``mss`` or ``mws`` (``log_weights``).
    """

    any_prior = True
    any_schedule = False
    smallest_batch = 2

    def __init__(
        self,
        likelihood: Likelihood | None = None,
        beta: BetaSchedule | None = None,
        *,
        alpha: float = 1.0,
        gamma: float = 1.0,
        estimate: Estimate = "mss",
    ):
        super().__init__(likelihood, beta)
        if estimate not in get_args(Estimate):
            raise ValueError(f"estimate must be one of {', '.join(get_args(Estimate))}, got {estimate!r}")
        self.alpha, self.gamma = check_weight("alpha", alpha), check_weight("gamma", gamma)
        self.estimate: Estimate = estimate

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        output = model(batch.x, batch.labels, noise=batch.noise)
        mu, logvar, z = output.mu, output.logvar, output.z
        recon = self.likelihood.nll(output.logits, batch.x).mean()
        log_posterior = log_normal(z, mu, logvar).sum(1)
        log_prior = model.prior_density().log_prob(z)
        weights = log_weights(self.estimate, len(z), batch.num_train, z)
        log_joint, log_marginals = log_aggregate(z, mu, logvar, weights)
        log_product = log_marginals.sum(1)
        parts = {
            "recon": recon,
            "kl": (log_posterior - log_prior).mean(),
            "mi": (log_posterior - log_joint).mean(),
            "tc": (log_joint - log_product).mean(),
            "dimension_wise": (log_product - log_prior).mean(),
        }
        penalty = self.alpha * parts["mi"] + numbers["beta"] * parts["tc"] + self.gamma * parts["dimension_wise"]
        return Terms(recon + penalty, parts)
