"""The fully connected VAE."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from fmvae.models.vae import VAE, LatentAxis, separate_heads


class BaseVAE(VAE):
    """One hidden layer each way: 784 -> 400 -> (mu, logvar), z -> 400 -> 784 (Kingma & Welling 2014, sec. 5).

    Args:
        hidden_dim: width of the hidden layers.
    """

    def __init__(self, latent_dim: int, hidden_dim: int = 400, image_shape: Sequence[int] = (1, 28, 28)):
        super().__init__(latent_dim, image_shape)
        num_pixels = prod(self.image_shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, hidden_dim), nn.ReLU())
        self.mu = nn.Linear(hidden_dim, latent_dim)
        self.logvar = nn.Linear(hidden_dim, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, num_pixels),
            nn.Unflatten(1, self.image_shape),
        )

    def latent_axes(self) -> dict[str, LatentAxis]:
        return separate_heads("decoder.0")

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(x)  # (B, hidden_dim)
        return self.mu(hidden), self.logvar(hidden)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)
