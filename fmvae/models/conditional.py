"""The conditional VAE, fully connected, convolutional or residual (Sohn et al. 2015)."""

from collections.abc import Sequence
from math import prod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmvae.models.conv import quarter_size
from fmvae.models.convolution import ChannelsLastConv2d, ChannelsLastUnflatten
from fmvae.models.label_maps import convolve_with_label_maps, with_label_maps
from fmvae.models.residual import Norm, ResidualBackbone
from fmvae.models.vae import VAE, LatentAxis, separate_heads

Backbone = Literal["mlp", "conv", "residual"]
Prior = Literal["standard", "learned"]


class _MLP(nn.Module):
    """Fully connected backbone: the one-hot label is appended to the pixels (encoder) and to z (decoder)."""

    def __init__(self, latent_dim: int, num_classes: int, hidden_dim: int, image_shape: tuple[int, ...]):
        super().__init__()
        num_pixels = prod(image_shape)
        self.num_features = hidden_dim
        self.encoder = nn.Sequential(nn.Linear(num_pixels + num_classes, hidden_dim), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim + num_classes, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, num_pixels),
            nn.Unflatten(1, image_shape),
        )

    def encode(self, x: Tensor, one_hot: Tensor) -> Tensor:
        return self.encoder(torch.cat([x.flatten(1), one_hot], dim=1))

    def decode(self, z: Tensor, one_hot: Tensor) -> Tensor:
        return self.decoder(torch.cat([z, one_hot], dim=1))


class _Conv(nn.Module):
    """The convolutions of ConvVAE, with label maps at every scale (28, 14 and 7) in encoder and decoder."""

    def __init__(self, latent_dim: int, num_classes: int, image_shape: tuple[int, ...]):
        super().__init__()
        channels = image_shape[0]
        height, width = quarter_size(image_shape)
        self.num_features = (64 + num_classes) * height * width
        self.down = nn.ModuleList(
            [ChannelsLastConv2d(channels + num_classes, 32, 4, 2, 1), nn.Conv2d(32 + num_classes, 64, 4, 2, 1)]
        )
        self.expand = nn.Sequential(
            nn.Linear(latent_dim + num_classes, 64 * height * width),
            nn.ReLU(),
            ChannelsLastUnflatten(1, (64, height, width)),
        )
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(64 + num_classes, 32, 4, 2, 1),
                nn.ConvTranspose2d(32 + num_classes, 32, 4, 2, 1),
            ]
        )
        self.out = nn.Conv2d(32 + num_classes, channels, 3, 1, 1)

    def encode(self, x: Tensor, one_hot: Tensor) -> Tensor:
        hidden = x
        for layer in self.down:  # 28 -> 14 -> 7
            hidden = convolve_with_label_maps(layer, hidden, one_hot).relu_()
        return with_label_maps(hidden, one_hot).flatten(1)

    def decode(self, z: Tensor, one_hot: Tensor) -> Tensor:
        hidden = self.expand(torch.cat([z, one_hot], dim=1))
        for layer in self.up:  # 7 -> 14 -> 28
            hidden = convolve_with_label_maps(layer, hidden, one_hot).relu_()
        return convolve_with_label_maps(self.out, hidden, one_hot)


class _ClassPrior(nn.Module):
    """p(z | class) = N(m, s²), initialised to N(0, 1); one-hot rows (B, num_classes) select m and log s."""

    def __init__(self, num_classes: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, latent_dim))
        self.log_std = nn.Parameter(torch.zeros(num_classes, latent_dim))

    def standardize(self, mu: Tensor, logvar: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of (z - m) / s for the posterior N(mu, exp(logvar)) of z."""
        log_std = one_hot @ self.log_std
        return (mu - one_hot @ self.mean) * (-log_std).exp(), logvar - 2 * log_std

    def restore(self, standardized: Tensor, one_hot: Tensor) -> Tensor:
        """Return z, given (z - m) / s."""
        return one_hot @ self.mean + (one_hot @ self.log_std).exp() * standardized


class ConditionalVAE(VAE):
    """A VAE for p(x | label): ``encode`` and ``decode`` take labels (B,), integers in [0, num_classes).

    A learned prior is one diagonal Gaussian N(m, s²) per class (Sohn et al. 2015, sec. 4). Then ``encode`` returns
    the posterior of the standardised latents (z − m) / s, and ``decode`` takes such latents. Their prior is
    N(0, 1) for every class, and the KL divergence is the usual one, as this transformation does not change it.

    Args:
        num_classes: number of classes.
        backbone: ``mlp`` (one layer of ``hidden_dim`` each way), ``conv`` (label maps at three scales), or
            ``residual`` (the blocks of ``ResidualVAE``, with label maps where the resolution changes).
        hidden_dim: width of the fully connected backbone.
        prior: of z. ``standard``: N(0, 1) for every label; ``learned``: one Gaussian per class.
        width: of the residual backbone, as are the next two; see ``ResidualVAE``.
    """

    conditional = True

    def __init__(
        self,
        latent_dim: int,
        num_classes: int = 10,
        backbone: Backbone = "mlp",
        hidden_dim: int = 400,
        prior: Prior = "standard",
        image_shape: Sequence[int] = (1, 28, 28),
        width: int = 32,
        depth: int = 1,
        norm: Norm = "batch",
    ):
        super().__init__(latent_dim, image_shape)
        for name, value, known in (("backbone", backbone, Backbone), ("prior", prior, Prior)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
        self.num_classes = num_classes
        match backbone:
            case "mlp":
                self.backbone = _MLP(latent_dim, num_classes, hidden_dim, self.image_shape)
            case "conv":
                self.backbone = _Conv(latent_dim, num_classes, self.image_shape)
            case "residual":
                self.backbone = ResidualBackbone(latent_dim, num_classes, self.image_shape, width, depth, norm)
        self.mu = nn.Linear(self.backbone.num_features, latent_dim)
        self.logvar = nn.Linear(self.backbone.num_features, latent_dim)
        self.prior = _ClassPrior(num_classes, latent_dim) if prior == "learned" else None

    def latent_axes(self) -> dict[str, LatentAxis]:
        layer = "decoder.0" if isinstance(self.backbone, _MLP) else "expand.0"
        priors = {f"prior.{name}": LatentAxis(1) for name in ("mean", "log_std")} if self.prior else {}
        return separate_heads(f"backbone.{layer}") | priors

    def _one_hot(self, labels: Tensor | None, like: Tensor) -> Tensor:
        if labels is None:
            raise ValueError("a conditional VAE needs labels")
        return F.one_hot(labels, self.num_classes).to(like.dtype)  # raises for labels out of range

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        one_hot = self._one_hot(labels, x)
        features = self.backbone.encode(x, one_hot)
        mu, logvar = self.mu(features), self.logvar(features)
        return self.prior.standardize(mu, logvar, one_hot) if self.prior else (mu, logvar)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        one_hot = self._one_hot(labels, z)
        return self.backbone.decode(self.prior.restore(z, one_hot) if self.prior else z, one_hot)
