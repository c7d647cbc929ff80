"""Samples from a model's prior, or from another density of its latents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fmvae.visualization.model_view import ModelView, Source
from fmvae.visualization.tiles import new_figure, set_title, show_tiles, tile, tile_centres

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def samples(view: ModelView, num_samples: int = 64, source: Source | None = None) -> Figure:
    """Draw samples (decoder means of latents) in a nearly square grid.

    For a conditional model, draw one row per class with ``num_samples // num_classes`` samples (at least one).

    Args:
        source: gives the latents; None draws them from the prior.

    Raises:
        ValueError: ``num_samples`` < 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    labels = None
    num_columns = math.ceil(math.sqrt(num_samples))
    if view.conditional:
        num_columns = max(1, num_samples // len(view.names))
        classes = torch.arange(len(view.names), device=view.weight.device)
        labels = classes.repeat_interleave(num_columns)
        num_samples = len(labels)
    means = view.sample_means(num_samples, labels, source)
    num_rows = math.ceil(num_samples / num_columns)
    inches = min(0.9, max(0.3, 9 / max(num_columns, num_rows)))  # size of a tile
    width, height = max(num_columns * inches + 1.2, 5), num_rows * inches + 0.5
    figure = new_figure(width, height)
    set_title(figure, f"Samples from {drawn_from(source)}: {view.name}")
    axes = figure.subplots()
    show_tiles(axes, tile(means, num_columns))
    if view.conditional:
        axes.set_yticks(tile_centres(num_rows, means.shape[2]), view.names)
    return figure


def drawn_from(source: Source | None) -> str:
    """Return what latents are drawn from, for titles."""
    return "the prior" if source is None else source.name
