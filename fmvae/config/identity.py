"""What of a config names its run: all that can change a trained bit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fmvae.common.digests import digest

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
    "data.class_names",
    "trainer.checkpoint_every",
    *NAMED_BY_CONTENT,
    "trainer.progress",
)


# of a VAE: keys and groups that are newer than runs which are named without them, and what is meant there
NEWER: Mapping[str, Any] = {"trainer.precision": "fp32", "loss": {"_target_": "fmvae.objectives.ELBO"}}


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


def whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, or its semantic part, with the keys and groups that are left out of names."""
    filled = {group: dict(v) if isinstance(v, Mapping) else v for group, v in config.items()}
    for path, value in NEWER.items() if is_vae(filled) else ():
        group, _, key = path.partition(".")
        if key:
            filled.setdefault(group, {}).setdefault(key, value)
        else:
            filled.setdefault(group, dict(value))
    return filled


def is_vae(config: Mapping[str, Any]) -> bool:
    """Whether a config, whole or its semantic part, is a VAE's; the classifier's has no beta."""
    return "beta" in config


@dataclass(frozen=True)
class RunIdentity:
    """What a run is known by, computed once from its config and then carried.

    Attributes:
        name: of its directory, ``<model>-b<beta>-z<latent_dim>-s<seed>-<id8>``: letters, digits, ``.``, ``_`` and
            ``-`` alone. A classifier has no beta and no latents. A ``=`` in a path could not be passed back as an
            override.
        sha256: of the semantic part's canonical JSON; ``id8`` is its first 8 digits.
        semantic: the part of the config that can change a trained bit.
    """

    name: str
    sha256: str
    semantic: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunIdentity:
        """The identity of the run of a config, whole or its semantic part."""
        part = semantic(config)
        sha256 = digest(part)
        words = [part["model"]["_name_"]]
        if is_vae(part):
            words += [f"b{part['beta']['value']:g}", f"z{part['latent_dim']['value']}"]
        words = [re.sub(r"[^A-Za-z0-9._-]", "", word) for word in [*words, f"s{part['seed']}"]]
        return cls("-".join([*words, sha256[:8]]), sha256, part)
