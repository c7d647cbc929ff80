"""The convolutional VAE."""

from collections.abc import Sequence

from torch import Tensor, nn

from fmvae.models.convolution import ChannelsLastConv2d, ChannelsLastUnflatten
from fmvae.models.vae import VAE, LatentAxis, separate_heads


def quarter_size(image_shape: Sequence[int]) -> tuple[int, int]:
    """Return (H / 4, W / 4), the size after two convolutions of stride 2; ValueError unless these are integers."""
    _, height, width = image_shape
    if height % 4 or width % 4:
        found = f"height and width must be multiples of 4, got {height}x{width}"
        raise ValueError(f"{found}: model=base takes any size, or bring the images to another (data.size)")
    return height // 4, width // 4


class ConvVAE(VAE):
    """Two strided convolutions down, two transposed ones up: 28 -> 14 -> 7 and back.

    Activations are computed in place, in the output of the layer before, to move less memory.
    """

    def __init__(self, latent_dim: int, image_shape: Sequence[int] = (1, 28, 28)):
        super().__init__(latent_dim, image_shape)
        channels = self.image_shape[0]
        features = (64, *quarter_size(self.image_shape))
        num_features = features[0] * features[1] * features[2]
        self.encoder = nn.Sequential(
            ChannelsLastConv2d(channels, 32, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.mu = nn.Linear(num_features, latent_dim)
        self.logvar = nn.Linear(num_features, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, num_features),
            nn.ReLU(inplace=True),
            ChannelsLastUnflatten(1, features),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(32, channels, 4, 2, 1),
        )

    def latent_axes(self) -> dict[str, LatentAxis]:
        return separate_heads("decoder.0")

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.encoder(x)  # (B, 64 * H/4 * W/4)
        return self.mu(features), self.logvar(features)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)
