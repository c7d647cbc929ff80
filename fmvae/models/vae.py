"""The base class of all variational autoencoders: signatures, reparameterisation, sampling."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmvae.models.priors import Prior, StandardPrior
from fmvae.objectives.densities import Density


class VAEOutput(NamedTuple):
    """Output of a VAE: logits (B, C, H, W); mu, logvar and z (B, latent_dim)."""

    logits: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor


class LatentAxis(NamedTuple):
    """The axis of a parameter or buffer along which there is one entry per latent dimension.

    Attributes:
        dim: the tensor's axis.
        blocks: the number of consecutive blocks of latents along the axis, from index 0. A joint layer for mu and
            logvar has 2. Entries after the blocks do not belong to latents, for example a label appended to z.
    """

    dim: int
    blocks: int = 1


class VAE(nn.Module, ABC):
    """A Gaussian-latent VAE over images in [0, 1]. Subclasses add ``encode`` and ``decode``.

    Decoders return logits; a likelihood (``fmvae.objectives``) turns them into a loss or into an image.

    Args:
        latent_dim: number of latent dimensions, >= 1.
        image_shape: (C, H, W) of one image.

    Attributes:
        latent_prior: p(z), N(0, 1) until another one is assigned. Its parameters are parameters of the model.
    """

    conditional: bool = False  # whether encode and decode need labels

    def __init__(self, latent_dim: int, image_shape: Sequence[int] = (1, 28, 28)):
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be >= 1, got {latent_dim}")
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (channels, height, width), got {tuple(image_shape)}")
        self.latent_dim = latent_dim
        self.image_shape = tuple(image_shape)
        self.latent_prior: Prior = StandardPrior()

    def latent_axes(self) -> Mapping[str, LatentAxis] | None:
        """Return the axes of latents, by the name of the parameter or buffer.

        They allow runs of different ``latent_dim`` to be trained as one model (``hydra/launcher=stacked``), with
        narrower models padded with zeros. With None, the default, only runs of equal ``latent_dim`` are stacked.
        """
        return None

    @abstractmethod
    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the approximate posterior of x (B, C, H, W) in [0, 1]: mu and logvar, each (B, latent_dim)."""

    @abstractmethod
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logits (B, C, H, W) for z (B, latent_dim)."""

    def reparameterize(
        self,
        mu: Tensor,
        logvar: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Draw z from N(mu, exp(logvar)), differentiable in both (Kingma & Welling 2014, sec. 2.4).

        Args:
            noise: standard normal, with the shape of mu; None draws it from the generator.
        """
        if noise is None:
            noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return mu + noise * (0.5 * logvar).exp()

    def forward(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> VAEOutput:
        """Encode, sample and decode.

        The posterior draw uses ``noise`` (B, latent_dim); without it, noise is drawn from the generator, or from
        torch's global generator.
        """
        mu, logvar = self.encode(x, labels)
        z = self.reparameterize(mu, logvar, generator, noise)
        return VAEOutput(self.decode(z, labels), mu, logvar, z)

    def sample(
        self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw latents from the prior and return their logits (num_samples, C, H, W)."""
        return self.decode(self.prior_density().sample(num_samples, generator), labels)

    def decode_draws(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logits for draws z (B, latent_dim) in any precision and on any device, as a sampler's."""
        return self.decode(z.to(next(self.parameters())), labels)

    def prior_density(self) -> Density:
        """Return the prior p(z) with the current weights."""
        return self.latent_prior.density(self)


def separate_heads(decoder_input: str) -> dict[str, LatentAxis]:
    """Return the latent axes of a model with layers ``mu`` and ``logvar`` and a linear first decoder layer.

    Args:
        decoder_input: name of the linear layer whose first inputs are z, for example ``decoder.0``.
    """
    heads = {f"{head}.{name}": LatentAxis(0) for head in ("mu", "logvar") for name in ("weight", "bias")}
    return heads | {f"{decoder_input}.weight": LatentAxis(1)}
