"""How charts of curves look: colours, markers, the legend, and the labels of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, pairwise
from textwrap import wrap
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fmvae.report.collect import sortable
from fmvae.report.settings import Curve

T = TypeVar("T")

MAX_CURVES = 60
INCHES = 0.075  # the width of a letter of a caption
CLEAR = (0.03, 0.025)  # smallest distance of two labels, as shares of the axes' width and height
LETTER, LINE = 0.0095, 0.028  # a label's width per letter and its height, as shares of the axes' width and height
AWAY = (0.007, 0.008)  # of a label from its point, as shares
CORNERS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # where a label may stand: right or left, above or below
MARKERS = "osD^vP*X<>hpd8"
LINES = ("-", "--", "-.", ":")
# colours that people with colour vision deficiencies tell apart (Okabe & Ito 2008), without yellow, pale on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` evenly spaced items, including the first and the last one."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]


class Style:
    """The colours and markers of the curves, the same in every panel.

    With several z, colours show z and markers show families. With one z, colours show what tells the curves of a
    model apart (the loss, for example), and markers and lines the models; if there is only one of either, colours
    and markers show the families.
    """

    def __init__(self, curves: Sequence[Curve]):
        dims = sorted({curve.latent_dim for curve in curves})
        families = {curve.family for curve in curves}
        self.by_z = len(dims) > 1 or len(families) == 1
        models, traits = {curve.model for curve in curves}, {curve.traits for curve in curves}
        self.apart = not self.by_z and len(models) > 1 and len(traits) > 1 and "" not in traits
        viridis = matplotlib.colormaps["viridis"]
        colours = [viridis(0.8 * i / max(len(dims) - 1, 1)) for i in range(len(dims))] if self.by_z else COLOURS
        self.colour = _assign(map(self.hue, curves), colours)
        self.marker = _assign(map(self.shape, curves), MARKERS)
        self.line = _assign(map(self.shape, curves), LINES if self.apart else "-")

    def hue(self, curve: Curve) -> int | str:
        """Return what the curve's colour shows."""
        return curve.latent_dim if self.by_z else curve.traits if self.apart else curve.family

    def shape(self, curve: Curve) -> str:
        """Return what the curve's marker shows."""
        return curve.model if self.apart else curve.family

    def handles(self, curves: Sequence[Curve]) -> list[Line2D]:
        """Return the legend's entries for these curves. Colours and markers are listed separately, to be short."""
        hues, shapes = (set(map(of, curves)) for of in (self.hue, self.shape))
        own = [shape for shape in self.marker if shape in shapes]
        if not self.by_z and not self.apart:  # both show the family
            return [self._handle(family, self.colour[family], "-") for family in own]
        name = "z = {}" if self.by_z else "{}"
        colours = [Line2D([], [], color=self.colour[h], label=name.format(h)) for h in self.colour if h in hues]
        return colours + [self._handle(shape, "black", self.line[shape] if self.apart else "") for shape in own]

    def _handle(self, shape: str, colour: Any, line: Any) -> Line2D:
        return Line2D([], [], color=colour, linestyle=line, marker=self.marker[shape], label=shape)

    def width(self, curves: Sequence[Curve]) -> float:
        """Return the approximate width of the legend for these curves, in inches."""
        texts = [self.shape(curve) for curve in curves] + [str(self.hue(curve)) for curve in curves]
        return 0.7 + 0.08 * max(map(len, texts))

    def draw(self, axes: Axes, curve: Curve, points: Sequence[tuple], *, across: bool = False) -> None:
        """Draw points (x, y) with error bars. y is a ``Statistic``; x is one if ``across``, or else a number."""
        xs, ys = ([point[i] for point in points] for i in (0, 1))
        axes.errorbar(
            [x.mean for x in xs] if across else xs,
            [y.mean for y in ys],
            xerr=[x.sd or 0 for x in xs] if across and any(x.sd for x in xs) else None,
            yerr=[y.sd or 0 for y in ys] if any(y.sd for y in ys) else None,
            color=self.colour[self.hue(curve)],
            marker=self.marker[self.shape(curve)],
            linestyle=self.line[self.shape(curve)],
            markersize=5,
            linewidth=1.2,
            elinewidth=1,
            capsize=2,
        )


def _assign(names: Iterable[T], looks: Sequence[Any]) -> dict[T, Any]:
    """Return a look for each name, in the order of the names."""
    return dict(zip(sorted(set(names), key=sortable), cycle(looks), strict=False))


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draw a legend beside the panels."""
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)


def caption(figure: Figure, *sentences: str) -> None:
    """Write what one must know to read a figure below its panels, in lines as wide as the figure."""
    if told := " ".join(filter(None, sentences)):
        width = int(figure.get_figwidth() / INCHES)
        figure.supxlabel("\n".join(wrap(told, width)), x=0.01, ha="left", fontsize=9, color="0.25")


def drawn_curves(curves: Sequence[Curve]) -> tuple[list[Curve], str]:
    """Return at most ``MAX_CURVES`` curves to draw, and a note for the title if some are left out."""
    chosen = spread(curves, MAX_CURVES)
    return chosen, "" if len(chosen) == len(curves) else f" ({len(chosen)} of {len(curves)} curves)"


class Texts:
    """Labels of points that are not written over each other: a label that would overlap another is left out.

    Args:
        curves: the points of each curve, (N, 2). Long labels cover no point, and no line between two points of a
            curve if they have a place that is off the lines.
    """

    def __init__(self, axes: Axes, curves: Sequence[Sequence[tuple[float, float]]]):
        self.axes = axes
        places = [axes.transLimits.transform(np.array(curve)) for curve in curves]
        self.points = np.concatenate(places)
        self.lines = np.concatenate([_between(curve) for curve in places])
        self.short: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []

    def write(self, text: str, point: tuple[float, float]) -> None:
        """Write a short label above and to the right of a point."""
        place = self.axes.transLimits.transform(point)
        if any((np.abs(place - other) < CLEAR).all() for other in self.short):
            return
        self.short.append(place)
        self._put(text, point, place, CORNERS[0])

    def write_long(self, text: str, point: tuple[float, float]) -> None:
        """Write a label at a corner of a point at which it is within the axes and covers no label and no point.

        It is the first such corner at which it is off the lines, or else the first one.
        """
        place = self.axes.transLimits.transform(point)
        free = []
        for corner in CORNERS:
            lower, upper = box = self._box(text, place, corner)
            overlaps = any((lower < other[1]).all() and (other[0] < upper).all() for other in self.boxes)
            if not overlaps and not _holds(box, self.points) and (box >= 0).all() and (box <= 1).all():
                free.append((_holds(box, self.lines), corner))
        if free:
            _, corner = min(free, key=lambda one: one[0])
            self._put(text, point, place, corner)

    @staticmethod
    def _box(text: str, place: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """Return the lower left and upper right of a label, as shares of the axes."""
        near = place + np.multiply(corner, AWAY)
        return np.sort([near, near + np.multiply(corner, (LETTER * len(text), LINE))], axis=0)

    def _put(self, text: str, point: tuple[float, float], place: np.ndarray, corner: tuple[int, int]) -> None:
        self.boxes.append(self._box(text, place, corner))
        right, up = corner
        self.axes.annotate(
            text,
            point,
            (4 * right, 4 * up),
            textcoords="offset points",
            fontsize=8,
            color="0.25",
            ha="left" if right > 0 else "right",
            va="baseline" if up > 0 else "top",
        )


def _between(points: np.ndarray, step: float = 0.004) -> np.ndarray:
    """Return places (M, 2) along the lines between successive points (N, 2), at most ``step`` apart."""
    pieces = [points[:1]]
    for start, end in pairwise(points):
        count = int(np.abs(end - start).max() / step) + 2
        pieces.append(np.linspace(start, end, count)[1:])
    return np.concatenate(pieces)


def _holds(box: np.ndarray, places: np.ndarray) -> bool:
    """Return whether any of the places (N, 2) is in a box, given as its lower left and upper right."""
    return bool(((box[0] < places) & (places < box[1])).all(1).any())
