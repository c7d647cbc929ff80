"""The small convolutional VAE used to study beta."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from fmvae.models.convolution import SmallBatchNorm2d, SmallConv2d, SmallConvTranspose2d
from fmvae.models.vae import VAE, LatentAxis, separate_heads

NormOrder = Literal["relu_bn", "bn_relu"]


def _down(size: int, padding: int) -> int:
    """Return the size after a convolution with kernel 3 and stride 2."""
    return (size + 2 * padding - 3) // 2 + 1


def _up_remainder(small: int, large: int, padding: int) -> int:
    """Return the output padding with which a transposed convolution (kernel 3, stride 2) maps small to large."""
    return large - ((small - 1) * 2 - 2 * padding + 3)


class BetaVAE(VAE):
    """Three strided convolutions each way with batch norm: 28 -> 14 -> 7 -> 3; 86,081 + 386 z parameters.

    The encoder reads 2x - 1, so its inputs are in [-1, 1]; the targets stay in [0, 1].

    Args:
        norm_order: ``relu_bn`` normalises after the activation (as the reference does), ``bn_relu`` before it.
    """

    def __init__(
        self, latent_dim: int, norm_order: NormOrder = "relu_bn", image_shape: Sequence[int] = (1, 28, 28)
    ):
        super().__init__(latent_dim, image_shape)
        if norm_order not in get_args(NormOrder):
            raise ValueError(f"norm_order must be one of {', '.join(get_args(NormOrder))}, got {norm_order!r}")

        def norm(num_channels: int) -> list[nn.Module]:
            layers = [nn.ReLU(), SmallBatchNorm2d(num_channels)]
            return layers if norm_order == "relu_bn" else layers[::-1]

        channels, *full = self.image_shape
        half = [_down(size, 1) for size in full]
        quarter = [_down(size, 1) for size in half]
        eighth = [_down(size, 0) for size in quarter]
        if min(eighth) < 1:
            raise ValueError(f"images of {full[0]}x{full[1]} are too small for three strided convolutions")
        features = (32, *eighth)
        num_features = features[0] * features[1] * features[2]

        def up(small: list[int], large: list[int], padding: int) -> tuple[int, int]:
            return (
                _up_remainder(small[0], large[0], padding),
                _up_remainder(small[1], large[1], padding),
            )

        self.encoder = nn.Sequential(
            SmallConv2d(channels, 8, 3, 2, 1),
            nn.ReLU(),
            SmallConv2d(8, 16, 3, 2, 1),
            *norm(16),
            SmallConv2d(16, 32, 3, 2, 0),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(num_features, 128),
            nn.ReLU(),
        )
        self.mu = nn.Linear(128, latent_dim)
        self.logvar = nn.Linear(128, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 128),
            nn.ReLU(),
            nn.Linear(128, num_features),
            nn.ReLU(),
            nn.Unflatten(1, features),
            SmallConvTranspose2d(32, 16, 3, 2, 0, up(eighth, quarter, 0)),
            *norm(16),
            SmallConvTranspose2d(16, 8, 3, 2, 1, up(quarter, half, 1)),
            nn.ReLU(),
            SmallConvTranspose2d(8, channels, 3, 2, 1, up(half, full, 1)),
        )

    def latent_axes(self) -> dict[str, LatentAxis]:
        return separate_heads("decoder.0")

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(2 * x - 1)  # (B, 128)
        return self.mu(hidden), self.logvar(hidden)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z).contiguous()
