"""Disks that refuse calls, by replacing them: what a process runs first (a prelude of ``tests.faults.warmed``)."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any


def is_directory(descriptor: Any) -> bool:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    return stat.S_ISDIR(os.fstat(number).st_mode)


def refuse(call: str, error: str, of: str = "all") -> None:
    """Let a call fail from now on, as a file system does that does not offer it.

    Args:
        call: ``fsync``, ``fchmod`` or ``flock``.
        error: the name of the errno.
        of: ``all``, or ``directories`` or ``readers`` (descriptors opened for reading) alone.
    """
    import fcntl

    module: Any = fcntl if call == "flock" else os
    real, number = getattr(module, call), getattr(errno, error)

    def meant(descriptor: Any) -> bool:
        if of == "directories":
            return is_directory(descriptor)
        if of == "readers":  # NFS makes record locks of flock's, and an exclusive one needs the right to write
            file = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            return fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        return True

    def refusing(descriptor: Any, *rest: Any) -> Any:
        if meant(descriptor):
            raise OSError(number, os.strerror(number))
        return real(descriptor, *rest)

    setattr(module, call, refusing)


def restless_inodes() -> None:
    """As some network mounts do: a file has another number each time that it is asked for by name."""
    from pathlib import Path

    real, count = Path.stat, iter(range(1, 1 << 30))

    def other(self: Path, **settings: Any) -> os.stat_result:
        found = real(self, **settings)
        return os.stat_result((found[0], found[1] + next(count), *found[2:]))

    Path.stat = other  # type: ignore[method-assign]


def prelude(*refusals: tuple[str, ...]) -> str:
    calls = "".join(f"refuse(*{refusal!r}); " for refusal in refusals)
    return f"from tests.field.refusals import refuse, restless_inodes; {calls}"


NFS = prelude(("flock", "EBADF", "readers"))
NO_LOCKS = prelude(("flock", "ENOSYS"))
HIDDEN = """
import os, signal, sys
del signal.SIGHUP, os.fchmod
"""
