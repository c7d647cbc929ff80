"""The VampPrior: the mixture of the posteriors of learned pseudo-inputs (Tomczak & Welling 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fmvae import rng
from fmvae.data.split import to_float
from fmvae.models.modes import in_evaluation_mode
from fmvae.models.priors.base import Encoder, Prior
from fmvae.objectives.densities import Mixture

Start = Literal["data", "noise"]
PSEUDO_INPUTS = 3  # a part of the stream ``init`` that nothing else draws from
CLOSEST = 0.01  # a pixel starts no closer to 0 or 1 than this, where the sigmoid's derivative would vanish


class VampPrior(Prior):
    """p(z) = 1/K sum_k q(z | u_k) with K learned pseudo-inputs u_k (Tomczak & Welling 2018, eq. 9).

    u = sigmoid(logits). The paper clips pixels to [0, 1] instead, and its clip has no gradient where a pixel has
    left the range, nor for most pixels that start at 0; the sigmoid's gradient is never zero.

    The pseudo-inputs are encoded in evaluation mode: batch norm uses its running statistics of images, not those
    of pseudo-inputs, and does not change them.

    Args:
        image_shape: (C, H, W) of one image.
        num_components: K, >= 1.
        start: ``data``: ``start_from`` sets the pseudo-inputs to random training images; ``noise``: each pixel's
            logit is drawn from N(0, 1) by torch's global generator.
    """

    encodes: ClassVar[bool] = True

    def __init__(self, image_shape: Sequence[int], num_components: int = 500, start: Start = "data"):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be >= 1, got {num_components}")
        if start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}, got {start!r}")
        self.image_shape, self.start = tuple(image_shape), start
        self.logits = nn.Parameter(torch.randn(num_components, *image_shape))

    @property
    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs (K, C, H, W), in (0, 1)."""
        return self.logits.sigmoid()

    @torch.no_grad()
    def start_from(self, images: Tensor, seed: int) -> None:
        """Set the pseudo-inputs to random images, each one once (more often only if there are fewer than K).

        Pixels are moved into [0.01, 0.99]. With ``start="noise"``, nothing is done.
        """
        if self.start != "data":
            return
        generator = rng.stream(seed, "init", PSEUDO_INPUTS)
        missing, chosen = len(self.logits), []
        while missing > 0:
            chosen.append(torch.randperm(len(images), generator=generator)[:missing])
            missing -= len(chosen[-1])
        x = to_float(images[torch.cat(chosen).to(images.device)])
        self.logits.copy_(x.clamp(CLOSEST, 1 - CLOSEST).logit())

    def density(self, model: Encoder) -> Mixture:
        if model.conditional:
            problem = f"{type(model).__name__} needs labels to encode, and pseudo-inputs have none"
            raise ValueError(f"{problem}: use a model without labels")
        # copies: a later pass in training mode changes the statistics in place, and the gradient of this encoding,
        # which reads them again, would silently be another one
        buffers = {f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()}
        with in_evaluation_mode(model):
            mu, logvar = functional_call(_Encode(model), buffers, (self.pseudo_inputs,))
        return Mixture(mu, logvar, mu.new_full((len(self.logits),), -math.log(len(self.logits))))


class _Encode(nn.Module):
    """A model's ``encode`` as a module, so that ``functional_call`` can replace buffers."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(x)
