"""What the processor can do, and what the last bits of a network's output depend on besides its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fmvae.runs.provenance import processor_name


def has_bf16(device: torch.device) -> bool:
    """Whether the device has units for bfloat16: a GPU's, or on a CPU AMX or the instructions AVX512_BF16."""
    return has_fast_bf16(device) or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the units are a GPU's or AMX's, which ``trainer.precision=auto`` of a classifier asks for.

    AVX512_BF16 is left out, or a run on a CPU that has it would get other bits than in earlier versions.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()


def kind_of_machine(device: torch.device) -> dict[str, Any]:
    """Return JSON values that tell kinds of machines apart; those with equal values are taken to round alike.

    A library chooses its kernels by the processor and its instructions, and blocks sums by the size of its caches.
    The number of threads is not among the values: convolutions are divided by images and channels of their output,
    so no sum is divided, and the tests compare the bits.
    """
    kind = {"torch": torch.__version__, "processor": processor_name(device)}
    if device.type == "cuda":
        return {**kind, "cudnn": torch.backends.cudnn.version()}
    kind |= {"instructions": torch.backends.cpu.get_cpu_capability(), "bf16": has_bf16(device)}
    return kind | _generation()  # the processor's name may be no more than its maker's in a virtual machine


def _generation() -> dict[str, str]:
    """Return the family and model of the CPU; empty where the system does not tell (it is a file of Linux)."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in fields.items()}
    return {name: told[name] for name in ("cpu family", "model") if name in told}
