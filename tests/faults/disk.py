"""A disk that fails, under a process that does not know: each Python write below a folder is a place to fail at.

``install`` is run in a process before the program (a ``prelude`` of ``tests.faults.warmed``). What it counts are
calls that change the disk: opening to write, write, fsync, replace, link, unlink, mkdir. It can end the process at
the n-th, let it fail once or from then on, or write all of them down, to be replayed by ``tests.faults.power``.
"""

# Path's methods call the functions of os, which are replaced here
# ruff: noqa: PTH100, PTH110, PTH115, PTH118

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import signal
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

# what a full disk refuses; a failing one refuses anything
NEEDS_SPACE = ("open", "write", "fsync", "link", "mkdir")
RENAMES = {"replace": os.replace, "rename": os.rename, "link": os.link}


class Disk:
    """Stands between a process and a folder.

    Args:
        folder: calls on files elsewhere are left alone.
        at: the number of the call to fail, from 1; 0 for none.
        how: ``kill``, ``ENOSPC`` or ``EIO``.
        persistent: whether all calls after it fail, too.
        journal: a file for all calls, or for those that fail if there is a failure to come.
    """

    def __init__(
        self, folder: str, at: int = 0, how: str = "kill", persistent: bool = False, journal: str | None = None
    ):
        self.folder, self.at, self.how, self.persistent = os.path.realpath(folder), at, how, persistent
        self.count = 0
        self.lock = threading.RLock()  # TensorBoard writes in a thread of its own
        self.pid = os.getpid()
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) if journal else None

    def mine(self, file: Any) -> str | None:
        """The path of a file, given by name or descriptor, if it is below the folder."""
        if os.getpid() != self.pid:
            return None
        try:
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)
            parent, name = os.path.split(os.path.abspath(os.fsdecode(path)))
            path = os.path.join(os.path.realpath(parent), name)
        except (OSError, TypeError):
            return None
        return path if path.startswith(self.folder + "/") or path == self.folder else None

    def point(self, kind: str, path: str, *details: Any, data: bytes | None = None) -> None:
        """A call that is about to be made."""
        if self.how == "ENOSPC" and kind not in NEEDS_SPACE:
            return
        self.count += 1
        if self.journal is not None and self.at == 0:
            entry = [kind, path, *details] + ([b64encode(data).decode()] if data is not None else [])
            os.write(self.journal, json.dumps(entry).encode() + b"\n")
        if self.at and (self.count == self.at or (self.persistent and self.count > self.at)):
            if self.journal is not None:
                os.write(self.journal, f"{self.count} {kind} {path}\n".encode())
            if self.how == "kill":
                os.kill(self.pid, signal.SIGKILL)
            number = getattr(errno, self.how)
            raise OSError(number, os.strerror(number), path)


def install(folder: str, **settings: Any) -> Disk:
    """Put a disk under this process, from now on."""
    disk = Disk(folder, **settings)
    real_open, real_os_open, real_fsync, real_mkdir = builtins.open, os.open, os.fsync, os.mkdir

    class Raw(io.FileIO):
        """A file that reports its writes."""

        def write(self, data: Any) -> int:
            path = disk.mine(self.fileno())
            if path is None:
                return super().write(data) or 0
            content = bytes(data)
            with disk.lock:
                place = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
                try:
                    disk.point("write", path, place, data=content)
                except OSError:  # a disk that fills up takes a part
                    super().write(content[: len(content) // 2])
                    raise
                return super().write(content) or 0

        def truncate(self, size: int | None = None) -> int:
            if path := disk.mine(self.fileno()):
                disk.point("truncate", path, self.tell() if size is None else size)
            return super().truncate(size)

    def open_(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        path = disk.mine(file) if set(mode) & set("wax+") else None
        if path is None:
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        with disk.lock:
            if not isinstance(file, int):
                disk.point("open", path, "w" in mode)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    def os_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        mine = disk.mine(path) if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) else None
        with disk.lock:
            if mine:
                disk.point("open", mine, bool(flags & os.O_TRUNC))
            return real_os_open(path, flags, *rest, **named)

    def fsync(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        with disk.lock:
            if path := disk.mine(number):
                disk.point("fsync", path)
            real_fsync(number)

    def mkdir(path: Any, *rest: Any, **named: Any) -> None:
        mine = disk.mine(path)
        with disk.lock:
            if mine and not os.path.exists(mine):
                disk.point("mkdir", mine)
            real_mkdir(path, *rest, **named)

    def two(kind: str, function: Any) -> Any:
        def call(source: Any, target: Any, **named: Any) -> None:
            from_, to = disk.mine(source), disk.mine(target)
            with disk.lock:
                if from_ and to:
                    disk.point(kind, from_, to)
                function(source, target, **named)

        return call

    def one(kind: str, function: Any) -> Any:
        def call(path: Any, **named: Any) -> None:
            mine = disk.mine(path)
            with disk.lock:
                if mine and os.path.lexists(mine):
                    disk.point(kind, mine)
                function(path, **named)

        return call

    # of fewer overloads than what they stand for
    builtins.open = io.open = open_  # type: ignore[assignment]
    os.open, os.fsync, os.mkdir = os_open, fsync, mkdir  # type: ignore[assignment]
    for name, function in RENAMES.items():
        setattr(os, name, two("link" if name == "link" else "replace", function))
    for name in ("unlink", "remove"):
        setattr(os, name, one("unlink", getattr(os, name)))
    return disk


def prelude(folder: Path, **settings: Any) -> str:
    """What a process runs to have such a disk."""
    arguments = "".join(f", {name}={value!r}" for name, value in settings.items())
    return f"from tests.faults.disk import install; install({str(folder)!r}{arguments})"
