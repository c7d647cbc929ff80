"""The provenance of results: commit, versions and machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fmvae import __version__
from fmvae.config import own_code
from fmvae.config.project import PROJECT_ROOT

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "hydra-core")


@cache
def git_state() -> dict[str, Any]:
    """Return the checkout's ``commit``, and whether tracked files differ from it (``dirty``); None if unknown."""

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

    if git("ls-files", "--error-unmatch", "fmvae") is None:  # not a checkout of this project
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def processor_name(device: torch.device) -> str:
    """Return the name of the GPU, or of the CPU (on Linux its model name)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance(device: torch.device, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what, besides the config and the data, can change the last bits of a number.

    It contains no times, so that equal runs have equal records.

    Args:
        config: of the run. If it names classes of the user's own packages, ``own_code`` has their digests.
    """
    own = own_code.of_config(config)
    return {
        "git": git_state(),
        # the version of fmvae is that of this code: of an editable installation, metadata may be older
        "versions": {"python": platform.python_version(), "fmvae": __version__}
        | {name: version(name) for name in PACKAGES},
        "device": str(device),
        "processor": processor_name(device),
        "threads": torch.get_num_threads(),
    } | ({"own_code": own} if own else {})
