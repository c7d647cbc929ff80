"""Load Fashion-MNIST, or other IDX files with the same names and layout, as ``ImageData``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fmvae.data.binarize import Binarize
from fmvae.data.images import ImageData
from fmvae.data.sources import SHA256, load_dataset
from fmvae.data.split import choose
from fmvae.errors import DataError

CONTENT = "fashion-mnist"  # the value of ImageData.content for the published files
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


class FashionMNISTManager(ImageData):
    """Find or download the dataset, verify it, split it, and serve batches.

    Args:
        root: folder with the four IDX files, plain or ``.gz``; None searches the places that
            ``fmvae.data.sources.load_dataset`` lists.
        download: download the files if no local source has them.
        download_to: folder to download into, created if missing; None means ``root``.
        sha256: digests of the decompressed files by name; None means the published ones of Fashion-MNIST.
        image_shape: (C, H, W) that the files must hold.
        num_classes: labels are in [0, num_classes).
        class_names: a name for each class; None means Fashion-MNIST's names if the files are the published
            ones, and ``0``, ``1``, ... for other files.
        val_size: number of training images held out for validation.
        stratified: whether to hold out the same share of each class.
        num_train: use only this many images of the training file (a fixed choice, the same share of each class);
            None uses all.
        num_test: the same for the test file.
        batch_size: images per training batch.
        seed: the run's seed; it determines which images are held out, and the draws of ``binarize``.
        device: where the images are stored.
        binarize: ``static`` or ``dynamic`` draws black and white images, see ``ImageData``; None keeps grey ones.

    Raises:
        DataError: no source has the files, or a file is damaged or has another shape.
        ConfigError: a requested size exceeds the files, ``binarize`` is unknown, or the number of names is not the
            number of classes.
    """

    named_by_config = True
    mirrored = True

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        download: bool = True,
        download_to: str | Path | None = None,
        sha256: Mapping[str, str] | None = None,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        class_names: Sequence[str] | None = None,
        val_size: int = 6000,
        stratified: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        binarize: Binarize | None = None,
    ):
        raw = load_dataset(root, download=download, download_to=download_to, sha256=sha256)
        self.root = raw.root
        published = raw.sha256 == SHA256
        if class_names is None and published and num_classes == len(CLASS_NAMES):
            class_names = CLASS_NAMES

        images, labels = _tensors(raw.train_images, raw.train_labels, image_shape)
        test_images, test_labels = _tensors(raw.test_images, raw.test_labels, image_shape)
        sizes = {"val_size": val_size, "num_train": num_train, "num_test": num_test}
        chosen = choose(labels, test_labels, **sizes, stratified=stratified, seed=seed)
        super().__init__(
            train=(images[chosen.train], labels[chosen.train]),
            val=(images[chosen.val], labels[chosen.val]),
            test=(test_images[chosen.test], test_labels[chosen.test]),
            num_classes=num_classes,
            class_names=class_names,
            sha256=raw.sha256,
            # a subclass may change the images
            content=CONTENT if published and type(self) is FashionMNISTManager else "",
            batch_size=batch_size,
            device=device,
            binarize=binarize,
            seed=seed,
        )


def _tensors(images, labels, image_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    channels, *size = image_shape
    if list(images.shape[1:]) != size or channels != 1:
        found = "x".join(map(str, images.shape[1:]))
        raise DataError(
            "data.image_shape",
            f"the files hold {found} grey images, not {list(image_shape)}",
            "set data.image_shape to what they hold, or data.root to another folder",
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()
