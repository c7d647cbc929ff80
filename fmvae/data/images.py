"""What every dataset offers to training, measures and pictures: three splits of uint8 images, and their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.data.split import Split
from fmvae.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = Tensor | np.ndarray
SaveFigure = Callable[[str, "Figure"], object]
CHANNELS = (1, 3)  # grey and RGB: what pictures can show


class ImageData:
    """Images of one shape in three splits, with a class each or without labels.

    The only view of data that trainers, measures and pictures have. A dataset of one's own is a subclass whose
    constructor takes the keys of its config group ``data``, reads the images, and gives them to this one::

        class Mine(ImageData):
            def __init__(self, root, *, image_shape, num_classes, val_size, batch_size, seed, device="cpu"):
                images, labels = ...  # uint8 (N, C, H, W), whole numbers (N,)
                train, val = hold_out(labels, val_size, seed=seed)
                super().__init__(
                    train=(images[train], labels[train]), val=(images[val], labels[val]), test=...,
                    num_classes=num_classes, batch_size=batch_size, device=device,
                )

    ``fmvae.data.hold_out`` and ``subset`` choose images as those of Fashion-MNIST are chosen. Models take their
    shape and number of classes from the config (``${data.image_shape}``, ``${data.num_classes}``), so the group
    holds these keys too.

    Args:
        train, val, test: images and labels of each split, as tensors or arrays: uint8 (N, C, H, W) with 0 black,
            C 1 or 3, N >= 1, the same C, H and W in all; whole numbers (N,) from 0. Data without labels have None
            in their place, in all three.
        num_classes: labels are in [0, num_classes); None means as many as ``class_names``, or else as labels name.
        class_names: a text for each class, all different; None means ``0``, ``1``, ...
        sha256: digests of the content by name, that results are kept under; None computes them from the splits.
        content: what the data are known as, where a model that was trained on them has to know; see below.
        batch_size: images per training batch.
        device: where the images are kept.

    Attributes:
        train, val, test: the splits. Without labels, theirs are zeros.
        image_shape: (C, H, W).
        num_classes: 0 without labels.
        class_names: by label; None without labels.
        sha256: digests of the content by name.
        content: ``fashion-mnist`` if these are its published files, else empty.
        batch_size, device: as given.

    Raises:
        DataError: images or labels are of another type, shape or range, or a split is empty.
        ConfigError: ``batch_size`` < 1, or the names are not one for each class.
    """

    # whether the config says by digests what the images are; if not, checkpoints say what they were trained on
    named_by_config: ClassVar[bool] = False

    def __init__(
        self,
        *,
        train: tuple[Array, Array | None],
        val: tuple[Array, Array | None],
        test: tuple[Array, Array | None],
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        sha256: Mapping[str, str] | None = None,
        content: str = "",
        batch_size: int = 128,
        device: torch.device | str = "cpu",
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError("data.batch_size", f"{batch_size!r} images per batch", "give a whole number >= 1")
        given = {"train": train, "val": val, "test": test}
        images = {name: _images(name, part[0]) for name, part in given.items()}
        shapes = {name: tuple(part.shape[1:]) for name, part in images.items()}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise DataError("data", f"the splits' images differ in shape: {told}", "give all one (C, H, W)")
        without = [name for name, part in given.items() if part[1] is None]
        if without and len(without) < len(given):
            problem = f"the {' and '.join(without)} split has no labels, but another has"
            raise DataError("data", problem, "give labels for all splits, or for none")
        labels = {name: _labels(name, part[1], len(images[name])) for name, part in given.items()}

        self.batch_size, self.device, self.content = batch_size, torch.device(device), content
        self.image_shape: tuple[int, ...] = shapes["train"]
        self.class_names = None if without else _names(labels, num_classes, class_names)
        self.num_classes = len(self.class_names or ())
        if without and (num_classes or class_names):
            problem = f"{num_classes or len(class_names or ())} classes, but the data have no labels"
            key = "data.num_classes" if num_classes else "data.class_names"
            raise ConfigError(key, problem, f"give {key}={0 if num_classes else 'null'}, or labels")
        self.sha256 = dict(sha256) if sha256 else _digests(images, {} if without else labels)
        self.train, self.val, self.test = (
            Split(name, images[name].to(self.device), labels[name].to(self.device)) for name in given
        )

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.val, self.test

    @property
    def labelled(self) -> bool:
        """Whether images have classes. Without, every label is 0 and means nothing."""
        return self.class_names is not None

    # --- a first look -----------------------------------------------------------------------------------------

    def report_data_stats(self) -> dict[str, dict]:
        """Per split: number of images, of each class, and the pixels' mean, standard deviation and range.

        Without labels, ``images_per_class`` is empty.
        """
        from fmvae.data.eda import split_stats

        return {split.name: split_stats(split, self.num_classes) for split in self.splits}

    def sanity_check(self, save: SaveFigure | None = None) -> Figure:
        """A 5x5 batch with its class names, as training sees it; ``save(name, figure)`` is called with it."""
        from fmvae.data.eda import labelled_batch

        images, labels = next(self.train.batches(25, rng.stream(0, "shuffle")))
        names = self.class_names and [self.class_names[label] for label in labels.tolist()]
        figure = labelled_batch(images, names)
        if save:
            save("sanity_check", figure)
        return figure

    def perform_eda(self, save: SaveFigure | None = None) -> dict[str, Figure]:
        """Class distribution, pixel intensities, mean intensity per image and class means, a figure each.

        Without labels those of pixels alone. ``save(name, figure)`` is called with each, for instance to write a
        PNG and show it in TensorBoard.
        """
        from fmvae.data.eda import eda_figures

        figures = eda_figures(self.splits, self.class_names)
        for name, figure in figures.items():
            if save:
                save(name, figure)
        return figures


def _images(name: str, given: Array) -> Tensor:
    """The images of a split on the CPU, in the usual order of memory: another may give other bits."""
    images = torch.as_tensor(given)
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


def _labels(name: str, given: Array | None, num_images: int) -> Tensor:
    """The labels of a split as int64 on the CPU; zeros if it has none."""
    if given is None:
        return torch.zeros(num_images, dtype=torch.int64)
    labels = torch.as_tensor(given)
    subject, found = f"data ({name} labels)", f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(subject, f"{found} is no whole number for each image", "give the classes as int64")
    if labels.shape != (num_images,):
        raise DataError(subject, f"{found} for {num_images} images", "give one label for each image")
    labels = labels.cpu().to(torch.int64)
    if (smallest := int(labels.min())) < 0:
        raise DataError(subject, f"label {smallest} is negative", "count classes from 0")
    return labels


def _names(labels: Mapping[str, Tensor], num_classes: int | None, given: Sequence[str] | None) -> tuple[str, ...]:
    """A name for each class, after a look at whether every label has one."""
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


def _digests(images: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of the shape and the bytes of each split's images and labels, by name."""
    named = {f"{split}-images": part for split, part in images.items()}
    named |= {f"{split}-labels": part for split, part in labels.items()}
    digests = {}
    for name, part in named.items():
        content = hashlib.sha256(f"{list(part.shape)}\n".encode())
        content.update(part.numpy().data)
        digests[name] = content.hexdigest()
    return digests
