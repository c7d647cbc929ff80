"""The base class of priors, and N(0, 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from fmvae.objectives.densities import Density, StandardNormal


class Encoder(Protocol):
    """What a prior may ask of the VAE that it belongs to; ``fmvae.models.vae`` imports this package."""

    latent_dim: int
    conditional: bool

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...


class Prior(nn.Module, ABC):
    """A prior p(z), perhaps with parameters, which are trained with those of the model that it belongs to."""

    vmap: ClassVar[bool] = True  # whether its density works under ``torch.vmap``; if not, stacks step in turn
    encodes: ClassVar[bool] = False  # whether it calls the model's encoder, which must then take no labels

    def __init__(self) -> None:
        super().__init__()  # stated, as the signature of nn.Module takes any key of a config

    @abstractmethod
    def density(self, model: Encoder) -> Density:
        """Return the density for the current weights of the prior and the model."""

    def start_from(self, images: Tensor, seed: int) -> None:
        """Initialise parameters from the training images (N, C, H, W), uint8; by default nothing is done.

        Args:
            seed: the run's seed.
        """


class StandardPrior(Prior):
    """N(0, 1) in each dimension."""

    def density(self, model: Encoder) -> Density:
        return StandardNormal(model.latent_dim, next(model.parameters(), torch.empty(0)))
