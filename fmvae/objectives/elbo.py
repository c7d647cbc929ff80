"""The evidence lower bound, term by term and image by image, in nats (Kingma & Welling 2014)."""

from typing import NamedTuple

from torch import Tensor

from fmvae.objectives.likelihoods import Bernoulli, Likelihood
from fmvae.objectives.schedules import BetaSchedule, Constant


class ELBOTerms(NamedTuple):
    """The two terms of the negative ELBO, each (B,), in nats per image."""

    recon: Tensor
    kl: Tensor


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) per latent dimension, closed form (Kingma & Welling 2014, app. B).

    Args:
        mu, logvar: (B, latent_dim).

    Returns:
        (B, latent_dim), in nats, >= 0.
    """
    # expm1, as 1 + logvar - exp(logvar) cancels where the posterior is near the prior, even below 0
    return 0.5 * (mu.square() + logvar.expm1() - logvar)


class Objective:
    """recon + beta * kl: a likelihood, and a schedule for the weight of the KL."""

    def __init__(self, likelihood: Likelihood | None = None, beta: BetaSchedule | None = None):
        self.likelihood = likelihood or Bernoulli()
        self.beta = beta or Constant(1.0)

    def terms(self, logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> ELBOTerms:
        """Both terms per image, for logits and targets x of shape (B, C, H, W)."""
        return ELBOTerms(self.likelihood.nll(logits, x), kl_divergence(mu, logvar).sum(1))

    def __call__(self, recon, kl, progress: float = 1.0):
        """What is optimised, from the mean terms of a batch or of a split (tensors or floats), in nats."""
        return recon + self.beta.penalty(kl, progress)


def vae_loss(
    logits: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The Bernoulli beta-VAE loss of a batch: scalars ``(recon + beta * kl, recon, kl)``, in nats per image.

    Args:
        logits, x: (B, C, H, W); x in [0, 1].
        mu, logvar: (B, latent_dim).
    """
    objective = Objective(Bernoulli(), Constant(beta))
    recon, kl = (term.mean() for term in objective.terms(logits, x, mu, logvar))
    return objective(recon, kl), recon, kl
