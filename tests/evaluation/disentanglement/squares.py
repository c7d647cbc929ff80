"""Tiny data with known factors: a square at a place, of a brightness; and an encoder that measures them."""

import numpy as np
import torch
from torch import Tensor, nn

from fmvae.data import ImageData
from fmvae.models import VAE

SIDE, SIZES = 8, (6, 6, 3)


class Squares(ImageData):
    """All 108 images as training images, or ``num`` at random in each split."""

    def __init__(self, num: int | None = None, **others):
        every = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), 1)
        drawn = np.random.default_rng(0)
        chosen = {name: every[drawn.permutation(len(every))[:num]] for name in ("train", "val", "test")}
        super().__init__(
            **{name: (drawn_squares(torch.tensor(factors)), None) for name, factors in chosen.items()},
            factors=chosen,
            factor_names=("x", "y", "brightness"),
            factor_sizes=SIZES,
            **others,
        )

    def render(self, factors: Tensor) -> Tensor:
        return drawn_squares(factors)


def drawn_squares(factors: Tensor) -> Tensor:
    images = torch.zeros(len(factors), 1, SIDE, SIDE, dtype=torch.uint8)
    for image, (x, y, brightness) in zip(images, factors.tolist(), strict=True):
        image[0, y : y + 3, x : x + 3] = (100, 160, 220)[brightness]
    return images


class Measuring(VAE):
    """Latents are what a ruler measures: centre in x and in y, mean brightness, and a fourth that is 0."""

    def __init__(self):
        super().__init__(4, (1, SIDE, SIDE))
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weight = x[:, 0] / x.sum((1, 2, 3))[:, None, None]
        places = torch.arange(SIDE, dtype=x.dtype)
        centre = (weight * places).sum((1, 2)), (weight * places[:, None]).sum((1, 2))
        mu = torch.stack([*centre, 50 * x.mean((1, 2, 3)), torch.zeros(len(x))], 1) * self.scale
        return mu, torch.full_like(mu, -4)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z.new_zeros(len(z), 1, SIDE, SIDE)
