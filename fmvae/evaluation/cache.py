"""A cache on disk of the features of real images, keyed by the content of the images."""

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

FORMAT = 1  # increase it when a code change affects the features
log = logging.getLogger("fmvae")


def cache_key(split: Split, num: int, features: FeatureSet) -> dict[str, Any]:
    """Return everything that the features of the first ``num`` images of a split depend on, as JSON values."""
    images = split.images[:num].cpu().contiguous()
    content = hashlib.sha256(images.numpy().data).hexdigest()
    shape = list(images.shape)
    device = split.images.device.type  # rounding depends on the type of device
    return {"format": FORMAT, "split": split.name, "images_sha256": content, "shape": shape, "device": device} | {
        **features.identity
    }


def real_features(directory: Path | None, split: Split, num: int, features: FeatureSet) -> Features:
    """Return the features of the first ``num`` images of a split, from the cache if it has them.

    A damaged entry is computed again. If the cache cannot be written, a warning is logged.

    Args:
        directory: the folder of the cache; None disables it.
    """
    if directory is None or features.name == "pixels":  # pixels: computing is faster than reading
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
