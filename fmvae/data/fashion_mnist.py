"""The dataset as training sees it: three splits of uint8 images on the device, and batches of floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmvae import rng
from fmvae.data.sources import load_dataset
from fmvae.data.split import Split
from fmvae.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SaveFigure = Callable[[str, "Figure"], object]


def _evenly(order: Tensor, labels: Tensor, num: int) -> Tensor:
    """``num`` of the indices in ``order``, drawn evenly over the classes, exactly, whatever their sizes.

    Sorted by class, every (len / num)-th index is taken: each class gets its share to within one.
    """
    by_class = order[labels[order].argsort(stable=True)]
    return by_class[torch.arange(num) * len(order) // num]


class FashionMNISTManager:
    """Finds (or fetches) the dataset, verifies it, splits it, and hands out batches.

    Args:
        root: folder of the four IDX files, plain or ``.gz``; None looks where ``fmvae.data.sources`` says.
        download: fetch the files if no local source has them.
        download_to: folder to fetch them into, made if need be; None means ``root``.
        sha256: digests of the decompressed files by name; None means those published for Fashion-MNIST.
        image_shape: (C, H, W) that the files must hold.
        num_classes: labels are in [0, num_classes).
        val_size: number of training images set aside for validation.
        stratified: whether the validation images are the same share of each class.
        num_train: keep this many images of the training file (fixed, the same share of each class); or None.
        num_test: likewise of the test file.
        batch_size: images per training batch.
        seed: the run's seed; it fixes which images are set aside.
        device: where the images are kept.

    Raises:
        DataError: no source has the files, or one is damaged or of another shape.
        ConfigError: a size that the files cannot give.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        download: bool = True,
        download_to: str | Path | None = None,
        sha256: Mapping[str, str] | None = None,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        val_size: int = 6000,
        stratified: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        raw = load_dataset(root, download=download, download_to=download_to, sha256=sha256)
        self.root, self.sha256 = raw.root, dict(raw.sha256)
        self.image_shape, self.num_classes = tuple(image_shape), num_classes
        self.class_names = CLASS_NAMES if num_classes == len(CLASS_NAMES) else tuple(map(str, range(num_classes)))
        self.batch_size, self.device = batch_size, torch.device(device)

        images, labels = self._tensors(raw.train_images, raw.train_labels)
        kept = self._subset(labels, num_train, "data.num_train")
        train, val = self._split(kept, labels, val_size, stratified, seed)
        self.train = self._place("train", images, labels, train)
        self.val = self._place("val", images, labels, val)
        images, labels = self._tensors(raw.test_images, raw.test_labels)
        self.test = self._place("test", images, labels, self._subset(labels, num_test, "data.num_test"))

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        return self.train, self.val, self.test

    def _tensors(self, images, labels) -> tuple[Tensor, Tensor]:
        channels, *size = self.image_shape
        if list(images.shape[1:]) != size or channels != 1:
            found = "x".join(map(str, images.shape[1:]))
            raise DataError(
                "data.image_shape",
                f"the files hold {found} grey images, not {list(self.image_shape)}",
                "set data.image_shape to what they hold, or data.root to another folder",
            )
        largest = int(labels.max(initial=0))
        if largest >= self.num_classes:
            raise DataError(
                "data.num_classes",
                f"the files hold label {largest}, but only {self.num_classes} classes are configured",
                f"set data.num_classes={largest + 1}",
            )
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()

    @staticmethod
    def _subset(labels: Tensor, num: int | None, key: str) -> Tensor:
        everything = torch.arange(len(labels))
        if num is None:
            return everything
        if not 1 <= num <= len(labels):
            raise ConfigError(key, f"{num} images asked of a file of {len(labels)}", f"give 1 to {len(labels)}")
        return _evenly(everything, labels, num).sort().values

    @staticmethod
    def _split(kept: Tensor, labels: Tensor, val_size: int, stratified: bool, seed: int) -> tuple[Tensor, Tensor]:
        if not 1 <= val_size < len(kept):
            raise ConfigError(
                "data.val_size",
                f"{val_size} of {len(kept)} training images asked for validation",
                f"give 1 to {len(kept) - 1}",
            )
        shuffled = kept[torch.randperm(len(kept), generator=rng.stream(seed, "split"))]
        val = _evenly(shuffled, labels, val_size) if stratified else shuffled[:val_size]
        train = kept[~torch.isin(kept, val)]
        return train, val.sort().values

    def _place(self, name: str, images: Tensor, labels: Tensor, index: Tensor) -> Split:
        return Split(name, images[index].to(self.device), labels[index].to(self.device))

    def report_data_stats(self) -> dict[str, dict]:
        """Per split: number of images, of each class, and the pixels' mean, standard deviation and range."""
        from fmvae.data.eda import split_stats

        return {split.name: split_stats(split, self.num_classes) for split in self.splits}

    def sanity_check(self, save: SaveFigure | None = None) -> Figure:
        """A labelled 5x5 batch, as training sees it; ``save(name, figure)`` is called with it."""
        from fmvae.data.eda import labelled_batch

        images, labels = next(self.train.batches(25, rng.stream(0, "shuffle")))
        figure = labelled_batch(images, [self.class_names[label] for label in labels.tolist()])
        if save:
            save("sanity_check", figure)
        return figure

    def perform_eda(self, save: SaveFigure | None = None) -> dict[str, Figure]:
        """Class distribution, pixel intensities, mean intensity per image and class means, a figure each.

        ``save(name, figure)`` is called with each, for instance to write a PNG and show it in TensorBoard.
        """
        from fmvae.data.eda import eda_figures

        figures = eda_figures(self.splits, self.class_names)
        for name, figure in figures.items():
            if save:
                save(name, figure)
        return figures
