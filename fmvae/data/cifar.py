"""CIFAR-10, whose published files are pickles: they are read by an unpickler that knows arrays of numbers only."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fmvae.data.archives import Published, verified
from fmvae.data.named import NamedData, Raw, of_torchvision

BASE = "cifar-10-batches-py"  # folder in the archive


class CIFAR10(NamedData):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of ten classes, RGB, 32x32. See ``NamedData``."""

    torchvision_name = "CIFAR10"
    md5: ClassVar[Mapping[str, str]] = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
    mirrored = True
    files: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{k}" for k in range(1, 6))

    @classmethod
    def _urls(cls) -> dict[str, list[str]]:
        return {name: [of_torchvision("CIFAR10").url] for name in cls.md5}

    def names(self) -> tuple[str, ...]:
        return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def _read(self, published: Published, root: Path) -> Raw:
        (name,) = self.md5
        with verified(published, root, name) as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            wanted = {f"{BASE}/{batch}": batch for batch in (*self.files, "test_batch")}
            batches = {
                wanted[member.name]: _batch(content.read())
                for member in archive
                if member.name in wanted and (content := archive.extractfile(member))
            }
        images, labels = zip(*(batches[name] for name in self.files), strict=True)
        return Raw(np.concatenate(images), np.concatenate(labels), *batches["test_batch"])


class _Plain(pickle.Unpickler):
    """Unpickles arrays of numbers, and refuses everything else: nothing in a file is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is no array of numbers")
        return _ALLOWED[module, name]


def _empty_array(kind: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return the array that a pickle then fills, of no other class than NumPy's."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"{kind} is no array of numbers")
    return np.ndarray(shape, np.dtype("b") if dtype in (b"b", "b") else dtype)


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,  # of NumPy 1, as CIFAR-10's files have it
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),  # bytes in an old protocol
}


def _batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 3, 32, 32) and labels (N,) of one file of CIFAR-10."""
    batch = _Plain(io.BytesIO(content), encoding="latin1").load()
    return np.asarray(batch["data"]).reshape(-1, 3, 32, 32), np.asarray(batch["labels"])
