"""File-system calls that may be unsupported: which error numbers mean "not supported" and which mean failure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

# error numbers of network and user-space file systems for calls that they lack; a failing disk returns EIO
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
    """Ignore the error of a call that the file system does not implement. Disk errors (EIO, ENOSPC) are raised.

    Args:
        refusals: the error numbers that mean "not implemented"; None for ``NOT_OFFERED``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (NOT_OFFERED if refusals is None else refusals):
            raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError that has none, as those of reading and writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, ConnectionError):  # which concerns a pipe or socket
            error.filename = str(path)
        raise


def sync(descriptor: int) -> None:
    """Wait until a file or directory is on the disk, if its file system supports fsync."""
    with if_offered():
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make new and changed names in ``directory`` survive a power loss, if the file system supports it."""
    if sys.platform == "win32":  # can't open directories
        return
    with named(directory):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def make_readable(descriptor: int) -> None:
    """Let everyone read a file that only its owner could read, if the file system has such permissions."""
    if hasattr(os, "fchmod"):
        with if_offered(RIGHTS_NOT_OFFERED):
            os.fchmod(descriptor, 0o644)


def file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, such as ``nfs4``; empty if unknown."""
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
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:  # a later mount hides
            longest, kind = len(mounted.parts), fields[2]
    return kind
