"""All images of a grid in one file of the user's cache: made once, verified by SHA-256, read by memory mapping.

Processes and checkouts may share the folder. One process makes a table under a lock, into a temporary file; the
others wait and then find it. The record beside it is written last, so a table without a record does not count.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmvae.common import locks
from fmvae.common.digests import digest
from fmvae.common.disk import make_readable, sync, sync_directory
from fmvae.common.streams import new_bar
from fmvae.common.text import typed_path
from fmvae.config.project import user_cache
from fmvae.data.grid import Grid
from fmvae.errors import DataError, RunError
from fmvae.runs.files import TEMPORARY, make_directory, read_record, write_record

FORMAT = 1
CHUNK = 2**24  # bytes hashed at a time
WAY_OUT = "give data.cache=<folder> on a disk that can be written and has room"
log = logging.getLogger("fmvae")
_verified: set[tuple[object, ...]] = set()  # tables that this process has hashed


@dataclass(frozen=True)
class Source:
    """The images of a grid, to be made or read one block after another.

    Attributes:
        image_shape: (C, H, W).
        blocks: yields uint8 images (n, C, H, W), in the grid's order; their numbers add up to the grid's length.
        black_and_white: the pixels are 0 and 255 only, and are stored as bits.
    """

    grid: Grid
    image_shape: tuple[int, ...]
    blocks: Iterator[np.ndarray]
    black_and_white: bool = False


@dataclass(frozen=True)
class Table:
    """A table on disk. ``rows`` (N, bytes) uint8 is mapped, not read; ``sha256`` is that of its content."""

    grid: Grid
    image_shape: tuple[int, ...]
    rows: np.ndarray
    black_and_white: bool
    sha256: str

    def images(self, index: Tensor) -> Tensor:
        """Read the images (n, C, H, W) uint8 of combinations (n,) of the grid, on the CPU."""
        order = index.cpu().argsort()
        rows = torch.from_numpy(self.rows[index.cpu()[order].numpy()])  # read in the order of the file
        rows = rows[order.argsort()]
        if self.black_and_white:
            bits = np.unpackbits(rows.numpy(), axis=1, count=prod(self.image_shape))
            rows = torch.from_numpy(bits).mul_(255)
        return rows.reshape(-1, *self.image_shape)


def open_table(
    folder: str | Path | None, name: str, definition: Mapping[str, Any], make: Callable[[], Source]
) -> Table:
    """Return a table from the cache; make it first if it is missing or damaged.

    Args:
        folder: where tables are kept; None or empty for the user's cache.
        name: the beginning of the file's name.
        definition: all that the images depend on, as JSON values.
        make: gives the images, if they are needed.

    Raises:
        DataError: the table cannot be kept in the folder.
    """
    key = {"format": FORMAT, "name": name, **definition}
    home = typed_path(str(folder)).absolute() if folder else user_cache() / "factors"
    path = home / f"{name}-{digest(key)[:16]}.npy"
    if table := _read(path, key):
        return table
    try:
        make_directory(home)
        with locks.held(path.with_suffix(".lock"), WAY_OUT):
            if table := _read(path, key):  # another process has made it meanwhile
                return table
            _make(path, key, make())
    except OSError as error:
        problem = f"the images of {name} cannot be kept there ({error.strerror or error})"
        raise DataError(home, problem, WAY_OUT) from None
    if table := _read(path, key):
        return table
    raise DataError(path, "does not hold what was just written to it", WAY_OUT)


def _read(path: Path, key: Mapping[str, Any]) -> Table | None:
    """Map a table and verify it; None if there is none, or (after a warning) if it is damaged."""
    record_path = path.with_suffix(".json")
    if not (path.exists() and record_path.exists()):
        return None
    try:
        record = read_record(record_path)
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        grid = Grid(tuple(record["names"]), tuple(record["sizes"]))
        shape, bits = tuple(record["image_shape"]), record["black_and_white"]
        wanted = len(grid), _row_bytes(shape, bits)
        if record["key"] != key or rows.dtype != np.uint8 or rows.shape != wanted:
            raise ValueError("not the table of this name")
        stat = path.stat()
        seen = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, record["sha256"])
        if seen not in _verified:
            if _sha256(rows) != record["sha256"]:
                raise ValueError("its content does not match its digest")
            _verified.add(seen)
    except (RunError, OSError, ValueError, LookupError, TypeError, EOFError) as error:
        log.warning("%s: %s; made again", path, getattr(error, "problem", None) or error)
        return None
    return Table(grid, shape, rows, bits, record["sha256"])


def _make(path: Path, key: Mapping[str, Any], source: Source) -> None:
    """Write a table, then its record. The caller holds the lock, so a temporary file is a killed process's."""
    num, num_bytes = len(source.grid), _row_bytes(source.image_shape, source.black_and_white)
    log.info(
        "making the images of %s, once: %s of them (%.1f GB), into %s",
        key["name"],
        f"{num:,}",
        num * num_bytes / 1e9,
        path,
    )
    content, count = hashlib.sha256(), 0
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with temporary.open("wb") as file, new_bar(total=num, desc=key["name"], unit="image") as bar:
            header = {"descr": "|u1", "fortran_order": False, "shape": (num, num_bytes)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in source.blocks:
                rows = block.reshape(len(block), -1)
                rows = np.packbits(rows > 0, axis=1) if source.black_and_white else np.ascontiguousarray(rows)
                file.write(rows.data)
                content.update(rows.data)
                count += len(rows)
                bar.update(len(rows))
            assert count == num
            make_readable(file.fileno())
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    grid = {"names": source.grid.names, "sizes": source.grid.sizes, "image_shape": source.image_shape}
    plain = {name: list(value) for name, value in grid.items()}
    bits = source.black_and_white
    write_record(
        path.with_suffix(".json"), {"key": key, **plain, "black_and_white": bits, "sha256": content.hexdigest()}
    )


def _row_bytes(image_shape: tuple[int, ...], black_and_white: bool) -> int:
    return -(-prod(image_shape) // 8) if black_and_white else prod(image_shape)


def _sha256(rows: np.ndarray) -> str:
    content, step = hashlib.sha256(), max(1, CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        content.update(np.ascontiguousarray(rows[start : start + step]).data)
    return content.hexdigest()
