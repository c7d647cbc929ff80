"""Decode image files with Pillow: one frame, 8 bits, grey or RGB, and one line for whatever is something else."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmvae.errors import DataError, FmvaeError

# Pillow tries these only: others run programs (EPS), or are no images of one's own
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MOST_PIXELS = 50_000_000  # of a file; a header costs nothing to write, and its pixels are in memory at once
MOST_BYTES = 2**29  # of a file
ORIENTATION, ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # a tag of cameras, and its values that swap height and width
GREY, COLOUR = ("1", "L"), ("P", "RGB", "YCbCr")
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16 bits a pixel, or 32
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
WAY_OUT = "correct the file, or take it out of the folder"


class Header(NamedTuple):
    """What is known of a file without its pixels. ``size``: height and width, upright."""

    sha256: str
    size: tuple[int, int]
    grey: bool


def read_header(path: Path, name: str) -> Header:
    """Read a file's header and digest.

    Args:
        name: of the file, for messages.

    Raises:
        DataError: it cannot be read, or is no image that can be taken.
    """
    content = _content(path, name)
    with _opened(content, name) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION) in ON_ITS_SIDE:
            width, height = height, width
        grey = image.mode in (*GREY, *DEEP, "LA", "La")
        return Header(sha256(content).hexdigest(), (height, width), grey)


def decode(path: Path, name: str, expected: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """Decode a file to uint8 (C, H, W).

    Another size is brought to ``size``: what is too wide or too high is cut off, and the rest scaled (bicubic).

    Args:
        name: of the file, for messages.
        expected: the SHA-256 that it had.
        size: height and width.
        channels: 1 converts colours to grey, 3 grey to RGB.

    Raises:
        DataError: it cannot be read, was changed, or is damaged.
    """
    from PIL import Image, ImageOps

    content = _content(path, name)
    if sha256(content).hexdigest() != expected:
        raise DataError(name, "was changed while the images were read", "repeat the command")
    with _opened(content, name) as image:
        plain = _plain(ImageOps.exif_transpose(image), name).convert("L" if channels == 1 else "RGB")
        if plain.size != (size[1], size[0]):
            plain = ImageOps.fit(plain, (size[1], size[0]), Image.Resampling.BICUBIC)
        pixels = np.asarray(plain)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _content(path: Path, name: str) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(name, "is no file, or a link that leads to none", WAY_OUT)
        if path.stat().st_size > MOST_BYTES:
            raise DataError(name, f"is larger than {MOST_BYTES // 2**20} MB", WAY_OUT)
        with path.open("rb") as file:
            content = file.read()
    except OSError as error:
        raise DataError(name, f"cannot be read ({error.strerror or error})", WAY_OUT) from None
    if not content:
        raise DataError(name, "the file is empty", WAY_OUT)
    return content


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[Any]:
    """Open an image and check its header; whatever Pillow raises inside becomes one line."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_header(image, name)
            yield image
    except Image.DecompressionBombError as error:
        numbers = re.findall(r"\d+", str(error))
        raise _too_large(name, f"{int(numbers[0]):,} pixels" if numbers else "too many pixels") from None
    except Image.UnidentifiedImageError:
        raise DataError(name, "is no image that can be read", f"give {', '.join(SUFFIXES)} files") from None
    except (FmvaeError, MemoryError):
        raise
    except Exception as error:  # its decoders raise errors of many kinds for damaged files
        problem = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(name, f"is damaged ({problem})", WAY_OUT) from None


def _check_header(image: Any, name: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise _too_large(name, f"{height}x{width} pixels")
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:  # cameras' previews in a JPEG
        raise DataError(name, f"is {image.format} with {frames} frames", "save each frame as a file of its own")
    if image.mode not in (*GREY, *COLOUR, *DEEP, *ALPHA):
        raise DataError(name, f"has pixels of kind {image.mode}", "save it as RGB or grey, with 8 bits")


def _too_large(name: str, what: str) -> DataError:
    return DataError(name, f"{what}, of which {MOST_PIXELS:,} are decoded at most", "give a smaller image")


def _plain(image: Any, name: str) -> Any:
    """Return an image of mode L, P or RGB: without transparency, and with 8 bits."""
    from PIL import Image

    if image.mode in ALPHA or "transparency" in image.info:
        opaque = image.convert("RGBA")
        if np.asarray(opaque.getchannel("A")).min() < 255:
            raise DataError(name, "has transparent pixels", "save it on a background, without an alpha channel")
        return opaque.convert("L" if image.mode in ("L", "LA", "La", "1") else "RGB")
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            found = int(deep.max() if deep.max() > 65535 else deep.min())
            raise DataError(name, f"has a pixel of {found}, beyond 16 bits", "save it with 8 or 16 bits")
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8))  # the nearest of 256 levels
    return image
