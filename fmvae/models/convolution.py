"""Convolutions of few channels as matrix products, with the batch as the last dimension in memory.

On a processor, libraries spend most of the time of such small layers on reordering their operands. Here a pixel is
a run of B numbers, one of each image of the batch. ``embedding_bag``, made to add up rows of a table, collects the
patches that a kernel sees, or adds them up again, in one call. A layer then is one product of its weights with
them: (outputs, C·k·k) x (C·k·k, positions·B). On other devices the layers are torch's own, as are shapes
everywhere: only strides differ. ``python -m benchmarks.convolutions`` has the times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class Rows(NamedTuple):
    """For row i of a result, the rows of a table that it is the sum of: ``places[offsets[i]:offsets[i + 1]]``."""

    places: Tensor
    offsets: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """(len(offsets) - 1, B) from a table of rows (·, B)."""
        return torch.embedding_bag(table.detach(), self.places, self.offsets, include_last_offset=True)[0]


@dataclass(frozen=True)
class Geometry:
    """A convolution's image (C, H, W), kernel, stride and padding: which pixel is seen where."""

    image: tuple[int, int, int]
    kernel: int
    stride: int
    padding: int

    def patches(self, x: Tensor) -> Tensor:
        """What the kernel sees of x (C, H, W, B): (C·k·k, positions·B)."""
        return _maps(self)[0].sums(x.reshape(-1, x.shape[-1])).view(self.image[0] * self.kernel**2, -1)

    def sum_patches(self, patches: Tensor, batch: int) -> Tensor:
        """The adjoint of ``patches``: what lies on a pixel is added up, to (C, H, W, B)."""
        return _maps(self)[1].sums(patches.reshape(-1, batch)).view(*self.image, batch)


@cache
def _maps(geometry: Geometry) -> tuple[Rows, Rows]:
    """How patches are made of pixels, and pixels of patches."""
    image, num_pixels = geometry.image, prod(geometry.image)
    with torch.inference_mode(False):  # they outlive whoever asks first
        pixels = torch.arange(1, num_pixels + 1, dtype=torch.float64).view(1, *image)
        seen = (
            F.unfold(pixels, geometry.kernel, padding=geometry.padding, stride=geometry.stride).flatten().long()
        )  # 0 beyond the edge
        places, seen_there = seen.nonzero().flatten(), seen[seen > 0] - 1
        order = seen_there.argsort(stable=True)
        counts = torch.bincount(seen_there, minlength=num_pixels)
        return (
            Rows(seen_there.int(), F.pad((seen > 0).cumsum(0), (1, 0)).int()),
            Rows(places[order].int(), F.pad(counts.cumsum(0), (1, 0)).int()),
        )


class _Convolution(Function):
    """x (C, H, W, B), weight (O, C, k, k), bias (O,) to (O, positions·B), and the patches, for the way back."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        patches = geometry.patches(x)
        return torch.addmm(bias[:, None], weight.flatten(1), patches), patches

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _, ctx.geometry = inputs
        ctx.batch = x.shape[-1]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (patches, weight), dy = ctx.saved_tensors, grads[0]
        dx = None
        if ctx.needs_input_grad[0]:
            dx = ctx.geometry.sum_patches(weight.flatten(1).T @ dy, ctx.batch)
        return dx, (dy @ patches.T).view_as(weight), dy.sum(1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _one_by_one(_Convolution, info, in_dims, inputs)


class _TransposedConvolution(Function):
    """x (I, positions·B), weight (I, O, k, k), bias (O,) to (O, H, W, B)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, batch: int) -> Tensor:
        return geometry.sum_patches(weight.flatten(1).T @ x, batch).add_(bias[:, None, None, None])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.geometry, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), dy = ctx.saved_tensors, grads[0].contiguous()
        patches = ctx.geometry.patches(dy)
        return weight.flatten(1) @ patches, (x @ patches.T).view_as(weight), dy.flatten(1).sum(1), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _one_by_one(_TransposedConvolution, info, in_dims, inputs)


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """A stack of calls: each has weights of its own, so nothing is gained by one large call."""

    def chosen(i: int) -> list[Any]:
        return [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]

    outputs = [function.apply(*chosen(i)) for i in range(info.batch_size)]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    stacked = tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
    return stacked, (0,) * len(stacked)


def _ours(x: Tensor) -> bool:
    """Whether these layers are the faster ones: bfloat16 is for a processor's matrix units, and its library's."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _batch_last(x: Tensor) -> Tensor:
    """(B, C, H, W) as contiguous (C, H, W, B): a view of what these layers give."""
    return x.permute(1, 2, 3, 0).contiguous()


def _batch_first(x: Tensor) -> Tensor:
    """(C, H, W, B) as (B, C, H, W), a view."""
    return x.permute(3, 0, 1, 2)


class SmallConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one kernel size, stride and padding both ways, for few channels."""

    def forward(self, input: Tensor) -> Tensor:
        if not _ours(input):
            return super().forward(input)
        batch, channels, *image = input.shape
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((n + 2 * padding - kernel) // stride + 1 for n in image)
        geometry = Geometry((channels, image[0], image[1]), kernel, stride, padding)
        y, _ = _Convolution.apply(_batch_last(input), self.weight, self.bias, geometry)
        return _batch_first(y.view(-1, height, width, batch))


class SmallConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with one kernel size, stride and padding both ways, for few channels."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not _ours(input):
            return super().forward(input, output_size)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = (
            (n - 1) * stride - 2 * padding + kernel + extra
            for n, extra in zip(input.shape[2:], self.output_padding, strict=True)
        )
        geometry = Geometry((self.out_channels, height, width), kernel, stride, padding)
        x = _batch_last(input).flatten(1)
        return _batch_first(_TransposedConvolution.apply(x, self.weight, self.bias, geometry, len(input)))


class SmallBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` for what the two above give."""

    def forward(self, input: Tensor) -> Tensor:
        if not _ours(input):
            return super().forward(input)
        x = _batch_last(input)
        return _batch_first(super().forward(x.flatten(1, 2)[None])[0].view_as(x))  # one image, of h·w by B pixels


def channels_last(x: Tensor) -> Tensor:
    """The same images with the channels last in memory: on a processor, large convolutions are faster in it."""
    if x.device.type != "cpu":
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    channels, height, width = x.shape[1:]
    # of one channel both orders are the same numbers, and only the strides say which is meant
    return (
        x.as_strided(x.shape, (channels * height * width, 1, width * channels, channels)) if channels == 1 else x
    )


class ChannelsLastConv2d(nn.Conv2d):
    """``nn.Conv2d`` that works in, and so leads over to, ``channels_last``."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(channels_last(input))


class ChannelsLastUnflatten(nn.Unflatten):
    """``nn.Unflatten`` to ``channels_last``."""

    def forward(self, input: Tensor) -> Tensor:
        return channels_last(super().forward(input))
