"""What a power cut may leave of the calls in a journal of ``tests.faults.disk``: only what was synced is certain.

A file's content is certain as of its last fsync, a name as of its directory's. What came after may be there or
not: of each directory's changes any first part, of each file's content the old, the new, or a part of the new.
"""

from __future__ import annotations

import copy
import json
import random
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

# what became of all that was not synced: lost; names kept and contents lost; each by chance
Loss = Literal["all", "contents", "random"]
LOSSES: tuple[Loss, ...] = ("all", "contents", "random")


def read_journal(path: Path) -> list[list[Any]]:
    """The calls, in their order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass
class Inode:
    """A file: its content as it was written, and as of the last fsync."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass
class FileSystem:
    """Names as they are and, by directory, as of its last fsync; a directory is a name without an inode."""

    root: PurePath
    names: dict[PurePath, Inode | None] = field(default_factory=dict)
    synced: dict[PurePath, dict[PurePath, Inode | None]] = field(default_factory=dict)

    def entries(self, directory: PurePath) -> dict[PurePath, Inode | None]:
        return {path: inode for path, inode in self.names.items() if path.parent == directory}

    def apply(self, call: Sequence[Any]) -> None:
        kind, path, *details = call[0], PurePath(call[1]), *call[2:]
        if kind == "mkdir":
            self.names[path] = None
        elif kind == "open":
            inode = self.names.setdefault(path, Inode())
            if inode and details[0]:
                inode.content.clear()
        elif kind in ("write", "truncate"):
            inode = self.names[path]
            assert inode is not None
            if kind == "write":
                data = b64decode(details[1])
                inode.content[details[0] : details[0] + len(data)] = data
            else:
                del inode.content[details[0] :]
        elif kind == "fsync":
            inode = self.names.get(path)
            if inode:
                inode.synced = bytes(inode.content)
            else:
                self.synced[path] = self.entries(path)
        elif kind == "unlink":
            del self.names[path]
        else:
            self.names[PurePath(details[0])] = self.names[path] if kind == "link" else self.names.pop(path)


def after(calls: Sequence[Sequence[Any]], root: Path) -> FileSystem:
    """The file system after these calls."""
    system = FileSystem(PurePath(root), {PurePath(root): None})
    for call in calls:
        system.apply(call)
    return system


def cut(
    calls: Sequence[Sequence[Any]], root: Path, loss: Loss, chance: random.Random
) -> dict[PurePath, bytes | None]:
    """What is left of a folder when the power fails after these calls: contents by path, None for a directory."""
    system = after(calls, root)
    left: dict[PurePath, bytes | None] = {}
    directories = [system.root]
    while directories:
        directory = directories.pop()
        left[directory] = None
        for path, inode in _names(calls, system, directory, loss, chance).items():
            if inode is None:
                directories.append(path)
            else:
                left[path] = _content(inode, loss, chance)
    return left


def _names(
    calls: Sequence[Sequence[Any]], system: FileSystem, directory: PurePath, loss: Loss, chance: random.Random
) -> dict[PurePath, Inode | None]:
    synced, now = system.synced.get(directory, {}), system.entries(directory)
    if loss == "all":
        return synced
    if loss == "contents":
        return now
    # as at some moment since the last fsync
    moments = [i + 1 for i, call in enumerate(calls) if call[0] == "fsync" and PurePath(call[1]) == directory]
    moment = chance.randint(moments[-1] if moments else 0, len(calls))
    then = after(calls[:moment], Path(system.root)).entries(directory)
    # the same files, with what was written to them meanwhile: found by the journal's place, as names change
    return {path: _same(inode, path, now, synced) for path, inode in then.items()}


def _same(inode: Inode | None, path: PurePath, *known: dict[PurePath, Inode | None]) -> Inode | None:
    """The inode as it is now, if the name still means it; else as it was then."""
    for names in known:
        other = names.get(path)
        if inode and other and other.content[: len(inode.content)] == inode.content:
            return other
    return copy.deepcopy(inode)


def _content(inode: Inode, loss: Loss, chance: random.Random) -> bytes:
    if loss != "random" or inode.synced == inode.content:
        return inode.synced
    part = bytes(inode.content[: chance.randint(0, len(inode.content))])
    return chance.choice([inode.synced, bytes(inode.content), part])


def write(left: dict[PurePath, bytes | None], root: Path, folder: Path) -> None:
    """Put what is left of ``root`` into another folder."""
    for path, content in left.items():
        target = folder / path.relative_to(root)
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
