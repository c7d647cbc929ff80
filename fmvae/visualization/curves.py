"""How a training went, as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fmvae.visualization.tiles import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_COLOURS = {"train": "#4477aa", "val": "#cc6633"}


def training_curves(history: Sequence[Mapping], name: str = "") -> Figure:
    """Objective, reconstruction and KL by epoch, for training and validation, with the best epoch marked.

    Args:
        history: a row per epoch: ``epoch``, ``beta``, and ``train/`` and ``val/`` of ``objective``, ``recon``
            and ``kl``, in nats per image. What a row lacks, such as validation in most epochs, is not drawn.
            Beta has a panel, below the KL that it weighs, if it varies.
        name: of the model, for the title.

    Raises:
        ValueError: ``history`` is empty.
    """
    if not history:
        raise ValueError("history has 0 epochs: train for at least one")
    beta_varies = len({row["beta"] for row in history if "beta" in row}) > 1
    figure = new_figure(13, 4.4)
    mosaic, heights = ("ORK\nORB", [4, 1]) if beta_varies else ("ORK", [1])
    panels = figure.subplot_mosaic(mosaic, sharex=True, height_ratios=heights)
    for title, quantity in {"Objective": "objective", "Reconstruction": "recon", "KL": "kl"}.items():
        axes = panels[title[0]]
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=split)
        axes.set(title=title, ylabel="nats per image", xlabel="epoch")
    if beta_varies:
        panels["K"].set_xlabel("")
        panels["B"].step(*_curve(history, "beta"), where="mid", color="black")
        panels["B"].set(ylabel="β", xlabel="epoch")
    _count_epochs(panels["O"])  # the axis is shared
    title = f"Training curves: {name}" if name else "Training curves"
    points = zip(*_curve(history, "val/objective"), strict=True)
    if validated := [(value, epoch) for epoch, value in points if math.isfinite(value)]:
        value, best = min(validated)
        title += f"\n(best validation objective {value:.2f} at epoch {best})"
        for axes in panels.values():
            axes.axvline(best, color="gray", linestyle=":", label="best")
    figure.suptitle(title)
    panels["O"].legend()
    return figure


def classifier_curves(history: Sequence[Mapping]) -> Figure:
    """Loss, accuracy and learning rate of a classifier by epoch.

    Args:
        history: a row per epoch: ``epoch``, ``lr``, ``train/`` and ``val/`` of ``loss`` (nats) and ``accuracy``;
            ``val/`` may be missing. ``train/`` is of augmented images that the epoch did not leave out.

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
    figure.suptitle("Training curves of the classifier")
    panels[0].legend()
    return figure


def _count_epochs(axes: Axes) -> None:
    """Whole numbers along the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _curve(history: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """The epochs whose row has ``key``, and their values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [row[key] for row in rows]
