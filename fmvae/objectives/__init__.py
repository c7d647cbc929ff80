"""Training objectives: likelihoods, KL divergence, ELBO, and schedules of the KL weight."""

from fmvae.objectives.densities import Density, StandardNormal, kl_divergence, log_normal
from fmvae.objectives.elbo import ELBO, ELBOTerms, elbo_terms, vae_loss
from fmvae.objectives.iwae import IWAE
from fmvae.objectives.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, Capacity, Constant, Cyclical, Warmup
from fmvae.objectives.tcvae import BetaTCVAE
from fmvae.objectives.terms import Batch, Model, Terms, draw_noise

__all__ = [
    "ELBO",
    "IWAE",
    "Batch",
    "Bernoulli",
    "BetaSchedule",
    "BetaTCVAE",
    "Capacity",
    "Constant",
    "ContinuousBernoulli",
    "Cyclical",
    "Density",
    "ELBOTerms",
    "Gaussian",
    "Likelihood",
    "Model",
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
