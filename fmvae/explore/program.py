"""A decoder as a list of operations for one image at a time, which the page runs in JavaScript; here, in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Constant(NamedTuple):
    """Weights, or places (from 1): flat (1, n), or (num_classes, n) where the class decides."""

    values: Tensor
    places: bool = False


class Place(NamedTuple):
    """Where an operand is: slot ``number`` of the values computed so far, or a constant."""

    number: int
    constant: bool = False


class Operation(NamedTuple):
    """One step. All values are flat, row after row, of one image.

    Attributes:
        name: of ``STEPS`` below, and of the table of the same name in decoder.js.
        inputs: its operands.
        size: how many numbers it gives.
        settings: numbers and constants (by index), as ``STEPS`` reads them.
    """

    name: str
    inputs: tuple[Place, ...]
    size: int
    settings: dict[str, Any]


@dataclass
class Program:
    """Operations; slot 0 holds z, and operation i fills slot i + 1.

    Attributes:
        output: where the image (C, H, W) is, in [0, 1].
    """

    latent_dim: int
    image_shape: tuple[int, ...]
    num_classes: int
    constants: list[Constant] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    output: Place = field(default_factory=lambda: Place(0))

    def run(self, z: Tensor, label: int = 0) -> Tensor:
        """Return images (B, C, H, W) for z (B, latent_dim), in float32, as the page computes them."""
        of_class = [c.values[label if len(c.values) > 1 else 0] for c in self.constants]
        slots = [z.float()]

        def read(place: Place) -> Tensor:
            return of_class[place.number].expand(len(z), -1) if place.constant else slots[place.number]

        for operation in self.operations:
            settings = {
                name: of_class[value.number] if isinstance(value, Place) else value
                for name, value in operation.settings.items()
            }
            slots.append(STEPS[operation.name](*map(read, operation.inputs), **settings))
        return read(self.output).reshape(len(z), *self.image_shape)


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None = None, rows: int = 1) -> Tensor:
    wide = x.reshape(len(x), rows, -1)
    found = wide @ weight.view(-1, wide.shape[-1]).T
    return (found if bias is None else found + bias).flatten(1)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, **given: Any) -> Tensor:
    image, out = given["image"], given["out"]
    inner = out[0] if given["transposed"] else image[0]
    kernel = weight.view(-1, inner // given["groups"], *given["kernel"])
    settings = {name: given[name] for name in ("stride", "padding", "groups", "dilation")}
    x = x.reshape(len(x), *image)
    if not given["transposed"]:
        return F.conv2d(x, kernel, bias, **settings).flatten(1)
    extra = [
        size - ((n - 1) * s - 2 * p + d * (k - 1) + 1)
        for size, n, s, p, d, k in zip(
            out[1:], image[1:], given["stride"], given["padding"], given["dilation"], given["kernel"], strict=True
        )
    ]
    return F.conv_transpose2d(x, kernel, bias, output_padding=extra, **settings).flatten(1)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    by_channel = x.reshape(len(x), len(scale), -1)
    return (by_channel * scale[:, None] + shift[:, None]).flatten(1)


def _normalize(x: Tensor, groups: int, eps: float) -> Tensor:
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    return (centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()).flatten(1)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    return F.pad(x, (1, 0))[:, index.long()]  # place 0 is a zero


def _unary(x: Tensor, function: str, **numbers: float) -> Tensor:
    return UNARY[function](x, **numbers)


def _binary(a: Tensor, b: Tensor, function: str, scale: float = 1.0) -> Tensor:
    return BINARY[function](a, scale * b).float()


def _scalar(x: Tensor, function: str, number: float, swapped: bool = False) -> Tensor:
    other = torch.full_like(x, number)
    return (BINARY[function](other, x) if swapped else BINARY[function](x, other)).float()


UNARY: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": torch.abs,
    "neg": torch.neg,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "not": lambda x: 1 - x,
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "elu": lambda x, alpha, scale, inner: torch.where(x > 0, scale * x, alpha * scale * torch.expm1(inner * x)),
    "softplus": lambda x, beta, threshold: F.softplus(x, beta, threshold),
    "clamp": lambda x, low, high: x.clamp(low, high),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "max": torch.maximum,
    "min": torch.minimum,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
    "and": lambda a, b: a * b,
    "or": torch.maximum,
}
STEPS: dict[str, Callable[..., Tensor]] = {
    "dense": _dense,
    "convolution": _convolution,
    "affine": _affine,
    "normalize": _normalize,
    "gather": _gather,
    "slice": lambda x, start, size: x[:, start : start + size],
    "concat": lambda *parts: torch.cat(parts, 1),
    "unary": _unary,
    "binary": _binary,
    "scalar": _scalar,
    "where": lambda mask, a, b: torch.where(mask != 0, a, b),
}
