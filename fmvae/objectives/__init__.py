"""Training objectives: likelihoods, KL divergence, ELBO, and schedules of the KL weight."""

from fmvae.objectives.densities import Density, Mixture, StandardNormal, kl_divergence, log_normal
from fmvae.objectives.elbo import ELBO, ELBOTerms, elbo_terms, vae_loss
from fmvae.objectives.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, Capacity, Constant, Cyclical, Warmup
from fmvae.objectives.terms import Batch, Terms, draw_noise

__all__ = [
    "ELBO",
    "Batch",
    "Bernoulli",
    "BetaSchedule",
    "Capacity",
    "Constant",
    "ContinuousBernoulli",
    "Cyclical",
    "Density",
    "ELBOTerms",
    "Gaussian",
    "Likelihood",
    "Mixture",
    "Objective",
    "StandardNormal",
    "Terms",
    "Warmup",
    "draw_noise",
    "elbo_terms",
    "kl_divergence",
    "log_normal",
    "vae_loss",
]
