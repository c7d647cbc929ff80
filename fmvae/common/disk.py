"""File-system calls that may be unsupported: which error numbers mean "not supported" and which mean failure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# what network and user-space file systems answer to calls that they do not implement; a failing disk says EIO
NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
RIGHTS_NOT_OFFERED = {*NOT_OFFERED, errno.EPERM}  # from fchmod, on disks without owners
LOCKS_NOT_OFFERED = {
    *NOT_OFFERED,
    errno.EBADF,
    errno.ENOLCK,
}  # from flock; NFS returns EBADF if the file is open for reading only
MOUNTS = Path("/proc/self/mounts")


@contextmanager
def if_offered(refusals: Collection[int] | None = None) -> Iterator[None]:
    """Do without a call that the file system does not implement. Errors of the disk (EIO, ENOSPC) stay errors.

    Args:
        refusals: the error numbers that say so; None for ``NOT_OFFERED``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (NOT_OFFERED if refusals is None else refusals):
            raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name the file in errors of the disk that carry no name: those of reading and writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, ConnectionError):  # a pipe is no file
            error.filename = str(path)
        raise


def sync(descriptor: int) -> None:
    """Wait until a file, or a directory, is on the disk, as far as its file system can tell."""
    with if_offered():
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make renames and new names in ``directory`` survive a power loss, where directories can be synced."""
    if sys.platform == "win32":  # which opens no directories
        return
    with named(directory):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def make_readable(descriptor: int) -> None:
    """Let everyone read a file that was made for its owner alone, where there are such rights."""
    if hasattr(os, "fchmod"):
        with if_offered(RIGHTS_NOT_OFFERED):
            os.fchmod(descriptor, 0o644)


def file_system(path: Path) -> str:
    """The kind of file system that holds ``path``, as ``nfs4``; empty where the machine does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, kind = path.absolute(), ""
    longest = -1
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        mounted = Path(fields[1].replace("\\040", " "))
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:  # of several on a place, the last
            longest, kind = len(mounted.parts), fields[2]
    return kind
