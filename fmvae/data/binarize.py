"""Draw black and white images from grey ones, whose values are the probabilities of white."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fmvae import rng
from fmvae.errors import ConfigError

Binarize = Literal["static", "dynamic"]
CHUNK = 2048  # images drawn at once, to save memory; on a GPU, a change gives other draws
# streams of the draws that no run's seed changes, so that runs of all seeds are compared on the same images
HELD_OUT = {"val": 0, "test": 1}


def check_binarize(value: Any) -> None:
    """Raise a ConfigError unless ``value`` is a valid ``data.binarize``."""
    if value is not None and value not in get_args(Binarize):
        problem = f"{value!r} is no way to draw black and white pixels"
        raise ConfigError("data.binarize", problem, f"give {', '.join(get_args(Binarize))} or null")


def binarized(grey: Tensor, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
    """Draw images of 0 and 255: each pixel is white with probability grey / 255, exactly.

    Args:
        grey: (N, C, H, W) uint8.
        generator: on the device of ``grey``.
        out: where to write the images, like ``grey``; None allocates them.
    """
    out = torch.empty_like(grey) if out is None else out
    uniform = torch.empty_like(grey[:CHUNK])
    for part, place in zip(grey.split(CHUNK), out.split(CHUNK), strict=True):
        # one of 0, ..., 254, of which k are below a grey value k
        below = uniform[: len(part)].random_(0, 255, generator=generator) < part
        place.copy_(below).mul_(255)
    return out


def fixed_draw(split: str, grey: Tensor, seed: int) -> Tensor:
    """Draw a split's images as measures see them, on the CPU, so that they are the same on every device.

    Args:
        split: ``train``, ``val`` or ``test``.
        grey: on the CPU.
        seed: the run's seed; only training images depend on it.
    """
    if split in HELD_OUT:
        return binarized(grey, rng.stream(0, "binarize_held_out", HELD_OUT[split]))
    return binarized(grey, rng.stream(seed, "binarize"))
