"""What of a config names its run: all that can change a trained bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED_BY_CONTENT = ("trainer.start",)  # a file; the key beside it, trainer.start_sha256, says what it holds
NON_SEMANTIC = (
    "device",
    "threads",
    "restart",
    "dry_run",
    "output_root",
    "sweep_name",
    "objective",
    "figures",
    "evaluation",
    "data.root",
    "data.download",
    "data.download_to",
    "trainer.checkpoint_every",
    *NAMED_BY_CONTENT,
    "trainer.progress",
)


# of a VAE: keys that are newer than runs which are named without them, and what is meant there
NEWER = {"trainer.precision": "fp32"}


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that can change a trained bit, keys sorted; whatever is not listed above counts."""
    newer = NEWER if is_vae(config) else {}

    def part(group: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in sorted(group.items()):
            path = f"{prefix}{key}"
            if path not in NON_SEMANTIC and not (path in newer and value == newer[path]):
                kept[key] = part(value, f"{path}.") if isinstance(value, Mapping) else value
        return kept

    return part(config, "")


def whole(semantic_part: Mapping[str, Any]) -> dict[str, Any]:
    """A semantic part with the keys that are left out of names, for people who compare configs."""
    filled = {group: dict(v) if isinstance(v, Mapping) else v for group, v in semantic_part.items()}
    for path, value in NEWER.items() if is_vae(filled) else ():
        group, _, key = path.partition(".")
        filled.setdefault(group, {}).setdefault(key, value)
    return filled


def is_vae(config: Mapping[str, Any]) -> bool:
    """Whether a config, whole or its semantic part, is a VAE's; the classifier's has no beta."""
    return "beta" in config
