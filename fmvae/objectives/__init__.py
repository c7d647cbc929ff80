"""What is optimised and what is reported: likelihoods, KL, and the weight of the KL over training."""

from fmvae.objectives.elbo import ELBOTerms, Objective, kl_divergence, vae_loss
from fmvae.objectives.likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, Likelihood
from fmvae.objectives.schedules import BetaSchedule, Capacity, Constant, Cyclical, Warmup

__all__ = [
    "Bernoulli",
    "BetaSchedule",
    "Capacity",
    "Constant",
    "ContinuousBernoulli",
    "Cyclical",
    "ELBOTerms",
    "Gaussian",
    "Likelihood",
    "Objective",
    "Warmup",
    "kl_divergence",
    "vae_loss",
]
