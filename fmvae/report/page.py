"""The report's page: one HTML file that needs no other, with links to the files of the runs.

Every text comes from ``escape``, and every address from ``address``: names and messages of runs are any text.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fmvae.report.collect import Run, states
from fmvae.report.comparison import Comparison
from fmvae.report.conclusion import Conclusion
from fmvae.report.naming import count
from fmvae.report.settings import particulars, telling
from fmvae.report.sheets import Cell

MAX_OPEN = 60  # with more runs, their list is folded
MAX_INLINE = 3_000_000  # bytes of pictures in the page; further ones are only files beside it
EXPLORER = "explorer.html"  # of a run, or of a folder of runs
ASSETS = Path(__file__).parent / "assets"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{summary}</p>
</header>
<main>
{conclusion}
<nav aria-label="On this page"><ul>{contents}</ul></nav>
{sections}
</main>
<script>{script}</script>
</body>
</html>
"""


class Picture(NamedTuple):
    """A figure of the page.

    Args:
        content: PNG.
        note: what to read off it.
        pdf: the same as PDF; None if there is none.
        svg: the same as an SVG element; empty if there is none, or it is too large.
        cells: the pictures of which a contact sheet consists.
        labels: a contact sheet without its pictures: PNG, black on nothing. The page lays the pictures over it.
        title: of the chart, if the one within it is out of sight on a phone.
    """

    heading: str
    content: bytes
    note: str = ""
    pdf: bytes | None = None
    svg: str = ""
    cells: Sequence[Cell] = ()
    labels: bytes = b""
    title: str = ""


def render_page(
    title: str,
    runs: Sequence[Run],
    conclusion: Conclusion,
    comparison: Comparison,
    figures: Mapping[str, Picture],
    folder: Path,
    explorers: Sequence[Path] = (),
) -> str:
    """Return the page as HTML.

    Args:
        figures: by the name of the file beside the page.
        folder: the folder of the page; links are relative to it.
        explorers: pages that show several runs at once.
    """
    others = [run for run in runs if not run.complete]
    summary = f"{count(len(runs), 'run')}: {escape(states(runs))}."
    if comparison.rows:
        summary += (
            f" {count(len(comparison.rows), 'setting')}; all numbers are in <a href='table.csv'>table.csv</a>"
        )
        summary += ", the table below in <a href='table.md'>table.md</a>."
    sections = [("Conclusion", _conclusion(conclusion))]
    if comparison.rows:
        sections.append(("Settings", _comparison(comparison)))
    if others:
        keys = telling([run for run in runs if run.config])
        rows = [
            [_link(run, folder), escape(particulars(run, keys)), escape(run.state), escape(run.reason)]
            for run in others
        ]
        sections.append(
            ("Not in the table", _table("Not in the table", ["run", "with", "state", "why"], rows, "text"))
        )
    inlined = 0
    for name, picture in figures.items():
        inlined += 0 if picture.svg else _size(picture)
        sections.append((picture.heading, _figure(name, picture, folder, inline=inlined <= MAX_INLINE)))
    rows = [[_link(run, folder), escape(run.state), _files(run, folder)] for run in runs]
    opened = " open" if len(runs) <= MAX_OPEN else ""
    table = _table("Runs", ["run", "state", "files"], rows, "text")
    folded = f"<details{opened}><summary>{count(len(runs), 'run')}</summary>\n{table}\n</details>"
    sections.append(("Runs", folded))
    contents = [
        f'<li><a href="#s{i}">{escape(_brief(heading))}</a></li>' for i, (heading, _) in enumerate(sections) if i
    ]
    links = [(f"Explorer{f' {i + 1}' if explorers[1:] else ''}", path) for i, path in enumerate(explorers)]
    contents += [f'<li><a href="{address(path, folder)}">{name}</a></li>' for name, path in links]
    conclusion_first, *body = [_section(i, heading, content) for i, (heading, content) in enumerate(sections)]
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return PAGE.format(
        title=escape(title),
        style=style,
        script=script,
        summary=summary,
        conclusion=conclusion_first,
        contents="\n".join(contents),
        sections="\n".join(body),
    )


def _brief(heading: str) -> str:
    return heading.partition(",")[0].partition(";")[0]


def _section(number: int, heading: str, content: str) -> str:
    kind = ' class="answer"' if number == 0 else ""
    return f'<section{kind}>\n<h2 id="s{number}">{escape(heading)}</h2>\n{content}\n</section>'


def _conclusion(conclusion: Conclusion) -> str:
    def listed(kind: str, items: Sequence[str]) -> str:
        return f'<ul class="{kind}">\n' + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"

    said = [
        (f"<strong>{escape(one.lead)}</strong>" if one.lead else "") + escape(one.rest)
        for one in conclusion.findings
    ]
    parts = [listed("findings", said)]
    parts += [f'<p class="note">{escape(conclusion.note)}</p>'] if conclusion.note else []
    if conclusion.warnings:
        parts += ["<h3>Beware</h3>", listed("warnings", [escape(warning) for warning in conclusion.warnings])]
    if conclusion.commands:
        lines = [
            f"{escape(command.purpose)}\n<pre><code>{escape(command.line)}</code></pre>"
            for command in conclusion.commands
        ]
        parts += ["<h3>Go on</h3>", listed("commands", lines)]
    return "\n".join(parts)


def _comparison(comparison: Comparison) -> str:
    rows = [
        [f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text) for cell in row]
        for row in comparison.rows
    ]
    header = [escape(name) for name in comparison.header]
    return f'{_table("Settings", header, rows)}\n<p class="note">{escape(comparison.caption)}</p>'


def _table(name: str, header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    """Return an HTML table; the cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td{_kind(cell)}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide {kind}" tabindex="0" role="region" aria-label="{name}: table">\n{table}\n</div>'


def _kind(cell: str) -> str:
    return ' class="best"' if cell.startswith("<strong>") else ""


def _figure(name: str, picture: Picture, folder: Path, *, inline: bool) -> str:
    heading = escape(picture.heading)
    note = f'\n<p class="note">{escape(picture.note)}</p>' if picture.note else ""
    files = [f'<a href="{quote(name)}">PNG</a>']
    files += [f'<a href="{quote(name.removesuffix(".png"))}.pdf">PDF</a>'] if picture.pdf else []
    below = f"<figcaption>{' · '.join(files)}</figcaption>"
    kind, content = "chart", picture.svg
    if not picture.svg:
        layers = inline and bool(picture.labels)
        source = _data(picture.labels or picture.content, "png") if inline else quote(name)
        content = f'<img class="{"labels" if layers else "whole"}" src="{source}" alt="{heading}">'
        if name.startswith("sheet"):
            kind, cells = "sheet", "\n".join(_cell(cell, folder, shown=layers) for cell in picture.cells)
            content += f"\n{cells}"
    title = f'<p class="title">{escape(picture.title)}</p>' if picture.title and picture.svg else ""
    shown = f'<div class="{kind}">{content}</div>'
    shown = f'<div class="wide" tabindex="0" role="region" aria-label="{heading}">{shown}</div>'
    return f"{note}\n<figure>{title}{shown}\n{below}</figure>"


def _size(picture: Picture) -> int:
    """Return how many bytes of pictures the page has for a figure without SVG."""
    if not picture.labels:
        return len(picture.content)
    return len(picture.labels) + sum(len(cell.jpeg) for cell in picture.cells)


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _cell(cell: Cell, folder: Path, *, shown: bool) -> str:
    """Return a link from a place of a contact sheet to its file, with the picture if that is to be shown there."""
    box = zip(("left", "top", "width", "height"), (cell.left, cell.top, cell.width, cell.height), strict=True)
    style = ";".join(f"{side}:{100 * share:.3f}%" for side, share in box)
    text = escape(cell.text)
    picture = f'<img src="{_data(cell.jpeg, "jpeg")}" alt="">' if shown else ""
    named = f'title="{text}" aria-label="{text}"'
    return f'<a href="{address(cell.path, folder)}" style="{style}" {named}>{picture}</a>'


def _link(run: Run, folder: Path) -> str:
    name = escape(run.name)
    return name if run.state == "new" else f'<a href="{address(run.directory.path, folder)}/">{name}</a>'


def _files(run: Run, folder: Path) -> str:
    directory = run.directory
    paths = (directory.path / EXPLORER, directory.config, directory.results, directory.figures, directory.log)
    return " · ".join(f'<a href="{address(path, folder)}">{path.name}</a>' for path in paths if path.exists())


def address(path: Path, folder: Path) -> str:
    """Return the address of a file for a page in a folder, escaped."""
    return escape(quote(os.path.relpath(path, folder)))
