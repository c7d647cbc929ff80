"""Charts of a sweep: rate against distortion, and the quantities that are comparable across beta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from fmvae.report.collect import sortable
from fmvae.report.comparison import columns_of, floors_of
from fmvae.report.settings import Curve, Setting, curves_of

T = TypeVar("T")

MAX_CURVES = 60
MAX_TICKS = 12
CLEAR = (0.03, 0.025)  # smallest distance of two labels, as shares of the axes' width and height
MARKERS = "osD^vP*X<>"


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` evenly spaced items, including the first and the last one."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]


class Style:
    """The colour of each z and the marker of each family, the same in every panel."""

    def __init__(self, curves: Sequence[Curve]):
        dims = sorted({curve.latent_dim for curve in curves})
        colours = matplotlib.colormaps["viridis"]
        self.colour = {z: colours(0.8 * i / max(len(dims) - 1, 1)) for i, z in enumerate(dims)}
        families = sorted({curve.family for curve in curves}, key=sortable)
        self.marker = {family: MARKERS[i % len(MARKERS)] for i, family in enumerate(families)}

    @property
    def width(self) -> float:
        """Approximate width of the legend, in inches."""
        return 0.7 + 0.08 * max(len(family) for family in self.marker)

    def legend(self, figure: Figure) -> None:
        """Draw a legend beside the panels. It lists colours and markers separately, to be short."""
        handles = [Line2D([], [], color=self.colour[z], label=f"z = {z}") for z in self.colour]
        handles += [
            Line2D([], [], color="black", linestyle="", marker=self.marker[family], label=family)
            for family in self.marker
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)

    def draw(self, axes: Axes, curve: Curve, points: Sequence[tuple], *, across: bool = False) -> None:
        """Draw points (x, y) with error bars. y is a ``Statistic``; x is one if ``across``, or else a number."""
        xs, ys = ([point[i] for point in points] for i in (0, 1))
        axes.errorbar(
            [x.mean for x in xs] if across else xs,
            [y.mean for y in ys],
            xerr=[x.sd or 0 for x in xs] if across and any(x.sd for x in xs) else None,
            yerr=[y.sd or 0 for y in ys] if any(y.sd for y in ys) else None,
            color=self.colour[curve.latent_dim],
            marker=self.marker[curve.family],
            markersize=5,
            linewidth=1.2,
            elinewidth=1,
            capsize=2,
        )


def drawn_curves(settings: Sequence[Setting]) -> tuple[list[Curve], str]:
    """Return at most ``MAX_CURVES`` curves to draw, and a note for the title if some are left out."""
    curves = curves_of(settings)
    chosen = spread(curves, MAX_CURVES)
    return chosen, "" if len(chosen) == len(curves) else f" ({len(chosen)} of {len(curves)} curves)"


def rate_distortion(settings: Sequence[Setting]) -> Figure | None:
    """Draw reconstruction against KL: a curve per z and family, each point labelled with its beta.

    Return None if no setting has both numbers.
    """
    curves, note = drawn_curves(settings)
    lines = []
    for curve in curves:
        found = [
            (kl, recon, setting.first.beta)
            for setting in curve.settings
            if (kl := setting.statistic("test/kl")) and (recon := setting.statistic("test/recon"))
        ]
        lines += [(curve, found)] if found else []
    if not lines:
        return None
    style = Style([curve for curve, _ in lines])
    figure = Figure(figsize=(7.5 + style.width, 6), layout="constrained")
    axes = figure.subplots()
    for curve, points in lines:
        style.draw(axes, curve, points, across=True)
    axes.autoscale_view()
    placed: list[np.ndarray] = []
    for _, points in lines:
        for kl, recon, beta in points:
            place = axes.transLimits.transform((kl.mean, recon.mean))
            if any((np.abs(place - other) < CLEAR).all() for other in placed):
                continue  # the label would overlap another one
            placed.append(place)
            point = (kl.mean, recon.mean)
            axes.annotate(f"{beta:g}", point, (4, 4), textcoords="offset points", fontsize=8, color="0.25")
    axes.set(xlabel="rate: KL, nats per image", ylabel="distortion: recon, nats per image")
    axes.set_title(f"Rate and distortion on the test set; at the points: β{note}")
    axes.grid(alpha=0.25)
    style.legend(figure)
    return figure


def against_beta(settings: Sequence[Setting]) -> Figure | None:
    """Draw each quantity that is comparable across beta in a panel: the columns with ``curve`` in ``places``.

    Return None if there is only one beta, or nothing to draw.
    """
    betas = sorted({setting.first.beta for setting in settings if setting.first.beta is not None})
    columns = [column for column in columns_of(settings) if "curve" in column.places]
    if len(betas) < 2 or not columns:
        return None
    curves, note = drawn_curves(settings)
    style, num_columns = Style(curves), min(len(columns), 2)
    num_rows = math.ceil(len(columns) / num_columns)
    size = (0.4 + 4.8 * num_columns + style.width, 0.4 + 3.6 * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes, column in zip(panels, columns, strict=False):
        beta_axis(axes, betas)
        for curve in curves:
            points = [
                (setting.first.beta, statistic)
                for setting in curve.settings
                if (statistic := setting.statistic(column.tag))
            ]
            if points:
                style.draw(axes, curve, points)
        floors = floors_of(settings, column)
        title = f"{column.header}, {column.split}{note}" + f"; floor {floors}" * bool(floors)
        axes.set(title=title, ylabel=column.unit)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    style.legend(figure)
    return figure


def beta_axis(axes: Axes, betas: Sequence[float]) -> None:
    """Label the x axis with the betas of the sweep. It is logarithmic for a wide range, with a place for 0."""
    positive = [beta for beta in betas if beta > 0]
    if positive and max(positive) >= 5 * min(positive):
        if len(positive) == len(betas):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    places = axes.xaxis.get_transform().transform(np.array(betas))
    ticks = []
    for place, beta in zip(places, betas, strict=True):
        if not ticks or place - ticks[-1][0] >= (places[-1] - places[0]) / MAX_TICKS:
            ticks.append((place, beta))
    axes.set_xticks([beta for _, beta in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda beta, _: f"{beta:g}"))
    axes.set_xlabel("β")
    axes.grid(alpha=0.25)
