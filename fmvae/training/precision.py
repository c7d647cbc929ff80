"""The precision of forward and backward passes; weights, losses, optimizers and measures are float32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from fmvae.errors import ConfigError
from fmvae.evaluation.processor import has_bf16
from fmvae.models import VAE

log = logging.getLogger("fmvae")

KNOWN = {"VAE": ("fp32", "tf32", "bf16"), "classifier": ("auto", "fp32", "bf16")}


def check_precision(precision: str, kind: Literal["VAE", "classifier"], device: torch.device) -> None:
    """Raise ConfigError if this kind of model or the device does not support a precision; warn if it is slow."""
    if precision not in KNOWN[kind]:
        problem = f"{precision!r} is not a precision for a {kind}"
        raise ConfigError("trainer.precision", problem, f"give one of {', '.join(KNOWN[kind])}")
    if precision == "tf32" and device.type != "cuda":
        problem = f"'tf32' needs a GPU, and training is on the {device.type}"
        raise ConfigError("trainer.precision", problem, "give fp32 or bf16")
    if precision == "bf16" and not has_bf16(device):
        log.warning(
            "trainer.precision: this %s has no units for bf16, and may be slower than with fp32", device.type
        )


class _InBFloat16:
    """A model that runs under autocast to bfloat16; its outputs are converted to ``dtype``."""

    def __init__(self, model: VAE, device: torch.device, dtype: torch.dtype):
        self._model, self._device, self._dtype = model, device, dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _passed(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        # no cache of converted weights: every weight is used only once in a pass
        with torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False):
            found = function(*arguments, **options)
        if isinstance(found, Tensor):
            return found.to(self._dtype)
        parts = [part.to(self._dtype) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._passed(self._model, *arguments, **options)

    def encode(self, *arguments: Any, **options: Any) -> Any:
        return self._passed(self._model.encode, *arguments, **options)

    def decode(self, *arguments: Any, **options: Any) -> Any:
        return self._passed(self._model.decode, *arguments, **options)


def in_precision(model: VAE, precision: str, x: Tensor) -> Any:
    """Return the model to pass to an objective: with bf16, one that multiplies and convolves in bfloat16.

    Args:
        x: images on the device and with the dtype of the coming calls.
    """
    return _InBFloat16(model, x.device, x.dtype) if precision == "bf16" else model


@contextmanager
def _tf32() -> Iterator[None]:
    switches: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.allow_tf32 = was


def step_in(precision: str) -> AbstractContextManager:
    """Return a context for forward and backward passes: with tf32, factors are rounded to TF32's 10 bits."""
    return _tf32() if precision == "tf32" else nullcontext()
