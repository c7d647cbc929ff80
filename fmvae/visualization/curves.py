"""Training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.visualization.appearance import own_width
from fmvae.visualization.tiles import legend_below, new_figure, set_panel_title, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_COLOURS = {"train": "#4477aa", "val": "#cc6633"}
SPLITS = {"train": "training", "val": "validation"}  # in legends
TITLES = {"objective": "Objective", "recon": "Reconstruction", "kl": "KL"}
# of the other parts of fmvae's own objectives; a user's parts keep their names
PARTS = {
    "mi": "Mutual information",
    "tc": "Total correlation",
    "dimension_wise": "Dimension-wise KL",
    "dip": "Covariance penalty",
    "mmd": "Maximum mean discrepancy",
    "discriminator": "Loss of the discriminator",
}
FEWEST = 10  # epochs of a panel that may be cut: of fewer, most of the curve would be outside
FIRST = 0.1  # share of the epochs that does not decide what range of values a panel shows
RULED = 3.0  # a panel is cut if all its values span this many times the range that it would show then
MIDDLE, FENCES = 0.9, 2.0  # values count within so many ranges of the middle 90 % from these
NARROW = 5.5  # inches: panels of a narrower figure lie below each other


def training_curves(history: Sequence[Mapping], name: str = "") -> Figure:
    """Draw objective, reconstruction, KL and other parts of the objective by epoch; mark the best epoch.

    Args:
        history: a row per epoch: ``epoch``, ``beta``, and ``train/`` and ``val/`` of ``objective``, ``recon``,
            ``kl``, in nats per image, and of the other parts. Values that a row lacks, such as those of
            validation, are not drawn. If beta varies, it has a panel below that of the KL.
        name: of the model, for the title.

    Raises:
        ValueError: ``history`` is empty.
    """
    if not history:
        raise ValueError("history has 0 epochs: train for at least one")
    beta_varies = len({row["beta"] for row in history if "beta" in row}) > 1
    quantities = [*TITLES, *_other_parts(history)]
    rows: list[Any] = [list(TITLES)]
    heights = [4.0]
    if beta_varies:
        rows, heights = [*rows, [*list(TITLES)[:2], "beta"]], [4.0, 1.0]
    for start in range(len(TITLES), len(quantities), len(TITLES)):
        others = quantities[start : start + len(TITLES)]
        rows, heights = [*rows, [*others, *["."] * (len(TITLES) - len(others))]], [*heights, 4.0]
    height = 0.8 + 3.6 * sum(heights) / 4 - 0.9 * beta_varies
    if own_width(13) < NARROW:
        rows = [[quantity] for quantity in quantities]
        heights = [4.0] * len(rows)
        if beta_varies:
            at = list(TITLES).index("kl") + 1
            rows, heights = [*rows[:at], ["beta"], *rows[at:]], [*heights[:at], 1.0, *heights[at:]]
        height = 0.8 + 2.2 * sum(heights) / 4
    figure = new_figure(13, height, least=height)
    panels = figure.subplot_mosaic(rows, sharex=True, height_ratios=heights)
    for quantity in quantities:
        axes = panels[quantity]
        unit = "nats per image" if quantity in TITLES else "mean over batches"  # a part may have any unit
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=SPLITS[split])
        axes.set(title={**TITLES, **PARTS}.get(quantity, quantity), ylabel=unit, xlabel="epoch")
        axes.tick_params(labelbottom=True)
        _show_what_matters(axes, history, quantity)
    if beta_varies:
        panels["kl"].set_xlabel(panels["kl"].get_xlabel().removeprefix("epoch").lstrip("\n"))
        panels["kl"].tick_params(labelbottom=False)
        panels["beta"].tick_params(labelbottom=True)
        panels["beta"].step(*_curve(history, "beta"), where="mid", color="black")
        panels["beta"].set(ylabel="β", xlabel="epoch")
    _count_epochs(panels["objective"])  # the axis is shared
    title = f"Training curves: {name}" if name else "Training curves"
    points = zip(*_curve(history, "val/objective"), strict=True)
    if validated := [(value, epoch) for epoch, value in points if math.isfinite(value)]:
        value, best = min(validated)
        title += f"\n(best validation objective {value:.2f} at epoch {best})"
        for axes in panels.values():
            axes.axvline(best, color="gray", linestyle=":", label="best epoch")
    set_title(figure, title)
    _explain(figure, panels["objective"])
    return figure


def _explain(figure: Figure, panel: Axes) -> None:
    """Add the legend, below the panels of a figure that the user has made narrower."""
    if own_width(13) == 13:
        panel.legend()
    else:
        legend_below(figure, *panel.get_legend_handles_labels(), most=3)


def _other_parts(history: Sequence[Mapping]) -> list[str]:
    """Return the names of the objective's parts other than recon and kl, in the order of the columns."""
    columns = dict.fromkeys(column for row in history for column in row)
    names = [name for split, _, name in (column.partition("/") for column in columns) if split in CURVE_COLOURS]
    return [name for name in dict.fromkeys(names) if name not in (*TITLES, "grad_norm", "neg_elbo")]


def classifier_curves(history: Sequence[Mapping]) -> Figure:
    """Draw loss, accuracy and learning rate of a classifier by epoch.

    Args:
        history: a row per epoch: ``epoch``, ``lr``, ``train/`` and ``val/`` of ``loss`` (nats) and ``accuracy``;
            ``val/`` may be missing. ``train/`` values are of augmented images, without those skipped in the epoch.

    Raises:
        ValueError: ``history`` is empty.
    """
    if not history:
        raise ValueError("history has 0 epochs: train for at least one")
    narrow = own_width(13) < NARROW
    height = 7.4 if narrow else 4.4
    figure = new_figure(13, height, least=height if narrow else 2.4)
    panels = figure.subplots(*((3, 1) if narrow else (1, 3)), sharex=True)
    for axes, (quantity, unit) in zip(
        panels, {"loss": "nats per image", "accuracy": "share"}.items(), strict=False
    ):
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=SPLITS[split])
        axes.set(title=quantity.capitalize(), ylabel=unit, xlabel="epoch")
        axes.tick_params(labelbottom=True)
        _show_what_matters(axes, history, quantity)
    panels[2].plot(*_curve(history, "lr"), marker=".", color="black")
    panels[2].set_xlabel("epoch")
    room = own_width(13) / (1 if narrow else 3) - 1
    set_panel_title(panels[2], "Learning rate at the epoch's end", room)
    _count_epochs(panels[0])  # the axis is shared
    set_title(figure, "Training curves of the classifier")
    _explain(figure, panels[0])
    return figure


def shown_range(epochs: Sequence[int], values: Sequence[float]) -> tuple[float, float] | None:
    """Return the range of values that a panel should show; None if it can show all, as with few epochs.

    The first epochs, and values far from all others, do not count: they would leave the rest a flat line.
    """
    finite = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if math.isfinite(value)]
    if not finite or len(set(epochs)) < FEWEST:
        return None
    least = 1 + FIRST * (max(epochs) - 1)
    later = np.array([value for epoch, value in finite if epoch > least] or [value for _, value in finite])
    first, last = np.quantile(later, [0.5 - MIDDLE / 2, 0.5 + MIDDLE / 2])
    reach = FENCES * (last - first)
    later = later[(later >= first - reach) & (later <= last + reach)]
    low, high = float(later.min()), float(later.max())
    everything = [value for _, value in finite]
    if max(everything) - min(everything) <= RULED * (high - low) or low == high:
        return None
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def _show_what_matters(axes: Axes, history: Sequence[Mapping], quantity: str) -> None:
    """Set the range of a panel, and name on its axis the epochs whose values are outside."""
    curves = [_curve(history, f"{split}/{quantity}") for split in CURVE_COLOURS]
    points = [point for epochs, values in curves for point in zip(epochs, values, strict=True)]
    limits = shown_range([epoch for epoch, _ in points], [value for _, value in points])
    if limits is None:
        return
    axes.set_ylim(*limits)
    axes.set_xlabel(epoch_label(points, *limits))


def epoch_label(points: Sequence[tuple[float, float]], low: float, high: float) -> str:
    """Return the label of the axis of epochs, with the epochs whose values are outside a range.

    Args:
        points: epochs and values.
    """
    told = ["epoch"]
    for where, end, outside in (
        ("above", max, [point for point in points if high < point[1] < math.inf]),
        ("below", min, [point for point in points if -math.inf < point[1] < low]),
    ):
        if outside:
            which = sorted({epoch for epoch, _ in outside})
            names = f"epoch {which[0]:g}" if len(which) == 1 else f"{len(which)} epochs"
            told.append(f"{where}: {names}, to {end(value for _, value in outside):.4g}")
    return "\n".join(told)


def _count_epochs(axes: Axes) -> None:
    """Put ticks at integers on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _curve(history: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Return the epochs whose rows have ``key``, and the values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [row[key] for row in rows]
