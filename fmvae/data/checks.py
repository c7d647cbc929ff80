"""What ``ImageData`` takes, brought to tensors, with one line for whatever is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmvae.data.grid import check_factors
from fmvae.errors import ConfigError, DataError

Array = Tensor | np.ndarray
CHANNELS = (1, 3)  # grey and RGB, the formats that figures can show


def check_data(given: Any) -> None:
    """Refuse what is handed to a trainer in place of a dataset, and say how to make one.

    Raises:
        ConfigError: it does not have what an ``ImageData`` offers.
    """
    if not all(hasattr(given, name) for name in ("train", "val", "test", "image_shape", "batch_size", "device")):
        problem = f"a {type(given).__name__} is given, which has no splits for training, validation and testing"
        raise ConfigError("data", problem, "give an ImageData, as ImageData.from_arrays(images, labels) makes one")


def _tensor(subject: str, given: Array) -> Tensor:
    """Return an array as a tensor, in the usual order of memory."""
    try:
        return torch.as_tensor(np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError):
        kind = getattr(given, "dtype", type(given).__name__)
        raise DataError(
            subject, f"{kind} cannot be used as numbers", "give a tensor or array of whole numbers"
        ) from None


def checked_images(name: str, given: Array) -> Tensor:
    """Check a split's images; return them contiguous on the CPU, as another memory layout can change rounding."""
    images = _tensor(f"data ({name} images)", given)
    subject, found = f"data ({name} images)", f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    if images.dtype != torch.uint8:
        raise DataError(subject, f"{found} is not uint8", "give whole numbers from 0 (black) to 255 as uint8")
    if images.ndim != 4:
        raise DataError(subject, f"{found} is not (N, C, H, W)", "give four dimensions, grey images with C = 1")
    if images.shape[1] not in CHANNELS:
        problem = f"{found} has {images.shape[1]} channels"
        raise DataError(subject, problem, "give 1 (grey) or 3 (RGB), in the order (N, C, H, W)")
    if not images.numel():
        raise DataError(subject, f"{found} holds nothing", "give one image at least")
    return images.cpu().contiguous()


def checked_labels(name: str, given: Array | None, num_images: int) -> Tensor:
    """Check a split's labels; return them as int64 on the CPU, or zeros if it has none."""
    if given is None:
        return torch.zeros(num_images, dtype=torch.int64)
    labels = _tensor(f"data ({name} labels)", given)
    subject, found = f"data ({name} labels)", f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(subject, f"{found} is no whole number for each image", "give the classes as int64")
    if labels.shape != (num_images,):
        raise DataError(subject, f"{found} for {num_images} images", "give one label for each image")
    labels = labels.cpu().to(torch.int64)
    if (smallest := int(labels.min())) < 0:
        raise DataError(subject, f"label {smallest} is negative", "count classes from 0")
    return labels


def checked_factors(
    given: Mapping[str, Array] | None, names: tuple[str, ...], sizes: tuple[int, ...], images: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Check the factors of all splits; return them as int64 on the CPU, by split. Empty without factors."""
    if not (given or names or sizes):
        return {}
    if not (given and names and len({*names}) == len(names) == len(sizes)) or given.keys() != images.keys():
        problem = f"factors of {', '.join(given or ()) or 'no split'}, {len(names)} names and {len(sizes)} sizes"
        raise DataError(
            "data (factors)", problem, "give factors of all splits, and each factor its own name and size"
        )
    checked = {}
    for name, part in given.items():
        subject = f"data ({name} factors)"
        factors = _tensor(subject, part)
        check_factors(subject, factors, names, sizes)
        if len(factors) != len(images[name]):
            problem = f"{len(factors)} rows for {len(images[name])} images"
            raise DataError(subject, problem, "give one row for each image")
        checked[name] = factors.cpu().to(torch.int64)
    return checked


def checked_names(
    labels: Mapping[str, Tensor], num_classes: int | None, given: Sequence[str] | None
) -> tuple[str, ...]:
    """Return a name for each class, after a check that every label has one."""
    largest = max(int(part.max()) for part in labels.values())
    if num_classes is None:
        num_classes = largest + 1 if given is None else len(given)
    if largest >= num_classes:
        problem = f"the images have label {largest}, but only {num_classes} classes are configured"
        raise DataError("data.num_classes", problem, f"set data.num_classes={largest + 1}")
    if given is None:
        return tuple(map(str, range(num_classes)))
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise ConfigError("data.class_names", f"{given!r} is no list of texts", "give a text for each class")
    if len(given) != num_classes:
        problem = f"{len(given)} names for {num_classes} classes"
        raise ConfigError("data.class_names", problem, f"give {num_classes}, or null")
    if twice := sorted({name for name in given if list(given).count(name) > 1}):
        raise ConfigError("data.class_names", f"{twice[0]!r} names two classes", "give each class its own name")
    return tuple(given)


def digests_of(images: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of shape and bytes of each split's images and labels, by name."""
    named = {f"{split}-images": part for split, part in images.items()}
    named |= {f"{split}-labels": part for split, part in labels.items()}
    digests = {}
    for name, part in named.items():
        content = hashlib.sha256(f"{list(part.shape)}\n".encode())
        content.update(part.numpy().data)
        digests[name] = content.hexdigest()
    return digests
