"""Pad a model's tensors with latent dimensions that are zero everywhere, to stack models of several widths."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fmvae.models import VAE, LatentAxis


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def widen(tensor: Tensor, axis: LatentAxis | None, z: int, width: int) -> Tensor:
    """Pad a tensor of a model with ``z`` latents to ``width`` latents, with zeros after each block of latents."""
    if axis is None or z == width:
        return tensor
    *blocks, rest = _blocks(tensor, axis, z)
    shape = list(tensor.shape)
    shape[axis.dim] = width - z
    zeros = tensor.new_zeros(shape)
    return torch.cat([part for block in blocks for part in (block, zeros)] + [rest], axis.dim)


def narrow(tensor: Tensor, axis: LatentAxis | None, z: int, width: int) -> Tensor:
    """Invert ``widen``: cut a tensor from ``width`` latents to ``z``."""
    if axis is None or z == width:
        return tensor
    *blocks, rest = _blocks(tensor, axis, width)
    return torch.cat([*(block.narrow(axis.dim, 0, z) for block in blocks), rest], axis.dim)


def _blocks(tensor: Tensor, axis: LatentAxis, latents: int) -> list[Tensor]:
    """Split a tensor along its axis into each block of latents, and the rest."""
    rest = tensor.shape[axis.dim] - axis.blocks * latents
    return list(tensor.split([latents] * axis.blocks + [rest], axis.dim))


def can_widen(make: Callable[[int], VAE], z: int) -> bool:
    """Whether ``latent_axes`` is correct: a model with one more latent must differ in the size of these axes only.

    Args:
        make: returns the model for a number of latents; it is called on the meta device, without weights.
    """
    with torch.device("meta"):
        narrower, wider = make(z), make(z + 1)
    axes = narrower.latent_axes()
    if axes is None:
        return False
    own, wide = tensors_of(narrower), tensors_of(wider)
    expected = {name: list(tensor.shape) for name, tensor in own.items()}
    for name, axis in axes.items():
        if name not in expected or axis.dim >= len(expected[name]) or expected[name][axis.dim] < axis.blocks * z:
            return False
        expected[name][axis.dim] += axis.blocks
    return expected == {name: list(tensor.shape) for name, tensor in wide.items()}
