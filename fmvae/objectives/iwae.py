"""The importance-weighted bound as an objective (Burda et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fmvae.objectives.densities import log_normal
from fmvae.objectives.likelihoods import Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule
from fmvae.objectives.terms import Batch, Model, Terms


class IWAE(Objective):
    """-log 1/K sum_k w_k over K posterior draws, with log w = log p(x|z) - beta * (log q(z|x) - log p(z)).

    beta = 1 is the bound of Burda et al. 2016 (eq. 8): between the negative ELBO (K = 1, by draws, not with the
    closed-form KL) and -log p(x), and lower for more draws. Another beta weights the KL of each draw, and the loss
    is then no bound of -log p(x).

    The parts ``recon`` and ``kl`` are means over the draws, as of an ELBO; ``kl`` is log q(z|x) - log p(z).

    With many draws, the encoder's gradient is mostly noise (Rainforth et al. 2018). The doubly reparameterised
    gradient (Tucker et al. 2019, eq. 8) has the same expectation and less variance. It omits the derivative of
    log q(z|x) with respect to mu and logvar at fixed z, and multiplies the gradient that flows through z once more
    by the normalised weights. For another beta, the same derivation gives the factor 1 - beta + beta * weight. The
    gradients of the decoder and the prior are the usual ones.

    Args:
        beta: the schedule of the weight of the KL.
        num_samples: K, >= 1.
        doubly_reparameterised: whether the encoder gets this gradient. A stack then steps its runs in turn.
    """

    any_prior = True
    any_schedule = False

    def __init__(
        self,
        likelihood: Likelihood | None = None,
        beta: BetaSchedule | None = None,
        *,
        num_samples: int = 8,
        doubly_reparameterised: bool = False,
    ):
        super().__init__(likelihood, beta)
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        self.num_draws = num_samples
        self.doubly_reparameterised = doubly_reparameterised
        self.vmap = not doubly_reparameterised  # a hook on a tensor does not work under vmap

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        num, beta = self.num_draws, numbers["beta"]
        mu, logvar = model.encode(batch.x, batch.labels)
        noise = batch.noise.reshape(num, *mu.shape)
        z = model.reparameterize(mu.expand_as(noise), logvar.expand_as(noise), noise=noise)  # (K, B, latent_dim)
        logits = model.decode(z.flatten(0, 1), batch.labels.repeat(num))
        x = batch.x.expand(num, *batch.x.shape).flatten(0, 1)
        recon = self.likelihood.nll(logits, x).unflatten(0, (num, -1))  # (K, B)
        posterior = (mu.detach(), logvar.detach()) if self.doubly_reparameterised else (mu, logvar)
        kl = log_normal(z, *posterior).sum(2) - model.prior_density().log_prob(z)  # (K, B)
        log_w = -(recon + beta * kl)
        if self.doubly_reparameterised and z.requires_grad:
            factor = 1 - beta + beta * log_w.detach().softmax(0)
            z.register_hook(lambda gradient: gradient * factor[:, :, None])
        bound = log_w.logsumexp(0) - math.log(num)
        return Terms(-bound.mean(), {"recon": recon.mean(), "kl": kl.mean()})
