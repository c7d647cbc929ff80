"""MNIST, KMNIST, QMNIST and EMNIST: published images, fetched from where torchvision's classes have them."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import torch

from fmvae.data.archives import Published, found_in, verified
from fmvae.data.binarize import Binarize
from fmvae.data.images import ImageData
from fmvae.data.sources import parse_idx
from fmvae.data.split import choose
from fmvae.errors import ConfigError, DataError

# what readers of archives and of pickles raise
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    pickle.UnpicklingError,
)
DIGITS = tuple("0123456789")
# MD5 of the archives, as torchvision states them; a test compares
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
KMNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
    "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
    "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
    "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
}
QMNIST_MD5 = {
    "qmnist-train-images-idx3-ubyte.gz": "ed72d4157d28c017586c42bc6afe6370",
    "qmnist-train-labels-idx2-int.gz": "0058f8dd561b90ffdd0f734c6a30e5e4",
    "qmnist-test-images-idx3-ubyte.gz": "1394631089c404de565df7b7aeaf9412",
    "qmnist-test-labels-idx2-int.gz": "5b5b05890a5e13444e108efe57b788aa",
}
EMNIST_MD5 = {"gzip.zip": "58c8d27c78d21e728a6bc7b3cc06412e"}


class Raw(NamedTuple):
    """Images (N, C, H, W) uint8 and labels (N,) of the training and of the test file."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class NamedData(ImageData):
    """A published dataset of labelled images, in a training and a test part.

    Args:
        root: folder with the archives; None looks beside the folder of Fashion-MNIST.
        download: fetch the archives if they are not there.
        download_to: folder to fetch them into, created if missing; None means ``root``.
        image_shape, num_classes: what the config says of the images, for models; checked against the data.
        class_names: a name for each class; None means those of the dataset.
        val_size, num_train, num_test, stratified, seed: as for ``choose``.
        batch_size, device, binarize: as for ``ImageData``.

    Raises:
        DataError: the archives are not there and cannot be fetched, or one is not the published one.
        ConfigError: a number does not fit.
    """

    named_by_config = True
    torchvision_name: ClassVar[str]
    md5: ClassVar[Mapping[str, str]]

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        download: bool = True,
        download_to: str | Path | None = None,
        image_shape: Sequence[int] = (),
        num_classes: int | None = None,
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
        published = self.published()
        self.root = found_in(published, root, download=download, download_to=download_to)
        try:
            raw = self._read(published, self.root)
        except UNREADABLE as error:
            problem = f"{published.name} cannot be read ({type(error).__name__}: {error})"
            raise DataError(self.root, problem, published.set_root) from None
        sizes = {"val_size": val_size, "num_train": num_train, "num_test": num_test}
        chosen = choose(raw.train_labels, raw.test_labels, **sizes, stratified=stratified, seed=seed)
        names = self.names()

        def part(images: np.ndarray, labels: np.ndarray, index: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
            return images[index.numpy()], labels[index.numpy()]

        super().__init__(
            train=part(raw.train_images, raw.train_labels, chosen.train),
            val=part(raw.train_images, raw.train_labels, chosen.val),
            test=part(raw.test_images, raw.test_labels, chosen.test),
            num_classes=len(names),
            class_names=class_names or names,
            sha256={
                name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
                for name, array in raw._asdict().items()
            },
            batch_size=batch_size,
            device=device,
            binarize=binarize,
            seed=seed,
        )

    @classmethod
    def published(cls) -> Published:
        name = cls.torchvision_name
        layouts = ("", "raw", f"{name}/raw")  # torchvision's, below the dataset's folder and below the user's root
        return Published(name, name.lower(), layouts, cls.md5, cls._urls)

    @classmethod
    def _urls(cls) -> dict[str, list[str]]:
        """Return the addresses of each archive."""
        kind = of_torchvision(cls.torchvision_name)
        return {name: [mirror + name for mirror in kind.mirrors] for name in cls.md5}

    def names(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return DIGITS

    def _read(self, published: Published, root: Path) -> Raw:
        """Read the archives in a folder."""
        train_images, train_labels, test_images, test_labels = (
            _idx(root / name, _unpacked(verified(published, root, name))) for name in self.md5
        )
        return Raw(train_images, train_labels, test_images, test_labels)


def of_torchvision(name: str) -> Any:
    """Return a class of torchvision, which takes seconds to import, and is needed to fetch something only."""
    from torchvision import datasets

    return getattr(datasets, name)


def _unpacked(file: IO[bytes]) -> bytearray:
    with file, gzip.GzipFile(fileobj=file) as content:
        return bytearray(content.read())  # torch warns of arrays that can't be written


def _idx(path: Path, content: bytearray) -> np.ndarray:
    """Parse an IDX file of images (N, 1, H, W), or of labels (N,), by the number of dimensions in its name."""
    if "idx3" in path.name:
        return parse_idx(path, content, 3)[:, None]
    if "idx2-int" in path.name:  # the class and where the digit is from: writer, place, ...
        return parse_idx(path, content, 2, ">i4")[:, 0].astype(np.int64)
    return parse_idx(path, content, 1)


class MNIST(NamedData):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 handwritten digits, grey, 28x28. See ``NamedData``."""

    torchvision_name = "MNIST"
    md5 = MNIST_MD5


class KMNIST(NamedData):
    """Kuzushiji-MNIST (Clanuwat et al. 2018): ten cursive Hiragana, in the form of MNIST. See ``NamedData``."""

    torchvision_name = "KMNIST"
    md5 = KMNIST_MD5

    def names(self) -> tuple[str, ...]:
        return ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


class QMNIST(NamedData):
    """QMNIST (Yadav & Bottou 2019): MNIST with 60,000 test images, of which MNIST has the first 10,000."""

    torchvision_name = "QMNIST"
    md5 = QMNIST_MD5

    @classmethod
    def _urls(cls) -> dict[str, list[str]]:
        resources = of_torchvision("QMNIST").resources
        urls = [url for part in ("train", "test") for url, _ in resources[part]]
        return {url.rpartition("/")[2]: [url] for url in urls}


class EMNIST(NamedData):
    """EMNIST (Cohen et al. 2017): handwritten digits and letters, grey, 28x28, brought upright.

    The published images are transposed.

    Args:
        split: ``balanced``: 47 classes, in which upper and lower case are one class where they look the same;
            112,800 + 18,800 images. ``letters``: 26 classes, 124,800 + 20,800 images.
        arguments: as for ``NamedData``.
    """

    torchvision_name = "EMNIST"
    md5 = EMNIST_MD5
    classes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "balanced": tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        "letters": tuple("abcdefghijklmnopqrstuvwxyz"),
    }

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: str = "balanced",
        download: bool = True,
        download_to: str | Path | None = None,
        image_shape: Sequence[int] = (),
        num_classes: int | None = None,
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
        self.split = _known_split(split)
        super().__init__(
            root,
            download=download,
            download_to=download_to,
            image_shape=image_shape,
            num_classes=num_classes,
            class_names=class_names,
            val_size=val_size,
            stratified=stratified,
            num_train=num_train,
            num_test=num_test,
            batch_size=batch_size,
            seed=seed,
            device=device,
            binarize=binarize,
        )

    @classmethod
    def completed(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        if node.get("num_classes") is not None:
            return {}
        return {"num_classes": len(cls.classes[_known_split(node.get("split", "balanced"))])}

    @classmethod
    def _urls(cls) -> dict[str, list[str]]:
        return {"gzip.zip": [of_torchvision("EMNIST").url]}

    def names(self) -> tuple[str, ...]:
        return self.classes[self.split]

    def _read(self, published: Published, root: Path) -> Raw:
        with verified(published, root, "gzip.zip") as file, zipfile.ZipFile(file) as archive:

            def member(part: str, what: str) -> np.ndarray:
                name = f"gzip/emnist-{self.split}-{part}-{what}-ubyte.gz"
                return _idx(root / name, bytearray(gzip.decompress(archive.read(name))))

            def labels(part: str) -> np.ndarray:
                found = member(part, "labels-idx1")
                return found - found.min()  # letters are counted from 1

            def images(part: str) -> np.ndarray:
                return member(part, "images-idx3").swapaxes(2, 3)

            return Raw(images("train"), labels("train"), images("test"), labels("test"))


def _known_split(split: Any) -> str:
    if split not in EMNIST.classes:
        raise ConfigError("data.split", f"there is no {split!r}", f"give {' or '.join(EMNIST.classes)}")
    return split
