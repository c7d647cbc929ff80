"""Figures by class: samples and style transfer of conditional models, and a classifier's results on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fmvae.common.class_names import drawable
from fmvae.visualization.appearance import own_width, text_size
from fmvae.visualization.model_view import ModelView, Source
from fmvae.visualization.samples import drawn_from, samples
from fmvae.visualization.tiles import (
    GAP,
    legend_below,
    name_columns,
    new_figure,
    set_note,
    set_title,
    show_tiles,
    tile,
    tile_centres,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATED_COLOUR, REAL_COLOUR = "#4477aa", "#bbbbbb"
FRAME_COLOUR = "#ee7733"
NARROW = 5.5  # inches: entries of the legend of a narrower figure have two lines


def class_samples(view: ModelView, num_per_class: int = 20, source: Source | None = None) -> Figure:
    """Draw samples (decoder means of latents from a source, or from the prior), one row per class.

    Raises:
        ValueError: the model is not conditional, or ``num_per_class`` < 1.
    """
    _need_labels(view, "class_samples")
    figure = samples(view, num_per_class * len(view.names), source)
    set_title(figure, f"{num_per_class} samples for each class, from {drawn_from(source)}: {view.name}")
    return figure


def style_transfer(view: ModelView, images: Tensor, labels: Tensor) -> Figure:
    """Draw one row per image: the original, and then its posterior mean decoded with each label.

    A frame marks the tile with the image's own label, which is its reconstruction.

    Args:
        images: (N, C, H, W) in [0, 1], N >= 1.
        labels: (N,) integers.

    Raises:
        ValueError: the model is not conditional, or images or labels have a wrong shape or range.
    """
    _need_labels(view, "style_transfer")
    images, labels = view.checked(images, labels)
    num_rows, num_classes = len(images), len(view.names)
    z = view.encode_means(images, labels).repeat_interleave(num_classes, dim=0)
    means = view.decode_means(z, torch.arange(num_classes, device=z.device).repeat(num_rows))
    rows = torch.cat([images[:, None], means.unflatten(0, (num_rows, num_classes))], dim=1)  # (N, K + 1, C, H, W)

    figure = new_figure(0.86 * num_classes + 2.4, 0.82 * num_rows + 1.3)
    axes = figure.subplots()
    show_tiles(axes, tile(rows.flatten(0, 1), num_classes + 1))
    _, height, width = view.image_shape
    names = view.names
    centres = tile_centres(num_classes + 1, width)
    from matplotlib.patches import Rectangle

    axes.xaxis.tick_top()
    name_columns(axes, centres, ["original", *names], 0.86, 8)
    axes.set_yticks(tile_centres(num_rows, height), [names[label] for label in labels.tolist()])
    axes.axvline((centres[0] + centres[1]) / 2, color="white", linewidth=2)
    for row, label in enumerate(labels.tolist()):
        corner = ((label + 1) * (width + GAP) - 1, row * (height + GAP) - 1)
        axes.add_patch(
            Rectangle(corner, width + 1, height + 1, fill=False, color=FRAME_COLOUR, linewidth=1.5, clip_on=False)
        )
    set_note(figure, "class given to the decoder (framed: the image's own class, its reconstruction)")
    set_title(figure, f"One style, every class: {view.name}")
    return figure


def confusion_matrix(
    matrix: np.ndarray | Tensor | Sequence[Sequence[int]],
    class_names: Sequence[str],
    title: str,
    *,
    rows: str = "true class",
    columns: str = "predicted class",
) -> Figure:
    """Draw a grid of counts, coloured by their share of the row.

    Args:
        matrix: (C, C) counts, a row per true (or requested) class, a column per predicted class.
        class_names: C names, any texts.
        title: of the figure.
        rows, columns: labels of the axes.

    Raises:
        ValueError: the matrix has another shape or a negative count.
    """
    counts = np.asarray(matrix)
    num_classes = len(class_names)
    if counts.shape != (num_classes, num_classes) or counts.min() < 0:
        raise ValueError(
            f"matrix {counts.shape} from {counts.min()}: give counts of {num_classes} x {num_classes}"
        )
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # an empty row stays 0
    figure = new_figure(0.72 * num_classes + 2.2, 0.62 * num_classes + 1.6)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    set_title(figure, title)
    axes.set(xlabel=columns, ylabel=rows)
    names = drawable(class_names)
    axes.set_xticks(range(num_classes), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(num_classes), names)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black" if count else "#aaaaaa"
        axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=text_size(9))
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.04)
    return figure


def class_accuracy(
    generated: Sequence[float] | np.ndarray,
    real: Sequence[float] | np.ndarray,
    class_names: Sequence[str],
    title: str = "Accuracy of the classifier, by class",
) -> Figure:
    """Draw a classifier's accuracy for each class, on generated images and on real ones.

    Args:
        generated, real: C accuracies each, in [0, 1]; NaN for a class without images. The legend shows their means
            over classes, which equal the overall accuracies if all classes have the same number of images.
        class_names: C names, any texts.

    Raises:
        ValueError: the number of accuracies is not C, one is out of range, or all are NaN.
    """
    sides = {"generated images": np.asarray(generated, float), "real test images": np.asarray(real, float)}
    width = max(1.0 * len(class_names) + 1.5, 9)  # the legend needs 9
    figure = new_figure(width, 4.4, least=3.6)
    axes = figure.subplots()
    for offset, (name, values), colour in zip(
        (-0.2, 0.2), sides.items(), (GENERATED_COLOUR, REAL_COLOUR), strict=True
    ):
        known = values[~np.isnan(values)]
        if values.shape != (len(class_names),) or not len(known) or known.min() < 0 or known.max() > 1:
            raise ValueError(f"{name}: give {len(class_names)} accuracies in [0, 1], got {values.tolist()}")
        label = f"{name}: {known.mean():.2%} on average over classes"
        label = label.replace(": ", ":\n") if own_width(width) < NARROW else label
        bars = axes.bar(np.arange(len(values)) + offset, values, 0.4, color=colour, label=label)
        texts = ["" if np.isnan(value) else f"{100 * value:.1f}" for value in values]
        axes.bar_label(bars, texts, fontsize=text_size(8), padding=1)
    room = (own_width(width) - 1.5) / len(class_names)
    turned = name_columns(axes, range(len(class_names)), drawable(class_names), room, 10)
    axes.set_yticks(np.linspace(0, 1, 6), [f"{value:.0%}" for value in np.linspace(0, 1, 6)])
    set_title(figure, title)
    axes.set(ylabel="accuracy", ylim=(0, 1.08))
    axes.spines[["top", "right"]].set_visible(False)
    if turned or own_width(width) < width:
        legend_below(figure, *axes.get_legend_handles_labels(), most=2)
    else:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    return figure


def _need_labels(view: ModelView, method: str) -> None:
    if not view.conditional:
        raise ValueError(f"{method} needs a conditional model, {view.name} takes no labels")
