"""Images of a .npz or .npy file of the user's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from fmvae.common.text import typed_path
from fmvae.data.binarize import Binarize
from fmvae.data.images import ImageData
from fmvae.data.npy import ArrayFile, sha256_of
from fmvae.data.parts import three_parts
from fmvae.data.pixels import channels_first, count_classes, image_shape_of, one_label_each
from fmvae.data.split import a_tenth
from fmvae.errors import DataError

PARTS = ("x_train", "y_train", "x_test", "y_test")
WHOLE = ("images", "labels")
KEYS = "name the arrays x_train, y_train, x_test, y_test, or images and labels (labels may be left out)"
log = logging.getLogger("fmvae")


class Outline(NamedTuple):
    """What a config needs to know of a file.

    Attributes:
        num_train: of the images, test images excluded if they are arrays of their own.
        own_test: whether test images are arrays of their own.
        num_classes: 0 without labels.
    """

    sha256: str
    image_shape: tuple[int, int, int]
    num_train: int
    own_test: bool
    num_classes: int


class Arrays(ImageData):
    """Images of a .npz or .npy file: uint8, or floats in [0, 1] brought to the nearest of 256 levels.

    A .npz file has ``x_train`` and ``x_test`` with or without ``y_train`` and ``y_test``, or ``images`` with or
    without ``labels``; a .npy file is ``images``. Their shape is (N, H, W), (N, H, W, C) or (N, C, H, W).
    Test images are held out of ``images``, the same for all seeds. Nothing in a file is unpickled.

    A run is named by the SHA-256 of the file. What is null in the config, and follows from the file, is filled in
    while composing (``completed``).

    Args:
        root: the file.
        sha256: of the file; None takes any.
        image_shape: what the config says of the images, for models; checked against the data.
        num_classes: if it is more than the labels show; None means as many as there are. 0 leaves labels out.
        class_names: as for ``ImageData``.
        val_size, num_train, num_test, stratified, seed: as for ``choose``; None for ``val_size`` is a tenth.
        batch_size, device, binarize: as for ``ImageData``.

    Raises:
        DataError: the file is missing, damaged, of another form or content, or too large for this machine.
        ConfigError: a number does not fit.
    """

    named_by_config = True

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        sha256: str | None = None,
        image_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        val_size: int | None = None,
        stratified: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        binarize: Binarize | None = None,
    ):
        path = file_at(root)
        self.root = path
        with _opened(path) as file:
            before = _stamp(path)
            found = sha256_of(file)
            if sha256 is not None and found != sha256.lower():
                problem = f"is not the file that the run was named by (SHA-256 {found[:8]}, not {sha256[:8]})"
                raise DataError(path, problem, "put the file back as it was, or set data.root to where it is")
            content = ArrayFile(path, file)
            names = _names(content)
            labels, test_labels, count = _classes(content, names, num_classes)
            images, *test = (
                channels_first(content.subject(name), content.read_images(name))
                for name in (names.images, names.test_images)
                if name
            )
            if _stamp(path) != before:
                raise DataError(path, "was changed while it was read", "repeat the command")
        parts = three_parts(
            (images, labels),
            (test[0], test_labels) if test else None,
            val_size=val_size,
            num_train=num_train,
            num_test=num_test,
            stratified=stratified,
            seed=seed,
        )
        super().__init__(
            train=parts["train"],
            val=parts["val"],
            test=parts["test"],
            num_classes=count or None,
            class_names=class_names,
            sha256={"file": found},
            batch_size=batch_size,
            device=device,
            binarize=binarize,
            seed=seed,
        )

    @classmethod
    def completed(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        path = file_at(node.get("root"))
        outline = _outline(str(path), _stamp(path), node.get("num_classes"))
        return {"root": str(path), **filled(node, outline)}


def filled(node: Mapping[str, Any], outline: Outline) -> dict[str, Any]:
    """Return values for those keys of the config of one's own images that are null and follow from the files."""
    num = outline.num_train
    values: dict[str, Any] = {
        "sha256": outline.sha256,
        "image_shape": list(outline.image_shape),
        "num_classes": outline.num_classes,
    }
    if not outline.own_test:
        values["num_test"] = a_tenth(num)
        num -= node.get("num_test") or a_tenth(num)
    values["val_size"] = a_tenth(min(num, node.get("num_train") or num))
    return {key: value for key, value in values.items() if node.get(key) is None}


def file_at(root: str | Path | None) -> Path:
    """Return the path of a file that exists.

    Raises:
        DataError: none is named, or there is none.
    """
    if not root:
        raise DataError("data.root", "no file is named", "give data.root=<file.npz or .npy>")
    path = typed_path(str(root)).absolute()
    if not path.exists():
        raise DataError("data.root", f"there is no {str(path)!r}", "give data.root=<file.npz or .npy>")
    if not path.is_file():
        way_out = "give data.root=<file.npz or .npy>; for a folder of images, data=image_folder"
        raise DataError("data.root", f"{str(path)!r} is no file", way_out)
    return path


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "correct data.root") from None


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes if a file is written to."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(64)
def _outline(name: str, stamp: tuple[int, ...], num_classes: int | None) -> Outline:
    """Return a file's outline; a sweep asks for it again for each of its runs."""
    path = Path(name)
    with _opened(path) as file:
        sha256 = sha256_of(file)
        content = ArrayFile(path, file)
        names = _names(content)
        shape = content.images_header(names.images).shape
        image_shape = image_shape_of(content.subject(names.images), shape)
        if names.test_images:
            subject = content.subject(names.test_images)
            theirs = image_shape_of(subject, content.images_header(names.test_images).shape)
            if theirs != image_shape:
                problem = f"its images are {list(theirs)}, and those of {names.images} {list(image_shape)}"
                raise DataError(subject, problem, "give both one (C, H, W)")
        _, _, count = _classes(content, names, num_classes)
    if names.labels and not count and num_classes != 0:
        log.info("%s: all labels are of one class, so the images are taken as images without labels", path)
    return Outline(sha256, image_shape, shape[0], names.test_images is not None, count)


class Names(NamedTuple):
    """The names of the arrays in a file; None for those that are not there."""

    images: str
    labels: str | None = None
    test_images: str | None = None
    test_labels: str | None = None


def _names(content: ArrayFile) -> Names:
    """Return the names of the arrays that a file has.

    Raises:
        DataError: they are not those that ``Arrays`` takes.
    """
    there = {*content.names} & {*PARTS, *WHOLE}
    if {"x_train", "x_test"} <= there <= {*PARTS}:
        labels = sorted(there & {"y_train", "y_test"})
        if len(labels) == 1:
            problem = f"has {labels[0]}, and no labels of the other images"
            raise DataError(content.path, problem, "give both y_train and y_test, or neither")
        return Names(*PARTS) if labels else Names("x_train", test_images="x_test")
    if "images" in there and there <= {*WHOLE}:
        return Names("images", "labels" if "labels" in there else None)
    if "x_train" in there and there <= {*PARTS}:
        way_out = "add x_test, or name the arrays images and labels to have test images held out of them"
        raise DataError(content.path, "has x_train, but no x_test", way_out)
    found = f"has the arrays {', '.join(map(repr, content.names[:8]))}" if content.names else "has no arrays"
    raise DataError(content.path, found, KEYS)


def _classes(
    content: ArrayFile, names: Names, num_classes: int | None
) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Return the labels of both parts and the number of classes; None and 0 without labels.

    Args:
        num_classes: the number that the config states, which may be more than there are; 0 leaves labels out.
    """
    if names.labels is None or num_classes == 0:
        return None, None, 0
    known: list[np.ndarray] = []
    for of, name in ((names.images, names.labels), (names.test_images, names.test_labels)):
        if of and name:
            num, header, subject = content.header(of).shape[0], content.header(name), content.subject(name)
            readable = header.dtype.kind in "ui" and num == header.shape[0] if header.shape else False
            # refused by type and shape, without a look at what it holds
            labels = content.read(name) if readable else np.broadcast_to(np.zeros(1, header.dtype), header.shape)
            known.append(one_label_each(subject, labels, num))
    count = num_classes or count_classes(content.subject(names.labels), np.concatenate(known))
    labels, test_labels = [*known, None][:2]
    return (labels, test_labels, count) if count else (None, None, 0)
