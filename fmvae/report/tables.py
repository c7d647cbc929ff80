"""Markdown tables of runs. A row is a config; its cells are means over the seeds of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fmvae.runs.directory import RunDirectory


class Found(NamedTuple):
    """A complete run, the command that trains it, and its results."""

    command: str
    run: RunDirectory
    results: dict[str, Any]

    def at(self, path: str | Sequence[str]) -> Any:
        """Return the value at ``path`` in the results, ``a/b`` or ``("a", "b")``; None if there is none."""
        node: Any = self.results
        for name in path.split("/") if isinstance(path, str) else path:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node


class Row(NamedTuple):
    """A config on the page: its title, the command that trains it, and its complete runs by seed."""

    title: str
    command: str
    found: tuple[Found, ...]

    @property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.found[0].run.config.read_text(encoding="utf-8"))

    @property
    def link(self) -> str:
        return self.linked("results/")

    def linked(self, prefix: str) -> str:
        """Return the title as a link to the numbers of the first run; its copies are at ``prefix``."""
        return f"[{self.title}]({prefix}{self.found[0].run.path.name}/results.json)" if self.found else self.title

    def values(self, path: str | Sequence[str]) -> list[float]:
        """Return the number at ``path`` of each run that has it."""
        return [value for one in self.found if (value := one.at(path)) is not None]

    def cell(
        self, path: str | Sequence[str], digits: int = 2, *, scale: float = 1, error: str | None = None
    ) -> str:
        """Return mean ± standard deviation over seeds as text; empty if no run has the number.

        With one seed, it is the number ± its standard error, the number at ``error``. If not all runs of the row
        have the number, the text gives how many do.
        """
        values = [scale * value for value in self.values(path)]
        if not values:
            return ""
        one = len(self.found) == 1
        spread = [statistics.stdev(values)] if len(values) > 1 else self.values(error) if error and one else []
        text = " ± ".join(number(value, digits) for value in (statistics.fmean(values), *spread))
        return text if len(values) == len(self.found) else f"{text} (n = {len(values)})"

    def share(self, path: str | Sequence[str], digits: int = 2) -> str:
        """Return ``cell`` in per cent."""
        value, n, few = self.cell(path, digits, scale=100).partition(" (n = ")
        return value and f"{value} %{n}{few}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table_and_missing(header: Sequence[str], body: Sequence[Sequence[str]], rows: Sequence[Row]) -> str:
    """Return a Markdown table, and below it a line with the rows that have no run yet, and their commands."""
    missing = [f"{row.title} (`{row.command}`)" for row in rows if not row.found]
    parts = [table(header, body) if body else "", f"Not run yet: {', '.join(missing)}." if missing else ""]
    return "\n\n".join(part for part in parts if part)


def folded(summary: str, text: str) -> str:
    """Return Markdown that a click unfolds, on GitHub and on the documentation site."""
    return f'<details markdown="1">\n<summary>{summary}</summary>\n\n{text}\n\n</details>'


def model_of(config: Mapping[str, Any]) -> str:
    """Return the model's name, with ``learned prior`` if it has one."""
    model = config["model"]
    return model["_name_"] + (", learned prior" if model.get("prior") == "learned" else "")


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
