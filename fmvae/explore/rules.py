"""What each of torch's operations (ATen) becomes in a ``Program``. An operation that is not here is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from fmvae.explore.builder import Builder, NotForThePage, Value

Rule = Callable[..., Any]

# operations that only move numbers, repeat them or put zeros between them
MOVES = {
    "_reshape_copy", "_unsafe_view", "alias", "alias_copy", "cat", "clone", "contiguous", "detach", "detach_copy",
    "diagonal_copy", "expand", "expand_copy", "flip", "lift_fresh_copy", "narrow_copy", "permute", "permute_copy",
    "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape", "roll", "select", "select_copy", "slice",
    "slice_copy", "split", "split_copy", "split_with_sizes", "split_with_sizes_copy", "squeeze", "squeeze_copy",
    "stack", "t", "t_copy", "transpose", "transpose_copy", "unbind", "unbind_copy", "unsqueeze", "unsqueeze_copy",
    "upsample_nearest2d", "view", "view_copy",
}  # fmt: skip


def _dense(low: Builder, x: Value, weight: Value, bias: Value | None) -> Value:
    """x (rows, in) times a matrix (in, out)."""
    if len(weight.shape) != 2:
        raise NotForThePage("a product with more than one matrix")
    rows, outputs = prod(x.shape[:-1]), weight.shape[1]
    settings = {"weight": low.weights(weight, lambda w: w.T.contiguous()), "rows": rows}
    if bias is not None:
        settings["bias"] = low.weights(bias, lambda b: b.broadcast_to(outputs).contiguous())
    return low.add("dense", [x], [*x.shape[:-1], outputs], **settings)


def _addmm(low: Builder, bias: Value, x: Value, weight: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    if (beta, alpha) != (1, 1) or prod(bias.shape[:-1]) != 1:
        raise NotForThePage("addmm with factors, or with a bias for each row")
    return _dense(low, x, weight, replace(bias, shape=bias.shape[-1:]))


def _convolution(
    low: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    if len(x.shape) != 4 or x.shape[0] != 1:
        raise NotForThePage("a convolution that is not of one image")
    kernel = weight.shape[2:]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = list(zip(x.shape[2:], stride, padding, reach, output_padding, strict=True))
    if transposed:
        out = [weight.shape[1] * groups, *((n - 1) * s - 2 * p + r + extra for n, s, p, r, extra in sizes)]
    else:
        out = [weight.shape[0], *((n + 2 * p - r) // s + 1 for n, s, p, r, _ in sizes)]
    lists = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "kernel": kernel,
        "image": x.shape[1:],
        "out": out,
    }
    settings = {name: list(numbers) for name, numbers in lists.items()} | {
        "groups": groups,
        "transposed": transposed,
    }
    settings["weight"] = low.weights(weight)
    if bias is not None:
        settings["bias"] = low.weights(bias)
    return low.add("convolution", [x], [1, *out], **settings)


def _batch_norm(
    low: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    *rest: Any,
) -> list[Value]:
    """In evaluation mode: a factor and a summand for each channel."""
    if len(rest) == 3 and rest[0]:  # native_batch_norm(..., training, momentum, eps)
        raise NotForThePage("batch norm in training mode")
    eps, constants = rest[-1], low.program.constants

    def rows(value: Value | None, default: float) -> Tensor:
        return torch.full((1, 1), default) if value is None else constants[value.place.number].values

    if not all(value is None or value.place.constant for value in (weight, bias, mean, variance)):
        raise NotForThePage("a weight that depends on z")
    scale = rows(weight, 1.0) / (rows(variance, 1.0) + eps).sqrt()
    shift = rows(bias, 0.0) - rows(mean, 0.0) * scale
    return [low.add("affine", [x], x.shape, scale=low.constant(scale), shift=low.constant(shift))]


def _per_channel(low: Builder, x: Value, weight: Value | None, bias: Value | None, channels: int) -> Value:
    if weight is None and bias is None:
        return x
    ones, zeros = torch.ones(1, channels), torch.zeros(1, channels)
    scale = low.constant(ones) if weight is None else low.weights(weight)
    shift = low.constant(zeros) if bias is None else low.weights(bias)
    return low.add("affine", [x], x.shape, scale=scale, shift=shift)


def _group_norm(
    low: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    eps: float,
) -> list[Value]:
    normal = low.add("normalize", [x], x.shape, groups=n * groups, eps=eps)
    return [_per_channel(low, normal, weight, bias, c)]


def _layer_norm(
    low: Builder, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> list[Value]:
    found = low.add("normalize", [x], x.shape, groups=x.size // prod(shape), eps=eps)
    found = found if weight is None else _binary("mul")(low, found, weight)
    return [found if bias is None else _binary("add")(low, found, bias)]


def _glu(low: Builder, x: Value, dim: int = -1) -> Value:
    places = torch.arange(1, x.size + 1).view(x.shape).chunk(2, dim)
    half, gate = (low.moved(x, index) for index in places)
    return _binary("mul")(low, half, low.add("unary", [gate], gate.shape, function="sigmoid"))


def _unary(function: str, *names: str, **fixed: float) -> Rule:
    """An operation on one tensor; further arguments are numbers with these names."""

    def rule(low: Builder, x: Value, *numbers: Any, **named: Any) -> Value:
        given = fixed | dict(zip(names, numbers, strict=False)) | {n: v for n, v in named.items() if n in names}
        return low.add("unary", [x], x.shape, function=function, **given)

    return rule


def _gelu(low: Builder, x: Value, approximate: str = "none") -> Value:
    return low.add("unary", [x], x.shape, function="gelu_tanh" if approximate == "tanh" else "gelu")


def _clamp(low: Builder, x: Value, low_end: float | None = None, high_end: float | None = None) -> Value:
    for number, function in ((low_end, "max"), (high_end, "min")):
        if number is not None:
            x = low.add("scalar", [x], x.shape, function=function, number=float(number))
    return x


def _binary(function: str, swapped: bool = False) -> Rule:
    """An operation on two tensors, which are broadcast, or on a tensor and a number."""

    def rule(low: Builder, a: Any, b: Any, *, alpha: float = 1, rounding_mode: None = None) -> Value:
        if rounding_mode is not None:
            raise NotForThePage("a division that rounds")
        a, b = (b, a) if swapped else (a, b)
        scale = {} if alpha == 1 else {"scale": float(alpha)}
        if isinstance(a, Value) and isinstance(b, Value):
            shape = torch.broadcast_shapes(a.shape, b.shape)
            return low.add(
                "binary", [low.broadcast(a, shape), low.broadcast(b, shape)], shape, function=function, **scale
            )
        if scale:
            raise NotForThePage("an addition of a number with a factor")
        if isinstance(a, Value):
            return low.add("scalar", [a], a.shape, function=function, number=float(b))
        return low.add("scalar", [b], b.shape, function=function, number=float(a), swapped=True)

    return rule


def _where(low: Builder, mask: Value, a: Value, b: Value) -> Value:
    shape = torch.broadcast_shapes(mask.shape, a.shape, b.shape)
    return low.add("where", [low.broadcast(value, shape) for value in (mask, a, b)], shape)


def _to_copy(low: Builder, x: Value, *, dtype: torch.dtype | None = None, **rest: Any) -> Value:
    if dtype not in (None, torch.float32):
        raise NotForThePage(f"numbers of type {dtype}")
    return x


RULES: dict[str, Rule] = {
    "addmm": _addmm,
    "mm": lambda low, x, weight: _dense(low, x, weight, None),
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "glu": _glu,
    "gelu": _gelu,
    "leaky_relu": _unary("leaky_relu", "slope", slope=0.01),
    "elu": _unary("elu", "alpha", "scale", "inner", alpha=1.0, scale=1.0, inner=1.0),
    "softplus": _unary("softplus", "beta", "threshold", beta=1.0, threshold=20.0),
    "clamp": _clamp,
    "hardtanh": lambda low, x, least=-1.0, most=1.0: _clamp(low, x, least, most),
    "bitwise_not": _unary("not"),
    "logical_not": _unary("not"),
    "where": _where,
    "_to_copy": _to_copy,
    "rsub": _binary("sub", swapped=True),
    "maximum": _binary("max"),
    "minimum": _binary("min"),
    "bitwise_and": _binary("and"),
    "logical_and": _binary("and"),
    "bitwise_or": _binary("or"),
    "logical_or": _binary("or"),
    **{name: _binary(name) for name in ("add", "sub", "mul", "div", "pow", "lt", "le", "gt", "ge", "eq", "ne")},
    **{
        name: _unary(name)
        for name in (
            "abs", "cos", "exp", "log", "neg", "reciprocal", "relu", "rsqrt", "sigmoid", "silu", "sin", "sqrt",
            "square", "tanh",
        )
    },
}  # fmt: skip
