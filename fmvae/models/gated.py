"""The fully connected VAE with gated layers, which published likelihoods are for."""

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from fmvae.models.vae import VAE, LatentAxis, separate_heads

LOGVAR_RANGE = (-6.0, 2.0)


def _gated(in_features: int, out_features: int) -> list[nn.Module]:
    """Return a layer (W x + b) * sigmoid(V x + c); the first half of its linear layer is W, the second V."""
    return [nn.Linear(in_features, 2 * out_features), nn.GLU(dim=1)]


class GatedVAE(VAE):
    """Two gated hidden layers each way (Tomczak & Welling 2018, sec. 5; Norouzi et al. 2020, sec. 5).

    A gated layer is (W x + b) * sigmoid(V x + c) (Dauphin et al. 2017). The log-variance is clipped to [-6, 2].
    As in the two papers' code, all weights start from N(0, 2 / inputs) (He et al. 2015), and biases as torch does.

    Args:
        hidden_dim: width of the hidden layers.
    """

    def __init__(self, latent_dim: int, hidden_dim: int = 300, image_shape: Sequence[int] = (1, 28, 28)):
        super().__init__(latent_dim, image_shape)
        num_pixels = prod(self.image_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), *_gated(num_pixels, hidden_dim), *_gated(hidden_dim, hidden_dim)
        )
        self.mu = nn.Linear(hidden_dim, latent_dim)
        self.logvar = nn.Linear(hidden_dim, latent_dim)
        self.decoder = nn.Sequential(
            *_gated(latent_dim, hidden_dim),
            *_gated(hidden_dim, hidden_dim),
            nn.Linear(hidden_dim, num_pixels),
            nn.Unflatten(1, self.image_shape),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def latent_axes(self) -> dict[str, LatentAxis]:
        return separate_heads("decoder.0")

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(x)  # (B, hidden_dim)
        return self.mu(hidden), F.hardtanh(self.logvar(hidden), *LOGVAR_RANGE)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decoder(z)
