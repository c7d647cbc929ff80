"""How a process uses torch: its device, its threads, and the switches that make results repeat."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from fmvae.errors import ConfigError

COMPILER = "torch._dynamo"


class _Unused(ModuleType):
    """In the place of torch's compiler: what optimizers ask of it while nothing is compiled, else the real one."""

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """Only what is being compiled could be broken."""

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # which inspect asks of every module there is
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER], torch._dynamo
        return getattr(import_module(COMPILER), name)


def without_compiler() -> None:
    """Keep ``torch.optim`` from importing torch's compiler, which takes long, for nothing.

    Whoever compiles gets it all the same: whatever else is asked of the module, its submodules too, loads it.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _Unused(COMPILER)


def choose_device(name: str) -> torch.device:
    """``auto`` or a torch device by name, checked to be there.

    ``auto`` is a GPU if there is one. ``auto:5``, for job 5 of a sweep, takes the GPUs in turn, so that jobs side
    by side share them evenly.
    """
    auto, _, job = name.partition(":")
    if auto == "auto" and (job.isdecimal() or name == "auto"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if job and count > 1:
            return torch.device("cuda", int(job) % count)
        return torch.device("cuda" if count else "cpu")
    way_out = f"use {f'device=cuda:{name}, ' if name.isdecimal() else ''}device=auto or device=cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("device", f"{name!r} is no device", way_out) from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError("device", f"{name!r} is not here ({count or 'no'} CUDA GPUs found)", way_out)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", f"{name!r} is not supported", way_out)
    return device


def set_up_torch(config: Mapping[str, Any]) -> torch.device:
    """Threads, device and the switches that make a device repeat itself."""
    without_compiler()
    # Adam's averages of pixels that are nearly always black decay into denormal numbers, on which processors are
    # slow. Said before torch starts its threads, which inherit it.
    torch.set_flush_denormal(True)
    device = choose_device(config["device"])
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are the current device's
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # trainer.precision=tf32 does
    return device
