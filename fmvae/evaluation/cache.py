"""Features of real images, kept on disk under the content they were made from."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from fmvae.common.digests import digest
from fmvae.data import Split
from fmvae.errors import RunError
from fmvae.evaluation.features import Features, FeatureSet, real_images
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint

FORMAT = 1  # to be raised when the code changes what features are
log = logging.getLogger("fmvae")


def cache_key(split: Split, num: int, features: FeatureSet) -> dict[str, Any]:
    """Whatever the features of the first ``num`` images of a split depend on."""
    images = split.images[:num].cpu().contiguous()
    content = hashlib.sha256(images.numpy().data).hexdigest()
    shape = list(images.shape)
    device = split.images.device.type  # another kind of machine rounds in another way
    return {"format": FORMAT, "split": split.name, "images_sha256": content, "shape": shape, "device": device} | {
        **features.identity
    }


def real_features(directory: Path | None, split: Split, num: int, features: FeatureSet) -> Features:
    """Features of the first ``num`` images of a split, from the cache if it has them.

    A damaged entry is computed again; a cache that can't be written to is done without.

    Args:
        directory: of the cache; None keeps nothing.
    """
    if directory is None or features.name == "pixels":  # quicker made than read
        return features(real_images(split, num), f"{split.name} images", num)
    key = cache_key(split, num, features)
    path = directory / f"{features.name}-{split.name}-{digest(key)[:16]}.safetensors"
    if path.exists():
        try:
            entry = load_checkpoint(path)
            if entry.meta["key"] != key:
                raise LookupError
            return Features(entry.tensors["features"].numpy(), entry.tensors["logits"].numpy())
        except (RunError, LookupError, TypeError, OSError) as error:
            problem = getattr(error, "problem", None) or getattr(error, "strerror", None)
            log.warning("%s: %s; computed again", path, problem or "not the entry of this name")
    made = features(real_images(split, num), f"{split.name} images", num)
    assert made.logits is not None
    tensors = {"features": torch.from_numpy(made.features), "logits": torch.from_numpy(made.logits)}
    try:
        save_checkpoint(path, tensors, {"key": key})
    except OSError as error:
        log.warning("%s: %s; features of real images are not kept", path, error.strerror)
    return made
