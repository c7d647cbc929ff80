"""Priors of the latents: N(0, 1), a mixture of Gaussians, the VampPrior, and a flow."""

from fmvae.models.priors.base import Prior, StandardPrior
from fmvae.models.priors.flow import FlowPrior
from fmvae.models.priors.mixture import MixturePrior
from fmvae.models.priors.vamp import VampPrior

__all__ = ["FlowPrior", "MixturePrior", "Prior", "StandardPrior", "VampPrior"]
