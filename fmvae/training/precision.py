"""In which numbers passes are computed; weights, losses, optimizers and measures are float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from fmvae.errors import ConfigError

OF_VAE = ("fp32", "tf32", "bf16")
OF_CLASSIFIER = ("auto", "fp32", "bf16")


def check_precision(precision: str, known: Sequence[str], device: torch.device) -> None:
    """Raise ConfigError for one that is not ``known``, or not to be had on the device."""
    if precision not in known:
        problem, way_out = f"{precision!r} is not for this model", f"give one of {', '.join(known)}"
        raise ConfigError("trainer.precision", problem, way_out)
    if precision == "tf32" and device.type != "cuda":
        problem = f"'tf32' is a GPU's way to multiply, and training is on the {device.type}"
        raise ConfigError("trainer.precision", problem, "give fp32 or bf16")


def forward_in(precision: str, device: torch.device) -> AbstractContextManager:
    """For a pass through a model: products and convolutions in bfloat16, if that is the precision."""
    if precision != "bf16":
        return nullcontext()
    # every weight is used once a pass, so that nothing is gained by keeping it
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


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
    """For a pass and its gradients: factors rounded to TF32's 10 bits, if that is the precision."""
    return _tf32() if precision == "tf32" else nullcontext()
