"""List the images of a folder, by class and part, and compute the digest of their names and contents."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from fmvae.common.phases import phase
from fmvae.common.text import typed_path
from fmvae.data.decoding import SUFFIXES, Header, read_header
from fmvae.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
Stamp = tuple[str, int, int, int]
BLOCK = 256  # files that are read at a time
PARTS = ("train", "test")
log = logging.getLogger("fmvae")


class Entry(NamedTuple):
    """An image's file: its path below the folder, and its class (0 without classes)."""

    path: str
    label: int


@dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
        root: the folder.
        entries: all images, those for testing last.
        num_train: images that are not in a folder ``test``.
        own_test: whether there is such a folder.
        classes: the names of the classes; empty without.
    """

    root: Path
    entries: tuple[Entry, ...]
    num_train: int
    own_test: bool
    classes: tuple[str, ...]

    def name(self, entry: Entry) -> str:
        """Return how messages name a file."""
        return readable(self.root / entry.path)

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """What changes if a file is written to, or another takes its name."""
        return tuple(_stamp(self.root / entry.path, entry.path) for entry in self.entries)


@dataclass(frozen=True)
class Headers:
    """Of all images of a listing, in its order. ``sha256`` is that of all names and contents."""

    sha256: str
    of: tuple[Header, ...]


def readable(path: object) -> str:
    """Return a path as text that any stream can show."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def folder_at(root: str | Path | None) -> Path:
    """Return the path of a folder that exists.

    Raises:
        DataError: none is named, or there is none.
    """
    if not root:
        raise DataError("data.root", "no folder is named", "give data.root=<folder of images>")
    path = typed_path(str(root)).absolute()
    if not path.exists():
        raise DataError("data.root", f"there is no {str(path)!r}", "give data.root=<folder of images>")
    if not path.is_dir():
        way_out = "give data.root=<folder of images>; for a .npz or .npy file, data=arrays"
        raise DataError("data.root", f"{str(path)!r} is no folder", way_out)
    return path


def listed(root: Path) -> Listing:
    """List the images of a folder.

    Hidden files are passed over, and with a line in the log other files that are no images.

    Raises:
        DataError: there are none, a class or a part is empty or missing, or the folder cannot be read.
    """
    folders, _ = _children(root)
    parts = [name for name in PARTS if name in folders]
    if parts == ["test"]:
        raise DataError(root, "has a folder test, and no folder train", "name the other folder train")
    if parts == ["train"]:
        way_out = "add test, or give data.root=<that folder> to have test images held out"
        raise DataError(root, "has a folder train, and no folder test", way_out)
    passed: list[str] = [readable(root / name) for name in sorted({*folders} - {*PARTS})] if parts else []
    by_part = [_by_class(root / part, passed) for part in parts] or [_by_class(root, passed)]
    if len({tuple(part) for part in by_part}) > 1:
        differ = sorted({*by_part[0]} ^ {*by_part[1]})
        problem = (
            f"class {differ[0]!r} is not in both train and test" if all(differ) else "only one part has classes"
        )
        raise DataError(root, problem, "give both parts the same class folders")
    names = [name for name in by_part[0] if name]
    if len(names) == 1:
        line = "%s: one class folder (%s), so the images are taken as images without labels"
        log.info(line, readable(root), names[0])
    if passed:
        log.info("%s: passed over %d that are no images, as %s", readable(root), len(passed), passed[0])
    entries = [
        tuple(
            Entry(os.path.relpath(path, root), label)
            for label, (_, paths) in enumerate(part.items())
            for path in paths
        )
        for part in by_part
    ]
    classes = tuple(names) if len(names) > 1 else ()
    return Listing(root, tuple(entry for part in entries for entry in part), len(entries[0]), bool(parts), classes)


def _by_class(folder: Path, passed: list[str]) -> dict[str, list[str]]:
    """Return the images of a folder by the names of its class folders; under an empty name without those."""
    folders, files = _children(folder)
    images = _images(folder, files, passed)
    if not folders:
        if not images:
            found = f"no images among {len(files)} files, as {readable(files[0])}" if files else "no images"
            raise DataError(folder, f"has {found}", f"give a folder of {', '.join(SUFFIXES)} files")
        return {"": images}
    if images:
        problem = f"{readable(Path(images[0]).name)} lies beside the class folder {readable(folders[0])!r}"
        raise DataError(readable(folder), problem, "move all images into class folders, or out of them")
    found = {}
    for name in folders:
        below = folder / name
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(readable(below), "its name, a class, is no UTF-8", "rename the folder") from None
        _check_loop(below, folder)
        found[name] = sorted(_walk(below, passed), key=os.fsencode)
        if not found[name]:
            raise DataError(below, "has no images, and each folder is a class", "remove it, or add images")
    return found


def _children(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of a folder's folders, and of its other entries, without hidden ones."""
    try:
        names = sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")), key=os.fsencode)
    except OSError as error:
        raise _unreadable(folder, error) from None
    folders = [name for name in names if (folder / name).is_dir()]
    return folders, [name for name in names if name not in {*folders}]


def _walk(folder: Path, passed: list[str]) -> Iterator[str]:
    """Yield the images below a folder; links to folders are not followed, as they may lead in circles."""

    def fail(error: OSError) -> None:
        raise _unreadable(folder, error)

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        passed += [readable(Path(parent, name)) for name in folders if Path(parent, name).is_symlink()]
        yield from _images(Path(parent), [name for name in files if not name.startswith(".")], passed)


def _images(folder: Path, files: Sequence[str], passed: list[str]) -> list[str]:
    images = [name for name in files if name.lower().endswith(SUFFIXES)]
    passed += [readable(folder / name) for name in files if name not in {*images}]
    return [str(folder / name) for name in images]


def _check_loop(folder: Path, within: Path) -> None:
    """Refuse a class folder that is a link to a folder which holds it."""
    try:
        loop = folder.is_symlink() and within.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        loop = True
    if loop:
        raise DataError(readable(folder), "is a link that leads in a circle", "remove the link")


def _unreadable(folder: Path, error: OSError) -> DataError:
    where = readable(error.filename or folder)
    return DataError(where, f"cannot be read ({error.strerror or error})", "correct data.root, or its permissions")


def _stamp(path: Path, name: str) -> Stamp:
    try:
        found = path.stat()
    except (OSError, RuntimeError):  # is refused when it is read
        return name, 0, 0, 0
    return name, found.st_ino, found.st_size, found.st_mtime_ns


# --- contents ---------------------------------------------------------------------------------------------------


def headers(listing: Listing) -> Headers:
    """Read all files: their headers, and the digest of names and contents. Once in a process, while none changes.

    Raises:
        DataError: a file cannot be read, or is no image that can be taken.
    """
    return _headers(listing, listing.stamps)


@lru_cache(8)
def _headers(listing: Listing, stamps: tuple[Stamp, ...]) -> Headers:
    content = hashlib.sha256()
    found: list[Header] = []
    with phase("reading the images", len(listing.entries), minor=True) as shown:
        for block in in_threads(listing.entries, lambda e: read_header(listing.root / e.path, listing.name(e))):
            found += block
            shown.advance(len(block))
    for entry, header in zip(listing.entries, found, strict=True):
        content.update(os.fsencode(Path(entry.path).as_posix()) + b"\0" + header.sha256.encode() + b"\n")
    return Headers(content.hexdigest(), tuple(found))


def in_threads(items: Sequence[T], work: Callable[[T], R]) -> Iterator[list[R]]:
    """Yield the results of ``work`` in order, block by block; Pillow decodes without Python's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(8, cores)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of images that are refused for their size anyway
        for start in range(0, len(items), BLOCK):
            yield list(pool.map(work, items[start : start + BLOCK]))
