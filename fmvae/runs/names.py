"""Short names of runs: ``last``, or the beginning of a run's name, in place of the path of its directory."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fmvae.common.text import typed_path
from fmvae.config.project import CHECKOUT
from fmvae.errors import ConfigError
from fmvae.runs.directory import RunDirectory

LAST = "last"
OUTPUTS = (CHECKOUT or Path()) / "outputs"  # without a checkout, in the working directory
MOST = 6  # names in a message
CLOSE = 0.75  # of difflib's ratio: from here on two names are similar


def run_path(text: str, output_root: str | Path | None = None) -> Path:
    """Return the path that a run or a folder of runs is meant by; unchanged if nothing is known by this name.

    What exists under this path is taken first. Then come the directories in the folder of runs, ``last`` (the
    run that was written to most recently), and the only run whose name, with or without that of its sweep
    (``quick/base-b1``), begins with ``text``.

    Args:
        text: as typed; ``~`` is expanded.
        output_root: the folder of runs and sweeps. By default ``outputs/`` of the project, and the one in the
            working directory.

    Raises:
        ConfigError: several runs have names that begin so, or a similar name exists.
    """
    path = typed_path(text)
    if not text.strip() or _exists(path) or path.is_absolute() or path.parts[:1] in ((), ("..",)):
        return path
    roots = roots_of(output_root)
    for root in roots:
        if _exists(root / path):
            return root / path
    named = names(roots)
    if text == LAST and named:
        return max(named.values(), key=_written)
    meant = path.as_posix()
    if found := [name for name in named if name.startswith(meant) or name.rpartition("/")[2].startswith(meant)]:
        if len(found) == 1:
            return named[found[0]]
        raise ConfigError("run", f"{text!r} is the beginning of {_listed(found)}", "give more of the name")
    if similar := _similar(meant, [*named, *_sweeps(named)]):
        raise ConfigError("run", f"{text!r}: no such directory, nor a run", f"did you mean {_listed(similar)}?")
    return path


def run_paths(given: Any, output_root: str | Path | None = None) -> Any:
    """Return the path, or the list of paths, that the value of ``run=`` means; nothing stays nothing."""
    if not isinstance(given, list):
        return str(run_path(str(given), output_root)) if given else given
    return [str(run_path(str(one), output_root)) if one else one for one in given]


def roots_of(output_root: str | Path | None = None) -> list[Path]:
    """Return the folders in which short names are looked up."""
    root = typed_path(str(output_root)) if output_root else OUTPUTS
    return [root, Path("outputs")] if root == OUTPUTS and CHECKOUT not in (None, Path.cwd()) else [root]


def names(roots: Sequence[Path]) -> dict[str, Path]:
    """Return the directories of all runs by name, ``<sweep>/<run>`` for those in sweeps, sorted."""
    found: dict[str, Path] = {}
    for root in roots:
        for file in (*root.glob("*/config.yaml"), *root.glob("*/*/config.yaml")):
            if RunDirectory(file.parent).has_id and ".old-" not in file.parent.name:
                found.setdefault(file.parent.relative_to(root).as_posix(), file.parent)
    return dict(sorted(found.items()))


def completions(begun: str, output_root: str | Path | None = None) -> list[str]:
    """Return what the value of ``run=`` may be if it begins so: existing directories, names, sweeps, ``last``."""
    named = names(roots_of(output_root))
    *before, part = begun.split(",")  # run=a,b
    heads = "".join(f"{one}," for one in before)
    known = [*named, *(name.rpartition("/")[2] for name in named), *_sweeps(named), *([LAST] if named else [])]
    found = {name for name in known if name.startswith(part)}
    if "/" in part:
        folder, _, start = part.rpartition("/")
        found |= {f"{folder}/{name}" for name in _folders(typed_path(folder or "/")) if name.startswith(start)}
    return [f"{heads}{name}" for name in sorted(found)]


def _exists(path: Path) -> bool:
    with suppress(OSError, ValueError):  # too long a name, or no name at all
        return path.exists()
    return False


def _folders(path: Path) -> Iterator[str]:
    with suppress(OSError, ValueError):
        yield from (entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _written(directory: Path) -> float:
    """Return when a run was last written to: its state, its history or its numbers (seconds)."""
    run = RunDirectory(directory)
    times = [0.0]
    for file in (run.config, run.status, run.metrics, run.results):
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times)


def _sweeps(named: dict[str, Path]) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for name in named if "/" in name))


def _similar(text: str, known: Sequence[str]) -> list[str]:
    """Return the most similar names, the best first; a name counts by its beginning, as texts are short."""

    def likeness(name: str) -> float:
        tails = {name, name.rpartition("/")[2]}
        beginnings = {tail[:length] for tail in tails for length in range(len(text) - 1, len(text) + 2)} | tails
        return max(difflib.SequenceMatcher(None, text, other).ratio() for other in beginnings)

    ranked = sorted(((likeness(name), name) for name in known), key=lambda pair: (-pair[0], pair[1]))
    return [name for ratio, name in ranked if ratio >= CLOSE and ratio >= ranked[0][0] - 0.1]


def _listed(found: Sequence[str]) -> str:
    rest = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + rest
