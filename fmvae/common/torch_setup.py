"""Set up torch for a process: its device, its threads, and the switches for reproducible results."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from fmvae.common import contention
from fmvae.common.memory import keep_freed_memory
from fmvae.errors import ConfigError

COMPILER = "torch._dynamo"


class _Unused(ModuleType):
    """Stand-in for torch's compiler module. Any use but that of uncompiled optimizers imports the real one."""

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """Do nothing: a graph break has an effect only during compilation."""

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # inspect reads it of every loaded module
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER], torch._dynamo
        return getattr(import_module(COMPILER), name)


def without_compiler() -> None:
    """Defer importing torch's compiler, which ``torch.optim`` would import, to speed up start-up.

    Code that compiles still works: any other use of the module or its submodules imports the real one.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _Unused(COMPILER)


def load_constants() -> None:
    """Map the constants of torch's ``log1p`` and ``expm1`` into memory: with AVX-512, both are slow until then.

    They read their result for -0 with a load whose mask is empty for all other arguments. Such a load never maps
    the page that it reads, and while the page is not mapped, the CPU spends some 500 cycles on each load: the
    functions take 10 to 20 times as long (``python -m benchmarks.tricks``). The cross-entropy uses ``log1p``. No
    result changes.
    """
    for dtype in (torch.float32, torch.float64):
        minus_zero = torch.full((64,), -0.0, dtype=dtype)
        minus_zero.log1p()
        minus_zero.expm1()


def choose_device(name: str) -> torch.device:
    """Return the torch device with this name, or the one that ``auto`` selects.

    ``auto`` selects a GPU if there is one. ``auto:5``, for job 5 of a sweep, selects GPU 5 modulo the number of
    GPUs, so that parallel jobs share the GPUs evenly.

    Raises:
        ConfigError: there is no such device, or it is not supported.
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
        raise ConfigError("device", f"{name!r} is not a device", way_out) from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError("device", f"{name!r} is not available ({count or 'no'} CUDA GPUs found)", way_out)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", f"{name!r} is not supported", way_out)
    return device


def set_up_torch(config: Mapping[str, Any]) -> torch.device:
    """Set torch's number of threads and the switches for reproducible results; return the device."""
    without_compiler()
    keep_freed_memory()
    # Adam's averages for pixels that are nearly always black decay into denormal numbers, which are slow on some
    # CPUs (``python -m benchmarks.tricks``). Without this, the bits of checkpoints would differ, too. Set before
    # torch starts its threads, which inherit the setting.
    torch.set_flush_denormal(True)
    load_constants()
    device = choose_device(config["device"])
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs use the current device
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    contention.watch()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # see trainer.precision
    return device
