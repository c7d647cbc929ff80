"""Read the arrays of .npy and .npz files block by block, in bounded memory; nothing in them is ever unpickled."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fmvae.data.pixels import BLOCK, as_bytes, channels_axis, checked_kind
from fmvae.errors import DataError

CHUNK = 2**20
WAY_OUT = "set data.root to a file that numpy.save, savez or savez_compressed wrote"
# what readers of zip files and of NumPy's headers raise
UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, SyntaxError)


class Header(NamedTuple):
    """Of an array in a file. ``fortran``: the first axis runs fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def size(self) -> int:
        return prod(self.shape)


def most_bytes() -> int:
    """Return how many bytes of images are read at most: a third of this machine's memory, as splits are copies."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    except (ValueError, OSError, AttributeError):  # Windows
        return 2**34


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file from its beginning."""
    content = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(CHUNK):
        content.update(chunk)
    return content.hexdigest()


class ArrayFile:
    """The arrays of an open .npz file, or the one of a .npy file under the name ``images``.

    Attributes:
        names: of the arrays.

    Raises:
        DataError: the file is of neither form, or damaged.
    """

    def __init__(self, path: Path, file: IO[bytes]):
        self.path, self.file = path, file
        self._zip: zipfile.ZipFile | None = None
        file.seek(0)
        start = file.read(6)
        if not start:
            raise DataError(path, "the file is empty", WAY_OUT)
        if start == b"\x93NUMPY":
            self.names = ["images"]
        elif start[:2] == b"PK":
            try:
                self._zip = zipfile.ZipFile(file)
            except UNREADABLE as error:
                raise DataError(path, f"is damaged or cut off ({error})", WAY_OUT) from None
            self.names = [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]
        else:
            raise DataError(path, "is neither a .npz nor a .npy file", WAY_OUT)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], Header]]:
        """Open an array behind its header."""
        subject = self.subject(name)
        try:
            if self._zip is None:
                self.file.seek(0)
                yield self.file, _header(self.file)
            else:
                with self._zip.open(f"{name}.npy") as member:
                    yield member, _header(member)
        except UNREADABLE as error:
            problem = str(error.args[0] if error.args else type(error).__name__).partition("\n")[0]
            raise DataError(subject, f"is damaged or cannot be read ({problem})", WAY_OUT) from None

    def subject(self, name: str) -> str:
        """Return how messages name an array."""
        return f"{self.path} ({name})" if self._zip else str(self.path)

    def header(self, name: str) -> Header:
        """Return the header of an array, after a check that it can be read into memory without unpickling."""
        with self._opened(name) as (_, header):
            pass
        subject, sides = self.subject(name), "x".join(map(str, header.shape))
        if header.dtype.hasobject:
            checked_kind(subject, header.dtype)
        if any(side < 0 for side in header.shape):
            raise DataError(subject, f"is damaged (shape {sides})", WAY_OUT)
        if (need := header.size * (1 if header.dtype.kind in "bf" else header.dtype.itemsize)) > most_bytes():
            problem = f"{sides} numbers are {need / 1e9:,.1f} GB, more than a third of this machine's memory"
            raise DataError(subject, problem, "give fewer or smaller images")
        return header

    def read(self, name: str) -> np.ndarray:
        """Read an array of whole numbers as it is."""
        header = self.header(name)
        return self._filled(name, header, np.empty(header.size, header.dtype), lambda part: part)

    def read_images(self, name: str) -> np.ndarray:
        """Read an array of images as uint8, in the shape that it has."""
        header, subject = self.images_header(name), self.subject(name)
        flat = np.empty(header.size, np.uint8)
        return self._filled(name, header, flat, lambda part: as_bytes(subject, part))

    def images_header(self, name: str) -> Header:
        """Return the header of an array of images, after a check of their form."""
        header = self.header(name)
        checked_kind(self.subject(name), header.dtype)
        channels_axis(self.subject(name), header.shape)
        return header

    def _filled(self, name: str, header: Header, flat: np.ndarray, convert: Any) -> np.ndarray:
        with self._opened(name) as (stream, _):
            for start in range(0, len(flat), BLOCK):
                num = min(BLOCK, len(flat) - start)
                content = stream.read(num * header.dtype.itemsize)
                if len(content) < num * header.dtype.itemsize:
                    raise ValueError("it ends before all numbers that its header announces")
                flat[start : start + num] = convert(np.frombuffer(content, header.dtype))
            if stream.read(1):  # also has the checksum of a zip file's member verified
                raise ValueError("it holds more than its header announces")
        return flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)


def _header(file: IO[bytes]) -> Header:
    """Read the header of an array. It is parsed as a literal, not run; ValueError for what is none."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format, as of arrays with named fields")
    shape, fortran, dtype = read(file)
    return Header(tuple(shape), dtype, bool(fortran))
