"""Learning curves of a sweep's runs, in one chart, read from their metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmvae.evaluation.columns import NATS, NEG_ELBO
from fmvae.report.collect import Run
from fmvae.report.comparable import NO_MATCH, nats_compare
from fmvae.report.hover import Mark
from fmvae.report.looks import WIDTHS, Look, Looks
from fmvae.report.settings import Curve, Setting, curves_of
from fmvae.report.style import Style, caption, spread
from fmvae.visualization.curves import FEWEST, epoch_label

MAX_RUNS = 120  # curves that are drawn
MAX_POINTS = 400  # epochs of a curve that are drawn
EARLY = 0.1  # share of the epochs whose values do not rule the range of the y axis
OUTLIERS = 98  # percentile of the later values up to which the axis reaches at least
PANELS = {"val/neg_elbo": f"{NEG_ELBO}, validation", "val/kl": "KL, validation"}
NOT_COMPLETE = Look("0.5", "--", WIDTHS[0])  # of runs that are not complete

Describe = Callable[[Run], tuple[str, str]]  # the name of a run for readers, and its address


class History(NamedTuple):
    """A run's validated epochs: numbers (N,) and, by tag, values (N,)."""

    epochs: np.ndarray
    values: dict[str, np.ndarray]


def read_history(run: Run) -> History | None:
    """Return the validated epochs in metrics.jsonl; lines that can't be read are left out. None without any."""
    rows = []
    try:
        for line in run.directory.metrics.read_text(encoding="utf-8").splitlines():
            row = _row(line)
            if row and all(_is_number(row.get(key)) for key in ("epoch", *PANELS)):
                rows.append(row)
    except (OSError, UnicodeDecodeError):
        return None
    if not rows:
        return None
    rows = spread(rows, MAX_POINTS)
    epochs = np.array([row["epoch"] for row in rows], np.float64)
    return History(epochs, {tag: np.array([row[tag] for row in rows], np.float64) for tag in PANELS})


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def learning_curves(
    runs: Sequence[Run], settings: Sequence[Setting], describe: Describe, marks: list[Mark]
) -> Figure | None:
    """Draw validation's −ELBO and KL by epoch, a curve for each of at most ``MAX_RUNS`` runs.

    Curves of different settings look different (:class:`Looks`), and seeds of one setting alike; runs that are
    not complete are grey and dashed. If a run has ``FEWEST`` epochs, the y axis shows the epochs after the first
    ones, or one bad epoch would flatten all curves; the x axis names those outside. ``marks`` gets a mark at the
    end and at the best epoch of each curve. Return None if no run has an epoch.
    """
    usable = [run for run in runs if run.state not in ("classifier", "damaged", "new")]
    chosen = spread(usable, MAX_RUNS)
    found = [(run, history) for run in chosen if (history := read_history(run))]
    if not found:
        return None
    curves = curves_of(settings)
    looks = Looks(Style(curves), _drawn(curves, found))
    of_run = {
        id(run): looks.of(setting) for curve in looks.curves for setting in curve.settings for run in setting.runs
    }
    figure = Figure(figsize=(10.4 + looks.width(), 4.6), layout="constrained")
    for axes, (tag, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for run, history in found:
            _draw(axes, run, history, tag, of_run.get(id(run), NOT_COMPLETE))
            marks += _marks(axes, run, history, tag, describe(run))
        axes.set(title=title, xlabel="epoch", ylabel=NATS)
        _limit(axes, [history for _, history in found], tag)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    looks.explain(figure)
    some = f"{len(chosen)} of {len(usable)} runs." if len(chosen) < len(usable) else ""
    dashed = "Grey and dashed: runs that are not complete." if any(not run.complete for run, _ in found) else ""
    unlike = "" if nats_compare(settings) else f"{NO_MATCH}, so neither do curves that differ in them."
    caption(figure, "A dot marks the best epoch.", looks.note(), some, dashed, unlike)
    return figure


def _drawn(curves: Sequence[Curve], found: Sequence[tuple[Run, History]]) -> list[Curve]:
    """Return the curves with the settings of which a run is drawn; those without any are left out."""
    drawn = {id(run) for run, _ in found}
    kept = [
        curve._replace(settings=[one for one in curve.settings if any(id(run) in drawn for run in one.runs)])
        for curve in curves
    ]
    return [curve for curve in kept if curve.settings]


def _draw(axes: Axes, run: Run, history: History, tag: str, look: Look) -> None:
    values = history.values[tag]
    axes.plot(history.epochs, values, color=look.colour, linestyle=look.dash, linewidth=look.width)
    best = history.epochs == run.best_epoch
    axes.plot(history.epochs[best], values[best], marker="o", markersize=4, linestyle="", color=look.colour)


def _marks(axes: Axes, run: Run, history: History, tag: str, told: tuple[str, str]) -> list[Mark]:
    name, link = told
    last = len(history.epochs) - 1
    best = [i for i in np.flatnonzero(history.epochs == run.best_epoch) if i != last]
    places = [(int(i), "best epoch") for i in best] + [(last, "best and last epoch" if not best else "last epoch")]
    if run.best_epoch is None:
        places = [(last, "last epoch")]
    return [
        Mark(
            axes,
            float(history.epochs[i]),
            float(history.values[tag][i]),
            f"{name}\n{what} {history.epochs[i]:g}: {PANELS[tag]} {history.values[tag][i]:.2f}",
            link,
        )
        for i, what in places
    ]


def _limit(axes: Axes, histories: Sequence[History], tag: str) -> None:
    """Limit the y axis to the values after the first epochs, without the largest of them if they stand out.

    What lies outside is named below the x axis. If all runs have few epochs, none is left out.
    """
    if max(len(history.epochs) for history in histories) < FEWEST:
        return
    late = []
    for history in histories:
        first = history.epochs[0] + max(EARLY * (history.epochs[-1] - history.epochs[0]), 0.5)
        late.append(history.values[tag][history.epochs >= first])
    values = np.concatenate(late)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return
    low, high, most = float(values.min()), float(np.percentile(values, OUTLIERS)), float(values.max())
    high = most if most - low <= 2 * (high - low) else high
    room = 0.05 * (high - low) or 0.05 * max(abs(high), 1e-6)
    if math.isfinite(low) and math.isfinite(high):
        axes.set_ylim(low - room, high + room)
        points = [
            point for one in histories for point in zip(one.epochs.tolist(), one.values[tag].tolist(), strict=True)
        ]
        axes.set_xlabel(epoch_label(points, low - room, high + room))
