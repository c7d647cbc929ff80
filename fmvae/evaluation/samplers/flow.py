"""A normalizing flow that is fitted to the training posteriors after training."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from fmvae.config.project import install
from fmvae.config.schema import RULES
from fmvae.errors import ConfigError
from fmvae.evaluation.samplers.base import by_rows, standard_normal
from fmvae.evaluation.samplers.network import NetworkSampler
from fmvae.models.priors.flow import SPLINE_FLOATS, spline_flow
from fmvae.objectives.densities import LOG_2PI

KEY = "evaluation.flow"


class SplineFlow(nn.Module):
    """zuko's spline flow from standardised latents to N(0, 1), given one-hot rows; it starts as the identity."""

    def __init__(self, latent_dim: int, num_classes: int, transforms: int, hidden: Sequence[int], bins: int):
        super().__init__()
        self.transform = spline_flow(KEY, latent_dim, transforms, hidden, bins, num_classes)

    def forward(self, one_hot: Tensor) -> Any:
        """Return zuko's transformation for these rows (N, num_classes)."""
        return self.transform(one_hot) if one_hot.shape[-1] else self.transform()


class FlowSampler(NetworkSampler):
    """An autoregressive neural spline flow (Durkan et al. 2019), trained by maximum likelihood.

    Args:
        transforms, hidden, bins: as for ``FlowPrior``.
        epochs: at most.
    """

    name = "flow"

    def __init__(self, num_classes: int = 0, *, transforms: int, hidden: Sequence[int], bins: int, epochs: int):
        super().__init__(num_classes, epochs=epochs)
        self.transforms, self.hidden, self.bins = transforms, list(hidden), bins

    @property
    def settings(self) -> dict[str, Any]:
        return {"transforms": self.transforms, "hidden": self.hidden, "bins": self.bins, "epochs": self.epochs}

    def check(self, num_train: int) -> None:
        check_widths(KEY, self.hidden)
        if find_spec("zuko") is None:
            raise ConfigError("evaluation.samplers", "a flow needs the library zuko", install("flows"))

    def build(self, latent_dim: int) -> nn.Module:
        return SplineFlow(latent_dim, self.num_classes, self.transforms, self.hidden, self.bins)

    def loss(self, network: Any, z: Tensor, one_hot: Tensor, generator: torch.Generator) -> Tensor:
        noise, log_determinant = network(one_hot).call_and_ladj(z)
        return 0.5 * (noise.square() + LOG_2PI).sum(-1) - log_determinant

    @torch.no_grad()
    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        noise = standard_normal(num, len(self.scale.mean), generator)
        network, one_hot = self.on(noise.device), self.one_hot(labels, noise.shape[:1]).to(noise)
        return self.scale.undo(network(one_hot).inv(noise))

    @torch.no_grad()
    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        z = z.double()
        network, one_hot = self.on(z.device), self.one_hot(labels, z.shape[:-1])
        generator = torch.Generator()  # nothing is drawn from it

        def of_rows(rows: Tensor, classes: Tensor) -> Tensor:
            return -self.loss(network, self.scale.apply(rows), classes, generator)

        per_row = SPLINE_FLOATS * len(self.scale.mean)
        return by_rows(of_rows, z, one_hot, per_row) - self.scale.std.log().sum().to(z)


def check_widths(key: str, hidden: Sequence[int]) -> None:
    """Refuse widths that the config's rule refuses, of samplers that are made in Python, too."""
    rule = RULES[f"{key}.hidden"]
    try:
        rule.accept(list(hidden))
    except ValueError:
        way_out = "give from 1 to 10,000 units for each layer, as [64,64]"
        raise ConfigError(f"{key}.hidden", f"{list(hidden)} is not {rule}", way_out) from None
