"""A cache on disk of the features of real images, keyed by the content of the images and by the kind of machine.

Processes, checkouts and machines may share it: entries are written atomically, and each has a name made from all
that it depends on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from fmvae.common.digests import digest
from fmvae.data import Split
from fmvae.errors import RunError
from fmvae.evaluation.features import Features, FeatureSet, real_images
from fmvae.evaluation.processor import kind_of_machine
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.files import read_record, write_record

FORMAT = 1  # increase it when a code change affects the features
log = logging.getLogger("fmvae")
T = TypeVar("T")


def cache_key(split: Split, num: int, features: FeatureSet) -> dict[str, Any]:
    """Return everything that the features of the first ``num`` images of a split depend on, as JSON values."""
    images = split.images[:num].cpu().contiguous()
    content = hashlib.sha256(images.numpy().data).hexdigest()
    device = split.images.device  # rounding depends on the type of device, and on the machine
    where = {"device": device.type, "machine": kind_of_machine(device)}
    of_images = {"split": split.name, "images_sha256": content, "shape": list(images.shape)}
    return {"format": FORMAT, **of_images, **where, **features.identity}


def real_features(directory: Path | None, split: Split, num: int, features: FeatureSet) -> Features:
    """Return the features of the first ``num`` images of a split, from the cache if it has them.

    A damaged entry is computed again. If the cache cannot be written, a warning is logged.

    Args:
        directory: the folder of the cache; None disables it.
    """

    def make() -> Features:
        return features(real_images(split, num), f"{split.name} images", num)

    if directory is None or features.name == "pixels":  # pixels: computing is faster than reading
        return make()
    key = cache_key(split, num, features)
    path = directory / f"{features.name}-{split.name}-{digest(key)[:16]}.safetensors"

    def read() -> Features:
        entry = load_checkpoint(path)
        if entry.meta["key"] != key:
            raise LookupError
        return Features(entry.tensors["features"].numpy(), entry.tensors["logits"].numpy())

    def keep(made: Features) -> None:
        assert made.logits is not None
        tensors = {"features": torch.from_numpy(made.features), "logits": torch.from_numpy(made.logits)}
        save_checkpoint(path, tensors, {"key": key})

    return _kept("features of real images", path, read, make, keep)


def kept_record(
    directory: Path | None, name: str, key: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return numbers from the cache, or else make them and keep them there; errors as for ``real_features``.

    Args:
        name: the beginning of the file's name.
        key: everything that the numbers depend on, as JSON values.
    """
    if directory is None:
        return make()
    path = directory / f"{name}-{digest(key)[:16]}.json"

    def read() -> dict[str, Any]:
        record = read_record(path)
        if record["key"] != key:
            raise LookupError
        return record["found"]

    def keep(found: dict[str, Any]) -> None:
        write_record(path, {"key": key, "found": found})

    return _kept("the numbers of this trial", path, read, make, keep)


def _kept(what: str, path: Path, read: Callable[[], T], make: Callable[[], T], keep: Callable[[T], None]) -> T:
    try:
        if path.exists():  # which raises OSError in a folder that must not be searched
            return read()
    except (RunError, LookupError, TypeError, OSError) as error:
        problem = getattr(error, "problem", None) or getattr(error, "strerror", None)
        log.warning("%s: %s; computed again", path, problem or "not the entry of this name")
    made = make()
    try:
        keep(made)
    except OSError as error:
        log.warning("%s: %s; %s are not kept", path, error.strerror, what)
    return made
