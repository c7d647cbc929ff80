"""Two tiers: ``make test`` leaves out what is marked slow, ``make test-rest`` runs that alone.

``@pytest.mark.slow`` is for a further trial of a promise that a quick test tries too. ``@pytest.mark.one_in(n)``
is for a test with many rows: of every n in the order of collection the first is quick and the others are slow.

Which promise is tried where is a table in CONTRIBUTING.md. ``python -m tests.tiers`` counts the tests and writes
their numbers into it; ``tests/test_tiers.py`` checks that they are right, and that each promise has a quick test.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- promises: the numbers are written by python -m tests.tiers -->", "<!-- end of promises -->"
ASKED = "FMVAE_COUNTS"  # the file that a collection is to write its counts to

Counts = dict[str, tuple[int, int]]  # by a test function's id: its quick tests, and all of them


def put_into_tiers(items: Iterable[pytest.Item]) -> Counts:
    """Mark as slow what ``one_in`` leaves out; returns the counts of all tests."""
    position: Counter[str] = Counter()
    counts: Counts = {}
    for item in items:
        name = item.nodeid.partition("[")[0]
        share = item.get_closest_marker("one_in")
        if share and position[name] % share.args[0]:
            item.add_marker("slow")
        position[name] += 1
        quick, every = counts.get(name, (0, 0))
        counts[name] = quick + (item.get_closest_marker("slow") is None), every + 1
    return counts


def collected() -> Counts:
    """The counts of the whole suite, collected in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, ASKED: str(file)}, check=True, stdout=subprocess.DEVNULL
        )
        return {name: (quick, every) for name, (quick, every) in json.loads(file.read_text()).items()}


class Row(NamedTuple):
    """A promise, the tests that try it, as patterns of their ids, and how many it has in either tier."""

    promise: str
    patterns: tuple[str, ...]
    quick: int
    every: int


def rows(text: str) -> list[Row]:
    """The rows of the table of promises in ``text``."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    found = re.findall(r"^\| (.+?) \| (`.+?) \| +(\d+) \| +(\d+) \|$", table, re.MULTILINE)
    return [Row(name, tuple(re.findall("`(.+?)`", where)), int(a), int(b)) for name, where, a, b in found]


def tests_of(patterns: Iterable[str], counts: Mapping[str, tuple[int, int]]) -> list[str]:
    """The test functions that fit one of the patterns: a file or folder below tests/, or ``file::test_*``."""

    def fits(name: str, pattern: str) -> bool:
        return fnmatchcase(name, f"tests/{pattern}" if "::" in pattern else f"tests/{pattern}*")

    return [name for name in counts if any(fits(name, pattern) for pattern in patterns)]


def counted(row: Row, counts: Counts) -> Row:
    """The row with the numbers of tests that there are."""
    found = [counts[name] for name in tests_of(row.patterns, counts)]
    return row._replace(quick=sum(quick for quick, _ in found), every=sum(every for _, every in found))


def needed() -> list[str]:
    """The libraries without which files of tests are skipped before their tests are collected."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return sorted(
        {name for text in texts for name in re.findall(r'^(?:\w+ = )?pytest\.importorskip\("(\w+)', text, re.M)}
    )


def problems(text: str, counts: Counts) -> Iterator[str]:
    """What is wrong with the table in ``text``, given the tests that there are."""
    for row in rows(text):
        for pattern in row.patterns:
            if not tests_of([pattern], counts):
                yield f"{row.promise}: there is no test {pattern}"
        right = counted(row, counts)
        if not right.quick:
            yield f"{row.promise}: no test of it is quick"
        if right != row:
            yield f"{row.promise}: {right.quick} of {right.every} tests are quick; run python -m tests.tiers"


def promised(text: str) -> list[str]:
    """The promises of docs/reliability.md: the items of each section that begin in bold, or the section itself."""
    found = []
    for section in re.split(r"^## ", text.partition("## What these promises do not cover")[0], flags=re.M)[1:]:
        items = re.findall(r"^- \*\*(.+?)\*\*", section, re.MULTILINE)
        found += items or [section.partition("\n")[0]]
    return [name.rstrip(".") for name in found]


def main() -> None:
    """Write the numbers into the table."""
    counts, text = collected(), PAGE.read_text(encoding="utf-8")
    for row in rows(text):
        right = counted(row, counts)
        where = ", ".join(f"`{pattern}`" for pattern in row.patterns)
        old = f"| {row.promise} | {where} | {row.quick} | {row.every} |"
        assert old in text, f"one space between its words: {old}"
        text = text.replace(old, f"| {row.promise} | {where} | {right.quick} | {right.every} |")
    PAGE.write_text(text, encoding="utf-8")
    wrong = list(problems(text, counts))
    print("\n".join(wrong) or f"{len(rows(text))} promises, each with a quick test")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
