"""The report's page: one self-contained HTML file, with links to the files of the runs."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fmvae.report.collect import Run
from fmvae.report.comparison import Comparison
from fmvae.report.settings import particulars, telling

MAX_OPEN = 60  # with more runs, their list is folded

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{sections}
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: #2a5db0; }
@media (prefers-color-scheme: dark) { :root { --link: #8ab4f8; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
.text td:last-child { white-space: normal; overflow-wrap: anywhere; }
tbody tr:hover { background: var(--soft); }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: white; }
.sheet img { max-width: none; }
.note { font-size: .9rem; opacity: .8; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; } .wide { overflow: visible; }
  .sheet img { max-width: 100%; } figure, tr { break-inside: avoid; } table { font-size: 8pt; }
}
"""


class Picture(NamedTuple):
    """A figure of the page, as PNG; ``note`` says what to read off it."""

    heading: str
    content: bytes
    note: str = ""


def render_page(
    title: str,
    runs: Sequence[Run],
    comparison: Comparison,
    figures: Mapping[str, Picture],
    folder: Path,
) -> str:
    """Return the page as HTML.

    Args:
        figures: by the name of the file beside the page.
        folder: the folder of the page; links are relative to it.
    """
    complete = [run for run in runs if run.complete]
    others = [run for run in runs if not run.complete]
    states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(run.state for run in others).items()))
    summary = f"{_count(len(runs), 'run')}: {len(complete)} complete{', ' if states else ''}{escape(states)}."
    if comparison.rows:
        summary += (
            f" {_count(len(comparison.rows), 'setting')}; all numbers are in <a href='table.csv'>table.csv</a>"
        )
        summary += ", the table below in <a href='table.md'>table.md</a>."
        sections = [f"<h2>Settings</h2>\n{_comparison(comparison)}"]
    else:
        sections = ["<p>No run is complete yet, so there is nothing to compare.</p>"]
    if others:
        keys = telling([run for run in runs if run.config])
        rows = [
            [_link(run, folder), escape(particulars(run, keys)), escape(run.state), escape(run.reason)]
            for run in others
        ]
        sections.append(f"<h2>Not in the table</h2>\n{_table(['run', 'with', 'state', 'why'], rows, 'text')}")
    sections += [_figure(name, picture) for name, picture in figures.items()]
    rows = [[_link(run, folder), escape(run.state), _files(run, folder)] for run in runs]
    opened = " open" if len(runs) <= MAX_OPEN else ""
    table = _table(["run", "state", "files"], rows, "text")
    sections.append(
        f"<h2>Runs</h2>\n<details{opened}><summary>{_count(len(runs), 'run')}</summary>\n{table}\n</details>"
    )
    return PAGE.format(title=escape(title), style=STYLE, summary=summary, sections="\n".join(sections))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _comparison(comparison: Comparison) -> str:
    rows = [
        [f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text) for cell in row]
        for row in comparison.rows
    ]
    header = [escape(name) for name in comparison.header]
    return f'{_table(header, rows)}\n<p class="note">{escape(comparison.caption)}</p>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    """Return an HTML table; the cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide {kind}">\n{table}\n</div>'


def _figure(name: str, picture: Picture) -> str:
    kind = "wide sheet" if name.startswith("sheet") else "wide"
    data, heading = base64.b64encode(picture.content).decode(), escape(picture.heading)
    image = f'<a href="{quote(name)}"><img src="data:image/png;base64,{data}" alt="{heading}"></a>'
    note = f'\n<p class="note">{escape(picture.note)}</p>' if picture.note else ""
    return f'<h2>{heading}</h2>\n<figure class="{kind}">{image}</figure>{note}'


def _link(run: Run, folder: Path) -> str:
    return f'<a href="{_path(run.directory.path, folder)}/">{escape(run.name)}</a>'


def _files(run: Run, folder: Path) -> str:
    directory = run.directory
    paths = (directory.config, directory.results, directory.figures, directory.log)
    return " · ".join(f'<a href="{_path(path, folder)}">{path.name}</a>' for path in paths if path.exists())


def _path(path: Path, folder: Path) -> str:
    return escape(quote(os.path.relpath(path, folder)))
