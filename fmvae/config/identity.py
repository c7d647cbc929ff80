"""Names of runs. A run is named by the part of its config that can change a trained bit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fmvae.common.digests import digest

NAMED_BY_CONTENT = ("trainer.start",)  # a file; trainer.start_sha256 holds its digest, and is in the name
# options of data whose data.root names the content, not only its place: data.sha256 holds the digest of the files
FROM_FILES = ("data=arrays", "data=image_folder")
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
    "tracker",
    "data.root",
    "data.download",
    "data.download_to",
    "data.class_names",
    "data.cache",
    "trainer.checkpoint_every",
    *NAMED_BY_CONTENT,
    "trainer.progress",
)


NAME = re.compile(r"[A-Za-z0-9._-]+-[0-9a-f]{8}")  # of a run
LONGEST_NAME = 250  # characters; file systems take 255 bytes, and the name of the lock file is longer by five
NAMED = ("model", "loss", "prior")  # groups with a key ``_name_``: a word in the run's name
# keys and groups added to a VAE's config after runs had been named without them, and the value that those runs
# used; a key with this value is left out of the name, so that old names stay valid
NEWER: Mapping[str, Any] = {
    "trainer.precision": "fp32",
    "loss": {"_target_": "fmvae.objectives.ELBO"},
    "prior": {"_target_": "fmvae.models.StandardPrior"},
}
# the same for keys of any run, which a stored config gets no value for: another class may not take them
NEWER_ARGUMENTS: Mapping[str, Any] = {"data.binarize": None}


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that can change a trained bit, with sorted keys.

    Left out are the keys in ``NON_SEMANTIC``, and those in ``NEWER`` and ``NEWER_ARGUMENTS`` that have the value
    given there.
    """
    return _kept(config, {**NEWER_ARGUMENTS, **(NEWER if is_vae(config) else {})})


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of a config that can change a trained bit: ``semantic``, and the keys that it leaves out."""
    return _kept(config, {})


def _kept(config: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    def part(group: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in sorted(group.items()):
            path = f"{prefix}{key}"
            if path not in NON_SEMANTIC and not (path in newer and value == newer[path]):
                kept[key] = part(value, f"{path}.") if isinstance(value, Mapping) else value
        return kept

    return part(config, "")


def whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config, or its semantic part, with the keys in ``NEWER`` that it lacks."""
    filled = {group: dict(v) if isinstance(v, Mapping) else v for group, v in config.items()}
    for path, value in NEWER.items() if is_vae(filled) else ():
        group, _, key = path.partition(".")
        if key:
            filled.setdefault(group, {}).setdefault(key, value)
        else:
            filled.setdefault(group, dict(value))
    return filled


def is_vae(config: Mapping[str, Any]) -> bool:
    """Return whether a config, or its semantic part, is that of a VAE; a classifier's has no ``beta``."""
    return "beta" in config


def is_name(text: object) -> bool:
    """Return whether a text may be the name of a run, and so of a directory in a folder of runs.

    The name of a run that was moved aside (``.old-``) is none.
    """
    if not isinstance(text, str) or len(text) > LONGEST_NAME:
        return False
    return bool(NAME.fullmatch(text)) and ".old-" not in text


@dataclass(frozen=True)
class RunIdentity:
    """The name and digest of a run, computed from its config.

    Attributes:
        name: of its directory, ``<model>-b<beta>-z<latent_dim>-s<seed>-<id8>``; a classifier's name has no beta
            and no latent_dim. If loss and prior have a ``_name_``, it follows that of the model:
            ``base-tc-vamp-b6-...``. It consists of letters, digits, ``.``, ``_`` and ``-``: a path with a ``=``
            could not be given as the value of an override.
        sha256: of the semantic part's canonical JSON; ``id8`` is its first 8 digits.
        semantic: the part of the config that can change a trained bit.
    """

    name: str
    sha256: str
    semantic: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunIdentity:
        """Return the identity of the run that has this config; its semantic part is enough."""
        part = semantic(config)
        sha256 = digest(part)
        words = [part[group]["_name_"] for group in NAMED if "_name_" in part.get(group, {}) or group == "model"]
        if is_vae(part):
            words += [f"b{part['beta']['value']:g}", f"z{part['latent_dim']['value']}"]
        words = [re.sub(r"[^A-Za-z0-9._-]", "", word) for word in [*words, f"s{part['seed']}"]]
        return cls("-".join([*words, sha256[:8]]), sha256, part)
