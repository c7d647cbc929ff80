"""A small stand-in for Fashion-MNIST: IDX files of ten classes that a VAE, or a classifier, can learn."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

NUM_CLASSES, SIZE = 10, 28


def draw(num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(num, 28, 28)`` and labels ``(num,)``, uint8: a blurred bar, at an angle of its class.

    Within a class the bar's place, width and brightness vary, so that there is something to encode. Classes
    are of equal size, to within one.
    """
    labels = rng.permutation(np.arange(num) % NUM_CLASSES)
    angle = (labels * np.pi / NUM_CLASSES)[:, None, None]
    x0, y0 = rng.uniform(-3, 3, (2, num, 1, 1))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2  # (28, 28) each
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)  # (num, 28, 28)
    across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
    width, brightness = rng.uniform(1.5, 2.5, (num, 1, 1)), rng.uniform(150, 240, (num, 1, 1))
    bar = brightness * np.exp(-((across / width) ** 2) - (along / 9) ** 4)
    noisy = bar + rng.uniform(0, 15, bar.shape) * (bar > 5)  # the ground stays black, as Fashion-MNIST's does
    return noisy.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def pack(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx_dataset(
    directory: str | Path, n_train: int, n_test: int, gz: bool = False, seed: int = 0
) -> dict[str, str]:
    """Write the four files into ``directory`` (made if need be); returns name -> SHA-256, decompressed."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    hashes = {}
    for split, num in (("train", n_train), ("t10k", n_test)):
        images, labels = draw(num, rng)
        for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            content = pack(array)
            hashes[name] = hashlib.sha256(content).hexdigest()
            path = directory / (f"{name}.gz" if gz else name)
            path.write_bytes(gzip.compress(content, mtime=0) if gz else content)
    return hashes
