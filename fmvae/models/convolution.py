"""Faster convolutions for few channels on a CPU: matrix products with the batch as the innermost dimension.

For such small layers, libraries spend most of their time on reordering operands. Here the B values of a pixel,
one per image of the batch, are contiguous in memory. One call of ``embedding_bag``, which sums rows of a table,
gathers all patches under the kernel (im2col), or sums them back into pixels (col2im). A layer is then one matrix
product: (outputs, C·k·k) x (C·k·k, positions·B). On other devices torch's own layers run. Shapes are always those
of torch; only strides differ. ``python -m benchmarks.convolutions`` measures the times.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function


class Rows(NamedTuple):
    """Row i of the result is the sum of the table's rows ``places[offsets[i]:offsets[i + 1]]``."""

    places: Tensor
    offsets: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """Sum rows of a table (·, B): (len(offsets) - 1, B)."""
        return torch.embedding_bag(table.detach(), self.places, self.offsets, include_last_offset=True)[0]


@dataclass(frozen=True)
class Geometry:
    """Image (C, H, W), kernel, stride and padding of a convolution: which pixels each patch contains."""

    image: tuple[int, int, int]
    kernel: int
    stride: int
    padding: int

    def patches(self, x: Tensor) -> Tensor:
        """Return the patches of x (C, H, W, B) under the kernel: (C·k·k, positions·B)."""
        return _maps(self)[0].sums(x.reshape(-1, x.shape[-1])).view(self.image[0] * self.kernel**2, -1)

    def sum_patches(self, patches: Tensor, batch: int) -> Tensor:
        """The adjoint of ``patches``: sum the entries of patches that belong to each pixel, to (C, H, W, B)."""
        return _maps(self)[1].sums(patches.reshape(-1, batch)).view(*self.image, batch)


@cache
def _maps(geometry: Geometry) -> tuple[Rows, Rows]:
    """Return the row sums that make patches from pixels, and those that sum patches into pixels."""
    image, num_pixels = geometry.image, prod(geometry.image)
    with torch.inference_mode(False):  # the cached tensors are used outside of it too
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
    """Map x (C, H, W, B), weight (O, C, k, k), bias (O,) to (O, positions·B), and to the patches for backward."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        patches = geometry.patches(x)
        return torch.addmm(bias[:, None], weight.flatten(1), patches), patches

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _, ctx.geometry = inputs
        ctx.batch = x.shape[-1]
        ctx.set_materialize_grads(False)  # no zeros as large as the patches, for their gradient
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (patches, weight), dy = ctx.saved_tensors, grads[0]
        if dy is None:
            return None, None, None, None
        dx = None
        if ctx.needs_input_grad[0]:
            dx = ctx.geometry.sum_patches(weight.flatten(1).T @ dy, ctx.batch)
        return dx, (dy @ patches.T).view_as(weight), dy.sum(1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _one_by_one(_Convolution, info, in_dims, inputs)


class _TransposedConvolution(Function):
    """Map x (I, positions·B), weight (I, O, k, k), bias (O,) to (O, H, W, B)."""

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


# torch binds the arguments of each call to the function's signature; it is stored, as finding it takes longer
for _function in (_Convolution, _TransposedConvolution):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """Run the calls of a vmap one after another: each has its own weights, so one large call gains nothing."""

    def chosen(i: int) -> list[Any]:
        return [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]

    outputs = [function.apply(*chosen(i)) for i in range(info.batch_size)]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    stacked = tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
    return stacked, (0,) * len(stacked)


def _ours(x: Tensor) -> bool:
    """Whether to use these layers: only on a CPU in float32, as the library's kernels are faster in bfloat16."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _batch_last(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as contiguous (C, H, W, B); no copy for the output of these layers."""
    return x.permute(1, 2, 3, 0).contiguous()


def _batch_first(x: Tensor) -> Tensor:
    """Return (C, H, W, B) as (B, C, H, W), a view."""
    return x.permute(3, 0, 1, 2)


class SmallConv2d(nn.Conv2d):
    """``nn.Conv2d`` for few channels; kernel size, stride and padding are the same in height and width."""

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
    """``nn.ConvTranspose2d`` for few channels; kernel, stride and padding are the same in height and width."""

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
    """``nn.BatchNorm2d`` for the memory layout of ``SmallConv2d`` and ``SmallConvTranspose2d``."""

    def forward(self, input: Tensor) -> Tensor:
        if not _ours(input):
            return super().forward(input)
        x = _batch_last(input)
        return _batch_first(super().forward(x.flatten(1, 2)[None])[0].view_as(x))  # an image of h·w by B pixels


def with_torch_layers(module: nn.Module) -> nn.Module:
    """Return a float32 copy on the CPU, in evaluation mode, with torch's layers in place of those of this module.

    Both compute the same up to rounding, but torch's consist of fewer operations, which are simpler to record.
    """
    plain = copy.deepcopy(module).to("cpu", torch.float32).eval()
    for layer in plain.modules():
        if type(layer).__module__ == __name__:
            layer.__class__ = next(base for base in type(layer).__mro__ if base.__module__.startswith("torch."))
    return plain


def channels_last(x: Tensor) -> Tensor:
    """Return the images in channels-last memory format, in which large convolutions on a CPU are faster."""
    if x.device.type != "cpu":
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    channels, height, width = x.shape[1:]
    # with one channel both formats have the same bytes; the strides alone tell torch which one is meant
    return (
        x.as_strided(x.shape, (channels * height * width, 1, width * channels, channels)) if channels == 1 else x
    )


class ChannelsLastConv2d(nn.Conv2d):
    """``nn.Conv2d`` that converts its input to channels-last; its output has that format too."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(channels_last(input))


class ChannelsLastUnflatten(nn.Unflatten):
    """``nn.Unflatten`` whose output is in channels-last format."""

    def forward(self, input: Tensor) -> Tensor:
        return channels_last(super().forward(input))
