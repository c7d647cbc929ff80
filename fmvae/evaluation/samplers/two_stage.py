"""A second VAE on the latents of the first (Dai & Wipf 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fmvae.evaluation.samplers.base import standard_normal
from fmvae.evaluation.samplers.flow import check_widths
from fmvae.evaluation.samplers.network import NetworkSampler
from fmvae.objectives.densities import LOG_2PI, kl_divergence

KEY = "evaluation.two_stage"
LOG_STD = -1.0  # at the start: from 0, the posteriors of u would collapse to N(0, 1) before the decoder learns


class SecondVAE(nn.Module):
    """Fully connected, u of as many dimensions as z; p(z | u) is N(decoder(u), s²) with one learned s."""

    def __init__(self, latent_dim: int, num_classes: int, hidden: Sequence[int]):
        super().__init__()
        self.encoder = _layers([latent_dim + num_classes, *hidden, 2 * latent_dim])
        self.decoder = _layers([latent_dim + num_classes, *hidden, latent_dim])
        self.log_std = nn.Parameter(torch.tensor(LOG_STD))


def _layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TwoStageSampler(NetworkSampler):
    """Draws u ~ N(0, 1), decodes it with a second VAE and adds its noise. It has no density, only a bound of it.

    Args:
        hidden: widths of the hidden layers of encoder and decoder.
        epochs: at most.
    """

    name = "two_stage"

    def __init__(self, num_classes: int = 0, *, hidden: Sequence[int], epochs: int):
        super().__init__(num_classes, epochs=epochs)
        self.hidden = list(hidden)

    @property
    def settings(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "epochs": self.epochs}

    def check(self, num_train: int) -> None:
        check_widths(KEY, self.hidden)

    def build(self, latent_dim: int) -> nn.Module:
        return SecondVAE(latent_dim, self.num_classes, self.hidden)

    def loss(self, network: Any, z: Tensor, one_hot: Tensor, generator: torch.Generator) -> Tensor:
        mu, logvar = network.encoder(torch.cat([z, one_hot], 1)).chunk(2, dim=1)
        noise = torch.randn(mu.shape, generator=generator, dtype=mu.dtype)
        u = mu + noise * (0.5 * logvar).exp()
        error = (z - network.decoder(torch.cat([u, one_hot], 1))) * (-network.log_std).exp()
        recon = (0.5 * (error.square() + LOG_2PI) + network.log_std).sum(1)
        return recon + kl_divergence(mu, logvar).sum(1)

    @torch.no_grad()
    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        u, noise = (standard_normal(num, len(self.scale.mean), generator) for _ in range(2))
        network, one_hot = self.on(u.device), self.one_hot(labels, u.shape[:1]).to(u)
        mean = network.decoder(torch.cat([u, one_hot], 1))
        return self.scale.undo(mean + network.log_std.exp() * noise)
