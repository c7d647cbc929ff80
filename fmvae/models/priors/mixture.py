"""A mixture of Gaussians with learned parameters."""

from __future__ import annotations

import torch
from torch import nn

from fmvae.models.priors.base import Encoder, Prior
from fmvae.objectives.densities import Mixture


class MixturePrior(Prior):
    """A mixture of diagonal Gaussians; means, log-variances and weights are learned.

    At first all weights are equal and all variances 1, and the means are drawn from N(0, 1) by torch's global
    generator, so that the components differ.

    Args:
        latent_dim: number of latent dimensions, >= 1.
        num_components: number of Gaussians, >= 1.
    """

    def __init__(self, latent_dim: int, num_components: int = 100):
        super().__init__()
        if min(latent_dim, num_components) < 1:
            raise ValueError(f"latent_dim {latent_dim}, num_components {num_components}: give 1 or more of each")
        self.latent_dim = latent_dim
        self.mu = nn.Parameter(torch.randn(num_components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(num_components, latent_dim))
        self.weight_logits = nn.Parameter(torch.zeros(num_components))

    def density(self, model: Encoder) -> Mixture:
        return Mixture(self.mu, self.logvar, self.weight_logits.log_softmax(0))
