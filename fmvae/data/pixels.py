"""Bring arrays of a user's own images to uint8 (N, C, H, W), with one line for whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmvae.errors import DataError

COLOURS = (1, 3)  # channels: grey and RGB
BLOCK = 2**22  # numbers that are converted at a time


def checked_kind(subject: str, dtype: np.dtype) -> None:
    """Refuse arrays that hold no numbers; those of Python objects above all, which would have to be unpickled."""
    if dtype.hasobject:
        problem = "an array of Python objects, which would have to be unpickled, and that may run code of others"
        raise DataError(subject, problem, "save it as uint8, or as floats in [0, 1]")
    if dtype.kind not in "buif":
        raise DataError(subject, f"an array of {dtype}, which is no number", "give uint8, or floats in [0, 1]")


def channels_axis(subject: str, shape: Sequence[int]) -> int | None:
    """Return the axis of the channels in images of this shape: 1 or 3; None for grey images (N, H, W).

    Raises:
        DataError: these are no images.
    """
    found, ways = "x".join(map(str, shape)) or "one number", "(N, H, W), (N, H, W, C) or (N, C, H, W)"
    if len(shape) not in (3, 4):
        hint = ", as images.reshape(-1, 28, 28)" if len(shape) == 2 else ""
        raise DataError(subject, f"an array of {found}", f"give images {ways}{hint}")
    if not all(side >= 1 for side in shape):
        raise DataError(subject, f"an array of {found} holds nothing", "give one image at least")
    if len(shape) == 3:
        return None
    axes = [axis for axis in (1, 3) if shape[axis] in COLOURS]
    if len(axes) == 1:
        return axes[0]
    problem = f"an array of {found}, of which no axis has 1 or 3 channels"
    if axes:
        problem = f"an array of {found}, in which either axis may be that of the channels"
    elif {shape[1], shape[3]} & {2, 4}:
        problem = f"an array of {found}: 1 channel (grey) or 3 (RGB) are known, no others"
    raise DataError(subject, problem, f"give {ways} with C = 1 or 3")


def image_shape_of(subject: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (C, H, W) of images of this shape."""
    axis = channels_axis(subject, shape)
    if axis is None:
        return 1, shape[1], shape[2]
    return (shape[1], shape[2], shape[3]) if axis == 1 else (shape[3], shape[1], shape[2])


def channels_first(subject: str, images: np.ndarray) -> np.ndarray:
    """Return a view (N, C, H, W) of images."""
    axis = channels_axis(subject, images.shape)
    return images[:, None] if axis is None else images if axis == 1 else np.moveaxis(images, 3, 1)


def as_bytes(subject: str, numbers: np.ndarray) -> np.ndarray:
    """Convert numbers of any shape to uint8: floats in [0, 1] become the nearest of 256 levels, True becomes 255.

    Raises:
        DataError: one is out of range or no number.
    """
    if numbers.dtype == np.uint8:
        return numbers
    if numbers.dtype == np.bool_:
        return numbers.astype(np.uint8) * np.uint8(255)
    if numbers.dtype.kind == "f":
        if not np.isfinite(numbers).all():
            wrong = numbers[~np.isfinite(numbers)][0]
            raise DataError(subject, f"{numbers.dtype} with {wrong}", "replace it, as by numpy.nan_to_num")
        low, high = float(numbers.min()), float(numbers.max())
        if low < 0 or high > 1:
            problem = f"{numbers.dtype} with {high if high > 1 else low:g}, outside of [0, 1]"
            hint = "divide by 255, or give uint8" if low >= 0 and high <= 255 else "bring it to [0, 1]"
            raise DataError(subject, problem, hint)
        return np.rint(numbers.astype(np.float64) * 255).astype(np.uint8)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 255:
        problem = f"{numbers.dtype} with {high if high > 255 else low}, outside of 0 to 255"
        raise DataError(subject, problem, "give uint8, or floats in [0, 1]")
    return numbers.astype(np.uint8)


def converted(subject: str, images: np.ndarray) -> np.ndarray:
    """Return images of any known layout and type as uint8 (N, C, H, W), converted block by block."""
    checked_kind(subject, images.dtype)
    first = channels_first(subject, images)
    out = np.empty(first.shape, np.uint8)
    step = max(1, BLOCK // max(1, first[0].size))
    for start in range(0, len(first), step):
        out[start : start + step] = as_bytes(subject, first[start : start + step])
    return out


def from_memory(subject: str, images: Any, labels: Any = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images (N, C, H, W) uint8 and labels (N,) int64 of arrays or tensors.

    Raises:
        DataError: they are none, or cannot be used.
    """
    given = converted(subject, _array(subject, images))
    of_labels = f"labels of {subject}"
    return given, None if labels is None else one_label_each(of_labels, _array(of_labels, labels), len(given))


def _array(subject: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"{type(given).__name__} is no array ({str(error).partition(chr(10))[0]})"
        raise DataError(subject, problem, "give a NumPy array or a tensor") from None
    return array


def one_label_each(subject: str, labels: np.ndarray, num_images: int) -> np.ndarray:
    """Return labels (N,) int64, after a check that they are whole numbers from 0, one for each image.

    Raises:
        DataError: they are not.
    """
    found = f"{labels.dtype} {'x'.join(map(str, labels.shape)) or 'one number'}"
    if labels.dtype.hasobject or labels.dtype.kind not in "ui":
        hint = "numpy.unique(labels, return_inverse=True)[1]"
        raise DataError(
            subject, f"{found}, which are no whole numbers", f"give the classes as int64, as by {hint}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = ", as labels.argmax(1) of one-hot rows" if labels.ndim == 2 else ""
        raise DataError(subject, f"{found} for {num_images} images", f"give one label for each image{hint}")
    if len(labels) != num_images:
        raise DataError(subject, f"{len(labels)} labels for {num_images} images", "give one label for each image")
    if (low := int(labels.min())) < 0:
        raise DataError(subject, f"label {low} is negative", "count classes from 0")
    return labels.astype(np.int64)


def count_classes(subject: str, labels: np.ndarray) -> int:
    """Return the number of classes 0, 1, ... of labels; 0 if all are of one class, which tells nothing.

    Raises:
        DataError: no image is of one of them.
    """
    there, high = np.unique(labels), int(labels.max())
    if len(there) == 1:
        return 0
    if len(there) <= high:
        absent = next(label for label, known in enumerate(there.tolist()) if label != known)
        problem = f"labels up to {high}, but no image of class {absent}"
        way_out = "count classes from 0 without gaps, as by numpy.unique(labels, return_inverse=True)[1]"
        raise DataError(subject, problem, f"{way_out}, or give data.num_classes={high + 1}")
    return high + 1
