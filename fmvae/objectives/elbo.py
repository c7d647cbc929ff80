"""The evidence lower bound, term by term and image by image, in nats (Kingma & Welling 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from fmvae.objectives.densities import kl_divergence
from fmvae.objectives.likelihoods import Bernoulli, Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import Constant
from fmvae.objectives.terms import Batch, Model, Terms


class ELBOTerms(NamedTuple):
    """The two terms of the negative ELBO, each (B,), in nats per image."""

    recon: Tensor
    kl: Tensor


def elbo_terms(likelihood: Likelihood, logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> ELBOTerms:
    """Compute both terms of the negative ELBO for each image, for the prior N(0, 1).

    Args:
        logits, x: (B, C, H, W); x in [0, 1].
        mu, logvar: (B, latent_dim).
    """
    return ELBOTerms(likelihood.nll(logits, x), kl_divergence(mu, logvar).sum(1))


class ELBO(Objective):
    """recon + beta * kl (Higgins et al. 2017), or recon plus another penalty of the schedule on the KL."""

    ignores_unused_latents = True
    any_prior = True

    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        output = model(batch.x, batch.labels, noise=batch.noise)
        recon = self.likelihood.nll(output.logits, batch.x).mean()
        kl = model.prior_density().kl(output.mu, output.logvar, output.z).mean()
        return Terms(recon + self.beta.penalty(kl, numbers), {"recon": recon, "kl": kl})

    def of_means(self, recon: float, kl: float) -> float:
        return recon + self.beta.penalty(kl, self.numbers(1.0))


def vae_loss(
    logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Bernoulli beta-VAE loss of a batch: scalars ``(recon + beta * kl, recon, kl)`` in nats per image.

    Args:
        logits, x: (B, C, H, W); x in [0, 1].
        mu, logvar: (B, latent_dim).
        beta: finite, >= 0.
    """
    schedule = Constant(beta)
    recon, kl = (term.mean() for term in elbo_terms(Bernoulli(), logits, x, mu, logvar))
    return recon + schedule.penalty(kl, schedule.numbers(1.0)), recon, kl
