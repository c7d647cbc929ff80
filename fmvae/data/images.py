"""The base class of datasets: three splits of uint8 images with labels and class names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.data.binarize import Binarize, binarized, check_binarize, fixed_draw
from fmvae.data.split import Split
from fmvae.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = Tensor | np.ndarray
SaveFigure = Callable[[str, "Figure"], object]
CHANNELS = (1, 3)  # grey and RGB, the formats that figures can show


class ImageData:
    """Images of one shape in three splits, all with labels or all without.

    Trainers, measures and figures read data through this class only. For your own dataset, write a subclass whose
    constructor takes the keys of its config group ``data``, reads the images, and calls this constructor::

        class Mine(ImageData):
            def __init__(self, path, *, image_shape, num_classes, val_size, batch_size, seed, device="cpu"):
                images, labels = ...  # uint8 (N, C, H, W), whole numbers (N,)
                train, val = hold_out(labels, val_size, seed=seed)
                super().__init__(
                    train=(images[train], labels[train]), val=(images[val], labels[val]), test=...,
                    num_classes=num_classes, batch_size=batch_size, device=device,
                )

    ``fmvae.data.hold_out`` and ``subset`` choose images in the same way as for Fashion-MNIST. Models read the
    image shape and the number of classes from the config (``${data.image_shape}``, ``${data.num_classes}``), so
    the config group must contain these keys too.

    Args:
        train, val, test: images and labels of each split, as tensors or arrays. Images: uint8 (N, C, H, W), 0 is
            black, C is 1 or 3, N >= 1, with the same C, H and W in all splits. Labels: integers (N,) from 0, or
            None in all three splits for data without labels.
        num_classes: labels are in [0, num_classes); None means the length of ``class_names``, or without those the
            largest label plus 1.
        class_names: a name for each class, all different; None means ``0``, ``1``, ...
        sha256: digests of the content by name, recorded with results; None computes them from the splits.
        content: a name that identifies the data, for classifiers that only know certain images; see below.
        batch_size: images per training batch.
        device: where the images are stored.
        binarize: draw black and white images, 0 or 255, in which a pixel of grey value g is white with probability
            g / 255. ``static``: each split once. ``dynamic``: the training images anew for each epoch, the others
            once. None keeps the images as they are. A subclass offers it by passing it on, with ``seed``.
        seed: the run's seed, for the draws of training images. Those of validation and test images are the same
            for all seeds, as runs are compared on them.

    Attributes:
        train, val, test: the splits. For data without labels, all labels are zero. With ``binarize``, these are
            fixed draws, the same on every device; see ``train_of_epoch`` for the images to train on.
        image_shape: (C, H, W).
        num_classes: 0 without labels.
        class_names: by label; None without labels.
        sha256: digests of the content by name, before ``binarize``.
        content: ``fashion-mnist`` for the published files of Fashion-MNIST, else empty; empty with ``binarize``.
        batch_size, device, binarize: as given.

    Raises:
        DataError: images or labels have a wrong type, shape or range, or a split is empty.
        ConfigError: ``batch_size`` < 1, ``binarize`` is unknown, or there is not exactly one name for each class.
    """

    # whether the config identifies the images by digests; if not, checkpoints store the digests of the data
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
        binarize: Binarize | None = None,
        seed: int = 0,
    ):
        check_binarize(binarize)
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

        self.batch_size, self.device = batch_size, torch.device(device)
        self.binarize: Binarize | None = binarize
        self.content = "" if binarize else content
        self.image_shape: tuple[int, ...] = shapes["train"]
        self.class_names = None if without else _names(labels, num_classes, class_names)
        self.num_classes = len(self.class_names or ())
        if without and (num_classes or class_names):
            problem = f"{num_classes or len(class_names or ())} classes, but the data have no labels"
            key = "data.num_classes" if num_classes else "data.class_names"
            raise ConfigError(key, problem, f"give {key}={0 if num_classes else 'null'}, or labels")
        self.sha256 = dict(sha256) if sha256 else _digests(images, {} if without else labels)
        self._seed, self._grey, self._of_epoch = seed, None, None
        if binarize:
            self._grey = images["train"].to(self.device) if binarize == "dynamic" else None
            images = {name: fixed_draw(name, part, seed) for name, part in images.items()}
        self.train, self.val, self.test = (
            Split(name, images[name].to(self.device), labels[name].to(self.device)) for name in given
        )

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.val, self.test

    def train_of_epoch(self, epoch: int) -> Split:
        """Return the training split of an epoch, from 1: ``train``, or its own draw with ``binarize=dynamic``.

        The draw depends on the seed and the epoch only. All epochs are drawn into one buffer, whose address a CUDA
        graph may hold: the split of an epoch is valid until another is asked for.
        """
        if self._grey is None:
            return self.train
        if self._of_epoch is None:
            self._of_epoch = Split(self.train.name, torch.empty_like(self._grey), self.train.labels)
        draws = rng.stream(self._seed, "binarize", epoch, self.device)
        binarized(self._grey, draws, out=self._of_epoch.images)
        return self._of_epoch

    @property
    def labelled(self) -> bool:
        """Whether images have classes. If not, every label is 0 and has no meaning."""
        return self.class_names is not None

    # --- a first look -----------------------------------------------------------------------------------------

    def report_data_stats(self) -> dict[str, dict]:
        """Return per split: the images in total and per class, and mean, standard deviation and range of pixels.

        Without labels, ``images_per_class`` is empty.
        """
        from fmvae.data.eda import split_stats

        return {split.name: split_stats(split, self.num_classes) for split in self.splits}

    def sanity_check(self, save: SaveFigure | None = None) -> Figure:
        """Draw a training batch of 5x5 images with class names; ``save(name, figure)`` is called with it."""
        from fmvae.data.eda import labelled_batch

        images, labels = next(self.train.batches(25, rng.stream(0, "shuffle")))
        names = self.class_names and [self.class_names[label] for label in labels.tolist()]
        figure = labelled_batch(images, names)
        if save:
            save("sanity_check", figure)
        return figure

    def perform_eda(self, save: SaveFigure | None = None) -> dict[str, Figure]:
        """Draw class distribution, pixel intensities, mean intensity per image, and class means, a figure each.

        Without labels, only the two of intensities. ``save(name, figure)`` is called with each, for instance to
        write a PNG and show it in TensorBoard.
        """
        from fmvae.data.eda import eda_figures

        figures = eda_figures(self.splits, self.class_names)
        for name, figure in figures.items():
            if save:
                save(name, figure)
        return figures


def _tensor(subject: str, given: Array) -> Tensor:
    """Return an array as a tensor, in the usual order of memory."""
    try:
        return torch.as_tensor(np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError):
        kind = getattr(given, "dtype", type(given).__name__)
        raise DataError(
            subject, f"{kind} cannot be used as numbers", "give a tensor or array of whole numbers"
        ) from None


def _images(name: str, given: Array) -> Tensor:
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


def _labels(name: str, given: Array | None, num_images: int) -> Tensor:
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


def _names(labels: Mapping[str, Tensor], num_classes: int | None, given: Sequence[str] | None) -> tuple[str, ...]:
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


def _digests(images: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of shape and bytes of each split's images and labels, by name."""
    named = {f"{split}-images": part for split, part in images.items()}
    named |= {f"{split}-labels": part for split, part in labels.items()}
    digests = {}
    for name, part in named.items():
        content = hashlib.sha256(f"{list(part.shape)}\n".encode())
        content.update(part.numpy().data)
        digests[name] = content.hexdigest()
    return digests
