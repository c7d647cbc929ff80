"""Exclusive file locks. The operating system releases a lock when the process that holds it ends.

The library ``filelock`` provides the locks: ``flock``, or ``LockFileEx`` on Windows. A Python without both (no
``fcntl``, as in a browser) uses a file that names the holding process; another process takes it over when that
process has ended.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns if there is no fcntl
    import filelock

from fmvae.common.disk import LOCKS_NOT_OFFERED, file_system, named
from fmvae.errors import LockError

POLL = 0.05  # seconds between attempts
NATIVE = filelock.has_fcntl or sys.platform == "win32"


class Lock:
    """An exclusive lock on a file, held by this process.

    Args:
        path: of the lock file. It stays when the lock is released.
        way_out: the way out in the error for a file system without locks.
        make: whether to create the file if it does not exist.
    """

    def __init__(self, path: Path, way_out: str, make: bool = True):
        self.path, self.way_out = path, way_out
        self.mode = "a+" if make else "r+"
        self._file: IO[str] | None = None
        self._soft: filelock.SoftFileLock | None = None
        self._note = ""

    def take(self, patience: float = 0.0) -> bool:
        """Try to take the lock for ``patience`` seconds; return whether it succeeded.

        Raises:
            LockError: the file system does not support locks.
        """
        until = time.monotonic() + patience
        with named(self.path):
            self._file = self._opened()
            try:
                while not self._attempt():
                    if time.monotonic() > until:
                        self.release()
                        return False
                    time.sleep(POLL)
            except BaseException:
                self.release()
                raise
        return True

    def _opened(self) -> IO[str]:
        try:
            return open(self.path, self.mode, encoding="utf-8")
        except OSError as error:  # another user's file: reading suffices to ask
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not self.path.exists():
                raise
            return open(self.path, encoding="utf-8")

    def _attempt(self) -> bool:
        assert self._file
        if not NATIVE:
            self._soft = filelock.SoftFileLock(f"{self.path}.process", timeout=0)
            try:
                self._soft.acquire()
            except filelock.Timeout:
                return False
            return True
        try:
            return filelock.lock_descriptor(self._file.fileno(), blocking=False)
        except OSError as error:
            if error.errno not in LOCKS_NOT_OFFERED:  # the disk fails
                raise
            kind = file_system(self.path)
            where = f"its file system ({kind})" if kind else "its file system"
            problem = f"{where} does not support locks on this file ({error.strerror or error})"
            raise LockError(self.path, problem, self.way_out) from None

    def release(self) -> None:
        """Release the lock, by closing its file."""
        if self._soft and self._soft.is_locked:
            self._soft.release()
        if self._file:
            with suppress(OSError):
                self._file.close()
        self._file = self._soft = None

    def note(self, text: str) -> None:
        """Write into the lock file who holds it, for messages and readers."""
        assert self._file
        self._note = text
        with named(self.path):
            if self._file.writable():
                self._file.truncate(0)
                self._file.write(text)
                self._file.flush()

    def is_there(self) -> bool:
        """Return whether the path still leads to the file that this process has locked.

        Some network mounts give a file a new inode number at each call. Then the text written by ``note`` decides.
        """
        assert self._file
        try:
            if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                return True
            return bool(self._note) and self.path.read_text(encoding="utf-8") == self._note
        except FileNotFoundError:
            return False
        except PermissionError:  # Windows: a locked file can't be read or removed
            return True


@contextmanager
def held(path: Path, way_out: str, patience: float = float("inf")) -> Iterator[Lock | None]:
    """Hold the lock on a file inside; yield None if it could not be taken within ``patience`` seconds.

    Raises:
        LockError: the file system does not support locks.
    """
    lock = Lock(path, way_out)
    if not lock.take(patience):
        yield None
        return
    try:
        yield lock
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock on a file. The call takes the lock for a moment.

    Raises:
        LockError: the file system does not support locks, or only for users who may write to the file.
    """
    lock = Lock(path, "run this command on the machine that trains", make=False)
    try:
        had = lock.take()
    except FileNotFoundError:
        return False
    lock.release()
    return not had
