"""Training objectives, likelihoods, densities of latents, and schedules of the KL weight."""

from fmvae.objectives.densities import Density, Mixture, StandardNormal, kl_divergence, log_normal
from fmvae.objectives.dip import DIPVAE, aggregate_covariance
from fmvae.objectives.elbo import ELBO, ELBOTerms, elbo_terms, vae_loss
from fmvae.objectives.factor import FactorVAE, permute_dimensions
from fmvae.objectives.iwae import IWAE
from fmvae.objectives.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    LearnedGaussian,
    Likelihood,
)
from fmvae.objectives.mmd import InfoVAE, gaussian_kernel, imq_kernel, unbiased_mmd
from fmvae.objectives.objective import Objective
from fmvae.objectives.schedules import BetaSchedule, Capacity, Constant, Cyclical, Warmup
from fmvae.objectives.tcvae import BetaTCVAE
from fmvae.objectives.terms import Batch, Model, Terms, draw_noise

__all__ = [
    "DIPVAE",
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
    "FactorVAE",
    "Gaussian",
    "InfoVAE",
    "Laplace",
    "LearnedGaussian",
    "Likelihood",
    "Mixture",
    "Model",
    "Objective",
    "StandardNormal",
    "Terms",
    "Warmup",
    "aggregate_covariance",
    "draw_noise",
    "elbo_terms",
    "gaussian_kernel",
    "imq_kernel",
    "kl_divergence",
    "log_normal",
    "permute_dimensions",
    "unbiased_mmd",
    "vae_loss",
]
