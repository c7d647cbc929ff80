"""Charts of a sweep: one number against another, and the quantities that are comparable across beta."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from fmvae.evaluation.column import NATS, Column
from fmvae.report.comparable import NO_MATCH, nats_compare
from fmvae.report.comparison import columns_of, floors_of
from fmvae.report.levels import by_data, level
from fmvae.report.settings import BETA, Curve, Setting, curves_of, label
from fmvae.report.style import Style, Texts, caption, drawn_curves, legend
from fmvae.visualization.tiles import set_panel_title

WIDTH = 7.5  # of a chart of one panel without its legend, in inches
PANEL = 4.8  # of a panel beside others
MAX_TICKS = 12
LONG_TICK = 5  # characters of a tick's text
NEAR = 0.7  # share of ln N from which an MI is near it


# is told of each point that a chart draws: its axes, its place, its setting, and the tags of its numbers
Describe = Callable[[Axes, tuple[float, float], Setting, Sequence[str]], None]


def silent(axes: Axes, point: tuple[float, float], setting: Setting, tags: Sequence[str]) -> None:
    """Describe nothing."""


class Pair(NamedTuple):
    """Two numbers to draw against each other.

    Args:
        x, y: their tags.
        xlabel, ylabel: the labels of the axes, with the unit.
        title: of the chart.
        limits: draws lines that the points can't cross, and returns them for the legend.
    """

    x: str
    y: str
    xlabel: str
    ylabel: str
    title: str
    limits: Callable[[Axes, Sequence[Setting]], list[Line2D]] = lambda axes, settings: []


def draw_pair(pair: Pair, settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw one number against another: a curve per z and family, each point labelled with its strength.

    ``describe`` is told of each point. Return None if no setting has both numbers.
    """
    every = curves_of(settings)
    curves, note = drawn_curves(every)
    lines = []
    for curve in curves:
        found = [
            (x, y, setting)
            for setting in curve.settings
            if (x := setting.statistic(pair.x)) and (y := setting.statistic(pair.y))
        ]
        lines += [(curve, found)] if found else []
    if not lines:
        return None
    style, drawn = Style(every), [curve for curve, _ in lines]
    figure = Figure(figsize=(WIDTH + style.width(drawn), 6), layout="constrained")
    axes = figure.subplots()
    for curve, points in lines:
        style.draw(axes, curve, points, across=True)
        for x, y, setting in points:
            describe(axes, (x.mean, y.mean), setting, (pair.x, pair.y))
    limits = pair.limits(axes, [setting for _, points in lines for _, _, setting in points])
    axes.autoscale_view()
    strengths = list(dict.fromkeys(curve.strength for curve in drawn))
    values = {(curve.strength, curve.value(setting)) for curve, points in lines for _, _, setting in points}
    if len(values) > 1:
        _write_strengths(axes, lines, strengths)
        told = f"at the points: {_said(strengths)}"
    else:
        told = f"at all points {_said(strengths)} = {next(iter(values))[1]:g}"
    axes.set(xlabel=pair.xlabel, ylabel=pair.ylabel)
    set_panel_title(axes, f"{pair.title}; {told}{note}", WIDTH - 1)
    axes.grid(alpha=0.25)
    legend(figure, [*style.handles(drawn), *limits])
    caption(figure, _unlike([setting for _, points in lines for _, _, setting in points]))
    return figure


def _write_strengths(axes: Axes, lines: Sequence[tuple[Curve, list[tuple]]], strengths: Sequence[str]) -> None:
    """Label points with their betas, and then those of other curves with ``gamma 10``, ends of curves first."""
    texts = Texts(axes, [[(x.mean, y.mean) for x, y, _ in points] for _, points in lines])
    named = []
    for curve, points in lines:
        for i, (x, y, setting) in enumerate(points):
            value, point = f"{curve.value(setting):g}", (x.mean, y.mean)
            if curve.strength == BETA:
                texts.write(value, point)
            else:
                inner = 0 < i < len(points) - 1
                named.append((inner, f"{label(curve.strength, strengths)} {value}", point))
    for _, text, point in sorted(named, key=lambda one: one[0]):
        texts.write_long(text, point)


def _said(strengths: Sequence[str]) -> str:
    """Return what stands at the points, as text."""
    if len(strengths) > 1:
        return "β, or the number that is named" if BETA in strengths else "the number that is named"
    return "β" if strengths[0] == BETA else label(strengths[0], strengths)


def _unlike(settings: Sequence[Setting]) -> str:
    return "" if nats_compare(settings) else f"{NO_MATCH}, so neither do curves that differ in them."


RATE_DISTORTION = Pair(
    "test/kl",
    "test/recon",
    f"rate: KL, {NATS}",
    f"distortion: recon, {NATS}",
    "Rate and distortion on the test set",
)
TC_RECON = Pair(
    "test/recon",
    "decomposition/tc",
    f"distortion: recon, {NATS}",
    f"total correlation (TC), {NATS}",
    "Total correlation and distortion",
)


def _limits_of_information(axes: Axes, settings: Sequence[Setting]) -> list[Line2D]:
    """Draw MI = KL, and ln N for N images if the MI comes near."""
    smallest = min(statistic.mean for setting in settings if (statistic := setting.statistic(MI_KL.x)))
    lines = [axes.axline((smallest, smallest), slope=1, linestyle="-", label="MI = KL")]
    sizes = {
        run.sizes["decomposition"] for setting in settings for run in setting.runs if "decomposition" in run.sizes
    }
    largest = max(statistic.mean for setting in settings if (statistic := setting.statistic(MI_KL.y)))
    lines += [
        axes.axhline(math.log(size), linestyle=":", label=f"ln {size:,}")
        for size in sorted(sizes)
        if largest > NEAR * math.log(size)
    ]
    for line in lines:
        line.set(color="0.6", linewidth=1, zorder=1)
    return lines


MI_KL = Pair(
    "test/kl",
    "decomposition/mi",
    f"KL, {NATS}",
    f"mutual information (MI), {NATS}",
    "Mutual information and KL",
    _limits_of_information,
)

rate_distortion = partial(draw_pair, RATE_DISTORTION)
tc_recon = partial(draw_pair, TC_RECON)
mi_kl = partial(draw_pair, MI_KL)


def against_beta(settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw each quantity that is comparable across beta in a panel: the columns with ``curve`` in ``places``.

    Curves along another number than beta are left out, and a caption says which. ``describe`` is told of each
    point. Return None if there is only one beta, or nothing to draw.
    """
    every = curves_of(settings)
    along = [curve for curve in every if curve.strength == BETA]
    settings = [setting for curve in along for setting in curve.settings]
    betas = sorted({setting.first.beta for setting in settings if setting.first.beta is not None})
    columns = [column for column in columns_of(settings) if "curve" in column.places]
    if len(betas) < 2 or not columns:
        return None
    curves, note = drawn_curves(along)
    style, num_columns = Style(every), min(len(columns), 2)
    num_rows = math.ceil(len(columns) / num_columns)
    # a single panel is as wide as those of the other charts, so that texts keep their size in a column of a paper
    size = (max(0.4 + PANEL * num_columns, WIDTH) + style.width(curves), 0.4 + 3.6 * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes, column in zip(panels, columns, strict=False):
        beta_axis(axes, betas)
        for curve in curves:
            points = [
                (setting.first.beta, statistic, setting)
                for setting in curve.settings
                if (statistic := setting.statistic(column.tag))
            ]
            if points:
                style.draw(axes, curve, points)
            for beta, statistic, setting in points:
                describe(axes, (beta or 0.0, statistic.mean), setting, (column.tag,))
        draw_levels(axes, settings, column)
        floors = floors_of(settings, column)
        title = f"{column.header}, {column.split}{note}" + f"; floor {floors}" * bool(floors)
        set_panel_title(axes, title, (PANEL if num_columns > 1 else WIDTH) - 1)
        axes.set_ylabel(column.unit)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    legend(figure, style.handles(curves))
    unlike = _unlike(settings) if any(column.unit == NATS for column in columns) else ""
    left_out = _left_out([curve for curve in every if curve.strength != BETA])
    key = levels_key(settings, columns)
    caption(figure, left_out, unlike, f"{key[:1].upper()}{key[1:]}." * bool(key))
    return figure


def draw_levels(axes: Axes, settings: Sequence[Setting], column: Column) -> None:
    """Draw a score's levels: a dotted line for shuffled factors, a band of ± 1 sd for an untrained encoder.

    They are those of one data set and model: of several, no line would be everybody's.
    """
    if (
        len({(setting.first.model, setting.first.latent_dim) for setting in settings}) > 1
        or len(by_data(settings)) > 1
    ):
        return
    if chance := level(settings, column, "chance"):
        axes.axhline(chance.mean, color="0.5", linestyle=":", linewidth=1.2, zorder=0)
    if untrained := level(settings, column, "untrained"):
        spread = untrained.sd or 0.0
        axes.axhspan(untrained.mean - spread, untrained.mean + spread, color="0.85", zorder=0, linewidth=0)
        axes.axhline(untrained.mean, color="0.6", linewidth=1.2, zorder=0)


def levels_key(settings: Sequence[Setting], columns: Sequence[Column]) -> str:
    """Return what the lines of :func:`draw_levels` are, as text; empty if there are none."""
    lines = {"chance": "dotted: shuffled factors", "untrained": "grey: an untrained encoder (± sd over seeds)"}
    return "; ".join(
        said for name, said in lines.items() if any(level(settings, column, name) for column in columns)
    )


def _left_out(curves: Sequence[Curve]) -> str:
    """Return which curves are not against beta, as text; empty if there are none."""
    strengths = list(dict.fromkeys(curve.strength for curve in curves))
    told = dict.fromkeys(f"{curve.family} ({label(curve.strength, strengths)})" for curve in curves)
    return f"Left out, as it is not β but another number that varies: {'; '.join(told)}." if told else ""


def tick_text(value: float) -> str:
    """Return a value as a tick's text: exact if that is short or whole, as a study's values are.

    Of one that a search drew it has three digits: more would overlap the next one's.
    """
    exact = f"{value:g}"
    return exact if len(exact) <= LONG_TICK or value == int(value) else f"{float(f'{value:.3g}'):g}"


def beta_axis(axes: Axes, betas: Sequence[float], name: str = "β") -> None:
    """Label the x axis with the betas of the sweep, or the values of another strength with this name.

    It is logarithmic for a wide range, with a place for 0, and its label says so.
    """
    scale = ""
    positive = [beta for beta in betas if beta > 0]
    if positive and max(positive) >= 5 * min(positive):
        if len(positive) == len(betas):
            axes.set_xscale("log")
            scale = " (log scale)"
        else:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
            scale = " (log scale, and 0)"
    places = axes.xaxis.get_transform().transform(np.array(betas))
    ticks = []
    for place, beta in zip(places, betas, strict=True):
        if not ticks or place - ticks[-1][0] >= (places[-1] - places[0]) / MAX_TICKS:
            ticks.append((place, beta))
    axes.set_xticks([beta for _, beta in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda beta, _: tick_text(beta)))
    axes.set_xlabel(f"{name}{scale}")
    axes.grid(alpha=0.25)
