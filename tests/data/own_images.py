"""Images of a user's own, as arrays and as files, for tests."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def drawn(num: int = 120, *shape: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (num, *shape) uint8, 12x12 unless told: a square at any place and brightness, sized by its class."""
    rng = np.random.default_rng(seed)
    height, width, *channels = shape or (12, 12)
    images = np.zeros((num, height, width, *channels), np.uint8)
    labels = np.arange(num) % classes
    for image, label in zip(images, labels, strict=True):
        side = 2 + label
        y, x = rng.integers(0, (height - side, width - side))
        image[y : y + side, x : x + side] = rng.integers(100, 256, tuple(channels) or None)
    return images, labels


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def folder(
    root: Path, num: int = 12, classes: tuple[str, ...] = ("cat", "dog"), mode: str = "L", side: int = 8
) -> Path:
    """A folder of ``num`` images in each class folder; in none if ``classes`` is empty."""
    rng = np.random.default_rng(0)
    for name in classes or ("",):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(num):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{k:03}.png")
    return root


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def huge_png(side: int) -> bytes:
    """A PNG of some bytes whose header announces ``side`` x ``side`` pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
