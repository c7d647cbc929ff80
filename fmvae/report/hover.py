"""Charts as SVG whose points can be pointed at: each has a link and a text, also without JavaScript.

The chart is the figure that is also written as PNG and PDF, drawn once more by matplotlib. On top lie transparent
circles, one for each point.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmvae.report.style import spread

MAX_MARKS = 600  # points of a chart that can be pointed at
MAX_SVG = 500_000  # characters; a larger chart is shown as PNG
RADIUS = 7  # of the place around a point that can be pointed at, in points (1/72 inch)
# CSS pixels for a point of the figure: with fewer, a text would be too small, so a narrower window scrolls; with
# no more than CSS has itself, all charts have texts and lines of one size, however wide the window is
LEAST, MOST = 0.85, 96 / 72
PHONE = 380  # CSS pixels that a phone shows of it before it is scrolled
INCH = 72  # the unit of matplotlib's SVG is a point
NOT_SHOWN = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL
)
GROUP_ID = re.compile(r'<g id="[^"]*">')  # they repeat in every figure, and nothing refers to them
SIZE = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>')


class Mark(NamedTuple):
    """A point of a chart: its place in data coordinates, what to say of it, and the address that it links to."""

    axes: Axes
    x: float
    y: float
    text: str
    link: str


def svg(figure: Figure, marks: Sequence[Mark], name: str) -> str:
    """Return a figure as an SVG element.

    Args:
        marks: at most ``MAX_MARKS`` of them get a place to point at.
        name: of the chart, for screen readers; charts of one page need different ones.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawn = GROUP_ID.sub("<g>", NOT_SHOWN.sub("", file.getvalue())).strip()
    opened = SIZE.match(drawn)
    assert opened
    body = drawn[opened.end() :].removesuffix("</svg>")
    width = figure.get_figwidth() * INCH
    size = f"min-width: min({LEAST * width:.0f}px, 66rem); max-width: {MOST * width:.0f}px"
    start = f'<svg viewBox="{opened[1]}" style="{size}" role="group" aria-label="{escape(name)}">'
    places = "\n".join(_circle(figure, mark) for mark in spread([*marks], MAX_MARKS))
    return f'{start}<g aria-hidden="true">{body.strip()}</g>\n<g class="marks">{places}</g></svg>'


def hidden_title(figure: Figure) -> str:
    """Return the title of a drawn figure, or of its only panel, if a phone does not show its end; else nothing."""
    title = figure.get_suptitle()
    ends = [text.get_window_extent().x1 for text in figure.texts if text.get_text() == title]
    if not title and len(figure.axes) == 1:
        title, ends = figure.axes[0].get_title(), [figure.axes[0].title.get_window_extent().x1]
    return title if title and max(ends, default=0) * INCH / figure.dpi * LEAST > PHONE else ""


def place(figure: Figure, mark: Mark) -> tuple[float, float]:
    """Return where a mark lies in the SVG, in points from the upper left. The figure must have been drawn."""
    x, y = mark.axes.transData.transform((mark.x, mark.y)) * INCH / figure.dpi
    return float(x), float(figure.get_figheight() * INCH - y)


def _circle(figure: Figure, mark: Mark) -> str:
    x, y = place(figure, mark)
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    text = escape(mark.text)
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}"/>'
    return f'<a href="{escape(mark.link)}" aria-label="{text}"><title>{text}</title>{circle}</a>'
