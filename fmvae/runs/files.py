"""Atomic writes: a file is written under a temporary name, synced and renamed, so it is never incomplete."""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmvae.common.digests import digest
from fmvae.common.disk import make_readable, sync, sync_directory
from fmvae.errors import RunError

TEMPORARY = ".tmp"


def make_directory(path: Path) -> None:
    """Make a directory and its parents, and sync their names to survive a power loss. No-op if it exists."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():  # else another process has just made it
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    sync_directory(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one, never a part."""
    make_directory(path.parent)
    # without the file's name: TensorBoard reads any file with `tfevents` in its name, even an incomplete one
    try:
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=TEMPORARY, dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # the name that people know
        raise
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            make_readable(file.fileno())  # mkstemp's 0600 would hide results from the group
            file.write(content)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # the name that people know
        raise
    sync_directory(path.parent)


def move_aside(path: Path) -> Path:
    """Rename a file or directory to the first free name ``<name>.old-<n>``; return the new path."""
    n = 1
    while (aside := path.with_name(f"{path.name}.old-{n}")).exists():
        n += 1
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def remove_temporaries(directory: Path) -> None:
    """Remove temporary files of killed processes. Only the holder of a run may do so: it is the only writer."""
    for path in directory.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def link(existing: Path, path: Path) -> None:
    """Make ``path`` a hard link to ``existing``, or else a copy. An earlier file is replaced atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(existing, temporary)
    except OSError:  # a file system without hard links
        write_bytes(path, existing.read_bytes())
        return
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # rename keeps it if both names already were links to the same file
    sync_directory(path.parent)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object together with the digest of its content, so that damage is detected."""
    content = {**record, "content_sha256": digest(record)}
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object written by ``write_record`` and check its digest.

    Raises:
        RunError: the file is missing or damaged.
    """
    way_out = "repeat the command to write it anew"
    try:
        record = json.loads(path.read_bytes())
        stored = record.pop("content_sha256")
        actual = digest(record)
    except FileNotFoundError:
        raise RunError(path, "there is no such file", way_out) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise RunError(path, f"not a valid record ({type(error).__name__})", way_out) from None
    if stored != actual:
        raise RunError(path, "its content does not match its digest", way_out)
    return record
