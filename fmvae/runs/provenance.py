"""Where a number comes from: the code, the versions and the machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fmvae.config import own_code

PACKAGES = ("fmvae", "torch", "torchvision", "numpy", "scipy", "hydra-core")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


@cache
def git_state() -> dict[str, Any]:
    """The commit of the project's checkout and whether tracked files differ from it; None where there is none."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PROJECT_ROOT), *arguments],
                capture_output=True,
                text=True,
                timeout=30,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "fmvae") is None:  # installed into a folder of another project
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def processor_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's as Linux tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance(device: torch.device, config: Mapping[str, Any]) -> dict[str, Any]:
    """What, beside the config and the data, can change a number's last bits. No times, so that runs compare.

    Args:
        config: of the run; of the packages of one's own that it names, ``own_code`` has the sources' digests.
    """
    own = own_code.of_config(config)
    return {
        "git": git_state(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "device": str(device),
        "processor": processor_name(device),
        "threads": torch.get_num_threads(),
    } | ({"own_code": own} if own else {})
