"""The VAE of residual blocks, and its layers as a backbone of the conditional VAE."""

from collections.abc import Sequence
from math import gcd
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fmvae.models.conv import quarter_size
from fmvae.models.convolution import ChannelsLastConv2d, ChannelsLastUnflatten
from fmvae.models.label_maps import convolve_with_label_maps
from fmvae.models.vae import VAE, LatentAxis, separate_heads

Norm = Literal["group", "batch"]
MAX_GROUPS, MIN_GROUP = 8, 4


def normalization(kind: Norm, channels: int) -> nn.Module:
    """Return batch norm, or group norm of at most 8 equal groups of at least 4 channels (one group if fewer)."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(gcd(MAX_GROUPS, channels, max(1, channels // MIN_GROUP)), channels)


def has_bias(norm: Norm) -> bool:
    """Whether a convolution whose output is read by norms alone needs a bias.

    Batch norm takes it out again: its gradient would be rounding errors, which Adam scales to its learning rate.
    """
    return norm != "batch"


class ResidualBlock(nn.Module):
    """Add ``expand(silu(squeeze(silu(norm(x)))))`` to x (B, C, H, W) (pre-activation, He et al. 2016b).

    ``squeeze`` is a 3x3 convolution to half the channels, ``expand`` a 1x1 convolution back, which
    is cheaper than two full 3x3 convolutions. ``expand`` starts at zero, so a block starts as the identity,
    and what reaches the latents and the image does not depend on the depth at first (Goyal et al. 2017, sec. 5.1).
    """

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        inner = max(1, channels // 2)
        self.norm = normalization(norm, channels)
        self.squeeze = nn.Conv2d(channels, inner, 3, 1, 1)
        self.expand = nn.Conv2d(inner, channels, 1, bias=has_bias(norm))
        self.act = nn.SiLU()
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.act(self.squeeze(self.act(self.norm(x)))))


class ResidualBackbone(nn.Module):
    """Residual blocks at half and quarter resolution, down and up again: 28 -> 14 -> 7 -> 14 -> 28.

    No block works at full resolution: there, most of the time would go into few features of single pixels.

    Args:
        num_classes: of the labels, which enter wherever the resolution changes; 0 for a model without labels.
    """

    def __init__(
        self, latent_dim: int, num_classes: int, image_shape: Sequence[int], width: int, depth: int, norm: Norm
    ):
        super().__init__()
        for name, value in (("width", width), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
        channels, wide, bias = image_shape[0], 2 * width, has_bias(norm)
        features = (wide, *quarter_size(image_shape))
        num_pixels = features[1] * features[2]

        def blocks(channels: int) -> nn.Sequential:
            layers = [ResidualBlock(channels, norm) for _ in range(depth)]
            return nn.Sequential(*layers, normalization(norm, channels), nn.SiLU())

        self.num_features = wide * num_pixels + num_classes
        self.stem = ChannelsLastConv2d(channels + num_classes, width, 4, 2, 1, bias=bias)
        self.down_half = blocks(width)
        self.down = nn.Conv2d(width + num_classes, wide, 4, 2, 1, bias=bias)
        self.down_quarter = blocks(wide)
        self.expand = nn.Sequential(
            nn.Linear(latent_dim + num_classes, wide * num_pixels), ChannelsLastUnflatten(1, features)
        )
        self.up_quarter = blocks(wide)
        self.up = nn.ConvTranspose2d(wide + num_classes, width, 4, 2, 1, bias=bias)
        self.up_half = blocks(width)
        self.out = nn.ConvTranspose2d(width + num_classes, channels, 4, 2, 1)

    def encode(self, x: Tensor, one_hot: Tensor | None) -> Tensor:
        """Return features (B, num_features) of images (B, C, H, W) and one-hot labels (B, num_classes)."""
        hidden = self.down_half(_convolve(self.stem, x, one_hot))  # (B, width, H/2, W/2)
        hidden = self.down_quarter(_convolve(self.down, hidden, one_hot))  # (B, 2 width, H/4, W/4)
        return _append(hidden.flatten(1), one_hot)

    def decode(self, z: Tensor, one_hot: Tensor | None) -> Tensor:
        """Return the logits (B, C, H, W) for z (B, latent_dim) and one-hot labels (B, num_classes)."""
        hidden = self.up_quarter(self.expand(_append(z, one_hot)))
        hidden = self.up_half(_convolve(self.up, hidden, one_hot))
        return _convolve(self.out, hidden, one_hot)


def _append(features: Tensor, one_hot: Tensor | None) -> Tensor:
    return features if one_hot is None else torch.cat([features, one_hot], dim=1)


def _convolve(layer: nn.Module, features: Tensor, one_hot: Tensor | None) -> Tensor:
    return layer(features) if one_hot is None else convolve_with_label_maps(layer, features, one_hot)


class ResidualVAE(VAE):
    """Strided convolutions as in ConvVAE, with residual blocks after each, in the encoder and in the decoder.

    Args:
        width: number of channels at half resolution; at a quarter there are twice as many.
        depth: number of residual blocks at each of the two resolutions, each way.
        norm: ``batch``, or ``group`` (each image by itself, the same in training and evaluation).
    """

    def __init__(
        self,
        latent_dim: int,
        width: int = 32,
        depth: int = 1,
        norm: Norm = "batch",
        image_shape: Sequence[int] = (1, 28, 28),
    ):
        super().__init__(latent_dim, image_shape)
        self.backbone = ResidualBackbone(latent_dim, 0, self.image_shape, width, depth, norm)
        self.mu = nn.Linear(self.backbone.num_features, latent_dim)
        self.logvar = nn.Linear(self.backbone.num_features, latent_dim)

    def latent_axes(self) -> dict[str, LatentAxis]:
        return separate_heads("backbone.expand.0")

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.backbone.encode(x, None)
        return self.mu(features), self.logvar(features)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.backbone.decode(z, None)
