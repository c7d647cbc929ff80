"""What every variational autoencoder here shares: the signature, and sampling."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class VAEOutput(NamedTuple):
    """One pass through a VAE: logits (B, C, H, W); mu, logvar and z (B, latent_dim)."""

    logits: Tensor
    mu: Tensor
    logvar: Tensor
    z: Tensor


class LatentAxis(NamedTuple):
    """Where a tensor of a model has one entry for each latent dimension.

    Attributes:
        dim: of the tensor.
        blocks: how many times the latents come there, one after the other, from index 0: a joint layer for mu and
            logvar has them twice. What follows them has nothing to do with latents, as a label beside z.
    """

    dim: int
    blocks: int = 1


class VAE(nn.Module, ABC):
    """A Gaussian-latent VAE over images in [0, 1]. Subclasses add ``encode`` and ``decode``.

    Decoders return logits; a likelihood (``fmvae.objectives``) turns them into a loss or into an image.

    Args:
        latent_dim: number of latent dimensions, >= 1.
        image_shape: (C, H, W) of one image.
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

    def latent_axes(self) -> Mapping[str, LatentAxis] | None:
        """The parameters and buffers that have an axis of latents, by name.

        With them, runs of different ``latent_dim`` can be trained as one model (``hydra/launcher=stacked``), with
        zeros in the dimensions that a narrower model lacks. None, as here, says nothing: only runs of the same
        ``latent_dim`` are then stacked.
        """
        return None

    @abstractmethod
    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The approximate posterior of x (B, C, H, W) in [0, 1]: mu and logvar, each (B, latent_dim)."""

    @abstractmethod
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits (B, C, H, W) of z (B, latent_dim)."""

    def reparameterize(
        self,
        mu: Tensor,
        logvar: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """One draw from N(mu, exp(logvar)), differentiable in both (Kingma & Welling 2014, sec. 2.4).

        Args:
            noise: standard normal, of mu's shape; None draws it.
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

        The posterior draw is made of ``noise`` (B, latent_dim), or of noise from the generator, or from torch's
        global one.
        """
        mu, logvar = self.encode(x, labels)
        z = self.reparameterize(mu, logvar, generator, noise)
        return VAEOutput(self.decode(z, labels), mu, logvar, z)

    def sample(
        self, num_samples: int, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Logits (num_samples, C, H, W) of latents drawn from the prior N(0, 1)."""
        weight = next(self.parameters())
        z = torch.randn(
            num_samples, self.latent_dim, generator=generator, device=weight.device, dtype=weight.dtype
        )
        return self.decode(z, labels)


def separate_heads(decoder_input: str) -> dict[str, LatentAxis]:
    """The latent axes of a model with the layers ``mu`` and ``logvar``, and a linear layer that takes z first.

    Args:
        decoder_input: the name of that layer, as ``decoder.0``.
    """
    heads = {f"{head}.{name}": LatentAxis(0) for head in ("mu", "logvar") for name in ("weight", "bias")}
    return heads | {f"{decoder_input}.weight": LatentAxis(1)}
