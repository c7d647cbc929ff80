"""Words of docs/results.md, written by hand, with numbers that come from the runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from fmvae.errors import FmvaeError
from fmvae.report.tables import Row

FIELD = re.compile(r"\{([^{}]*?):\s*([^{}:]*)\}")  # {beta, factor, gamma 20: TC}
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def told(path: Path, rows: Mapping[str, Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    """Return the words of a file, with the fields' numbers; a paragraph without all its numbers is left out.

    A field is ``{row: column}``, such as ``{beta, factor, gamma 20: TC}``: the number as in the table.

    Args:
        path: of the words; without such a file there are none.
        rows: by title, those that are not run yet too.
        columns: the text of a number, of a row that has runs; empty if they lack it.

    Raises:
        FmvaeError: there is no such row or column.
    """
    if not path.exists():
        return ""

    def filled(field: re.Match[str]) -> str:
        title, column = field.groups()
        if title not in rows or column not in columns:
            known = "; ".join([*rows, *columns])
            raise FmvaeError(path, f"{field.group()} is no row and column of the tables", f"choose from {known}")
        return columns[column](rows[title]) if rows[title].found else ""

    text = COMMENT.sub("", path.read_text(encoding="utf-8"))
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", text)]
    whole_ones = [p for p in paragraphs if all(filled(field) for field in FIELD.finditer(p))]
    return "\n\n".join(FIELD.sub(filled, paragraph) for paragraph in whole_ones if paragraph)
