"""Training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmvae.visualization.tiles import new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_COLOURS = {"train": "#4477aa", "val": "#cc6633"}
TITLES = {"objective": "Objective", "recon": "Reconstruction", "kl": "KL"}


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
    figure = new_figure(13, 0.8 + 3.6 * sum(heights) / 4 - 0.9 * beta_varies)
    panels = figure.subplot_mosaic(rows, sharex=True, height_ratios=heights)
    for quantity in quantities:
        axes = panels[quantity]
        unit = "nats per image" if quantity in TITLES else "mean over batches"  # a part may have any unit
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=split)
        axes.set(title=TITLES.get(quantity, quantity), ylabel=unit, xlabel="epoch")
        axes.tick_params(labelbottom=True)
    if beta_varies:
        panels["kl"].set_xlabel("")
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
            axes.axvline(best, color="gray", linestyle=":", label="best")
    set_title(figure, title)
    panels["objective"].legend()
    return figure


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
    figure = new_figure(13, 4.4)
    panels = figure.subplots(1, 3, sharex=True)
    for axes, (quantity, unit) in zip(
        panels, {"loss": "nats per image", "accuracy": "share"}.items(), strict=False
    ):
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=split)
        axes.set(title=quantity.capitalize(), ylabel=unit, xlabel="epoch")
    panels[2].plot(*_curve(history, "lr"), marker=".", color="black")
    panels[2].set(title="Learning rate at the epoch's end", xlabel="epoch")
    _count_epochs(panels[0])  # the axis is shared
    set_title(figure, "Training curves of the classifier")
    panels[0].legend()
    return figure


def _count_epochs(axes: Axes) -> None:
    """Put ticks at integers on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _curve(history: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Return the epochs whose rows have ``key``, and the values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [row[key] for row in rows]
