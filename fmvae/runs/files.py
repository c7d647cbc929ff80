"""Files that are whole or absent: every write goes through a temporary name, fsync and rename."""

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
    """Make a directory, and those above it, with names that survive a power loss. No-op if it exists."""
    if path.is_dir():
        return
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``; a reader sees the old file or the new one, never a part."""
    make_directory(path.parent)
    # not by the file's name: TensorBoard reads whatever speaks of `tfevents`, half written or not
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
    """Rename a file or directory to ``<name>.old-<n>``, a name that was free; returns it."""
    n = 1
    while (aside := path.with_name(f"{path.name}.old-{n}")).exists():
        n += 1
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def remove_temporaries(directory: Path) -> None:
    """Remove what killed writers left half written. Only the holder of a run may: others could be writing."""
    for path in directory.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def link(existing: Path, path: Path) -> None:
    """Give ``existing`` the second name ``path``, replacing what had it, without a moment of absence."""
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
        temporary.unlink(missing_ok=True)  # rename also leaves it where both already were the same file
    sync_directory(path.parent)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object that carries the digest of its own content, so that damage shows."""
    content = {**record, "content_sha256": digest(record)}
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read what ``write_record`` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    way_out = "run the same command again to write it anew"
    try:
        record = json.loads(path.read_bytes())
        stored = record.pop("content_sha256")
        actual = digest(record)
    except FileNotFoundError:
        raise RunError(path, "there is no such file", way_out) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise RunError(path, f"not a record of ours ({type(error).__name__})", way_out) from None
    if stored != actual:
        raise RunError(path, "its content does not match its digest", way_out)
    return record
