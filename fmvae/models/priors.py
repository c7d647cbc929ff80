"""Priors of the latents: the base class, and N(0, 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from fmvae.objectives.densities import Density, StandardNormal
from fmvae.objectives.terms import Model


class Prior(nn.Module, ABC):
    """A prior p(z), perhaps with parameters, which are trained with those of the model that it belongs to."""

    vmap: ClassVar[bool] = True  # whether its density works under ``torch.vmap``; if not, stacks step in turn
    encodes: ClassVar[bool] = False  # whether it calls the model's encoder, which must then take no labels

    @abstractmethod
    def density(self, model: Model) -> Density:
        """Return the density for the current weights of the prior and the model."""

    def start_from(self, images: Tensor, seed: int) -> None:
        """Initialise parameters from the training images (N, C, H, W), uint8; by default nothing is done.

        Args:
            seed: the run's seed.
        """


class StandardPrior(Prior):
    """N(0, 1) in each dimension."""

    def density(self, model: Model) -> Density:
        return StandardNormal(model.latent_dim, next(model.parameters()))
