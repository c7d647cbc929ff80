"""A normalizing flow as prior: neural splines, of the library zuko."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fmvae.config.project import install
from fmvae.errors import ConfigError
from fmvae.models.priors.base import Encoder, Prior
from fmvae.objectives.densities import LOG_2PI, Density, in_blocks

SPLINE_FLOATS = 100  # about as many numbers are in memory at once for each spline of a value


def spline_flow(
    key: str, latent_dim: int, transforms: int, hidden: Sequence[int], bins: int, context: int = 0
) -> nn.Module:
    """Return the transformation of an autoregressive neural spline flow, initialised to the identity.

    Args:
        key: of the config, for errors.
        context: number of values on which the flow is conditioned.

    Returns:
        A module that, called without arguments or with the context (N, context), returns zuko's transformation
        from z to noise.

    Raises:
        ConfigError: zuko is not installed.
    """
    if min(latent_dim, transforms, *hidden, bins - 1) < 1:
        sizes = f"latent_dim {latent_dim}, transforms {transforms}, hidden {[*hidden]}, bins {bins}"
        raise ValueError(f"{sizes}: give 1 or more of each, and 2 bins or more")
    try:
        from zuko.flows import NSF  # an extra, which takes a second to import
    except ImportError as error:
        problem = f"a flow needs the library zuko ({error})"
        raise ConfigError(key, problem, install("flows")) from None
    flow: Any = NSF(latent_dim, context, transforms=transforms, hidden_features=list(hidden), bins=bins)
    for part in flow.transform.transforms:
        # with one dimension and no context, zuko has the splines' parameters themselves, and no network
        last = part.hyper[-1] if hasattr(part, "hyper") else part
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    return flow.transform


class FlowPrior(Prior):
    """An autoregressive neural spline flow (Durkan et al. 2019; Papamakarios et al. 2017): z -> noise ~ N(0, 1).

    It starts as the identity, so that the prior starts as N(0, 1). The splines bend [-5, 5] in each dimension;
    outside of it, the transformation is the identity. A draw takes one pass for each dimension and transformation.

    Args:
        latent_dim: number of latent dimensions, >= 1.
        transforms: number of transformations, >= 1; every second one takes the dimensions in reverse order.
        hidden: widths of the hidden layers of each transformation's network.
        bins: of each spline, >= 2.

    Raises:
        ConfigError: zuko is not installed.
    """

    def __init__(self, latent_dim: int, transforms: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8):
        super().__init__()
        self.latent_dim = latent_dim
        self.transform = spline_flow("prior", latent_dim, transforms, hidden, bins)

    def forward(self, values: Tensor, inverse: bool = False) -> Any:
        """Map z (N, latent_dim) to noise, of the same shape, and the log-determinants of the Jacobians (N,).

        If ``inverse``, map noise to z, and return z alone.
        """
        transform = self.transform()
        return transform.inv(values) if inverse else transform.call_and_ladj(values)

    def density(self, model: Encoder) -> FlowDensity:
        return FlowDensity(self, model.latent_dim, dict(self.named_parameters()))


class FlowDensity(Density):
    """The density of z if a flow maps it to N(0, 1).

    Args:
        flow: see ``FlowPrior.forward``.
        latent_dim: number of dimensions.
        weights: the parameters of the flow, by name.
    """

    def __init__(self, flow: FlowPrior, latent_dim: int, weights: Mapping[str, Tensor]):
        super().__init__(latent_dim, next(iter(weights.values())))
        self.flow, self.weights = flow, weights

    def log_prob(self, z: Tensor) -> Tensor:
        weights = {name: weight.to(z.dtype) for name, weight in self.weights.items()}

        def of_rows(rows: Tensor) -> Tensor:
            noise, log_determinant = functional_call(self.flow, weights, (rows,))
            return log_determinant - 0.5 * (noise.square() + LOG_2PI).sum(-1)

        return in_blocks(of_rows, z, SPLINE_FLOATS * self.latent_dim)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        shape = (num, self.latent_dim)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        return functional_call(self.flow, dict(self.weights), (noise, True))
