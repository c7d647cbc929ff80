"""A roofline estimate of the time of an epoch, from this machine's measured speeds.

It is the floating-point operations of the model's products and convolutions (2 per multiply-add; forward, and
backward by weights and by inputs) at the highest rate that the machine reaches in a large product, plus the bytes
of all layers and of the optimizer at the bandwidth of a copy. Small products run below that rate; a program that
overlaps the two, or keeps values in caches, needs less time for the bytes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

REPEATS = 5
SIZE = 1024  # rows and columns of the matrix product that measures the highest rate
COPIED = 2**26  # bytes, more than caches hold


class Need(NamedTuple):
    """What a training step needs: floating-point operations and bytes."""

    flops: float
    bytes: float


def need(network: nn.Module, x: Tensor, labels: Tensor) -> Need:
    """Count what a step on a batch needs.

    Bytes: Adam reads weight, gradient and two averages and writes three of them, and the backward pass writes the
    gradient (32 a parameter); each layer's output is written once and read in both passes, and its gradient is
    written and read once (20 a value); the images are read twice.
    """
    flops = values = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops, values
        kernel: Tensor = layer.weight  # type: ignore[assignment]
        # each input value of a transposed convolution, and each output value of the others, meets one filter
        meets = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        once = 2.0 * meets.numel() * kernel[0].numel()
        flops += once * (3 if inputs[0].requires_grad else 2)  # images need no gradient
        values += output.numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    network(x, labels)
    for handle in handles:
        handle.remove()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Need(flops, 32.0 * parameters + 20.0 * values + 8.0 * x.numel())


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def peak(dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of a large product: a matrix product, or a convolution."""
    a, b = (torch.randn(SIZE, SIZE, dtype=dtype) for _ in range(2))
    x = torch.randn(32, 256, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, dtype=dtype)
    of_product = 2.0 * SIZE**3 / fastest(lambda: a @ b)
    of_convolution = 2.0 * x.numel() * weight[0].numel() / fastest(lambda: torch.conv2d(x, weight, padding=1))
    return max(of_product, of_convolution)


def bandwidth() -> float:
    """Measure the bytes per second of a copy, each read and written."""
    source, target = (torch.ones(COPIED // 4) for _ in range(2))
    return statistics.median([2.0 * COPIED / fastest(lambda: target.copy_(source)) for _ in range(3)])


@torch.no_grad()
def estimate(needed: Need, steps: int, dtype: torch.dtype) -> float:
    """Return the estimated seconds of so many steps."""
    return steps * (needed.flops / peak(dtype) + needed.bytes / bandwidth())
