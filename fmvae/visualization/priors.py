"""Figures of learned priors: pseudo-inputs, and the density beside the posterior means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fmvae.models import VampPrior
from fmvae.models.posterior import Posteriors
from fmvae.visualization.appearance import own_width, text_size
from fmvae.visualization.density import Plane, contour_handles, draw_contours, on_plane
from fmvae.visualization.latent import NARROW, chosen_points, class_colours, class_handles
from fmvae.visualization.model_view import ModelView
from fmvae.visualization.tiles import (
    legend_below,
    legend_beside,
    looking_at,
    new_figure,
    set_panel_title,
    set_title,
    show_tiles,
    tile,
)

if TYPE_CHECKING:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

MAX_TILES = 100
PANEL, MIN_PANEL, MAX_PANEL = 5.0, 2.5, 7.0  # height, and range of the width, of a panel in inches
BELOW = 10  # the scale of p(z) starts at p of the outermost contour divided by this


def pseudo_inputs(view: ModelView, max_tiles: int = MAX_TILES) -> Figure:
    """Draw the pseudo-inputs of a VampPrior as images, the first ``max_tiles`` in a nearly square grid.

    Raises:
        ValueError: the model has no VampPrior, or ``max_tiles`` < 1.
    """
    prior = view.model.latent_prior
    if not isinstance(prior, VampPrior):
        raise ValueError(f"{view.name} has no pseudo-inputs: its prior is a {type(prior).__name__}")
    if max_tiles < 1:
        raise ValueError(f"max_tiles must be >= 1, got {max_tiles}")
    with looking_at(view.model):
        images = prior.pseudo_inputs
    num_tiles = min(max_tiles, len(images))
    num_columns = math.ceil(math.sqrt(num_tiles))
    num_rows = math.ceil(num_tiles / num_columns)
    inches = min(0.9, max(0.3, 9 / num_columns))  # size of a tile
    figure = new_figure(max(num_columns * inches + 0.4, 5), num_rows * inches + 0.7)
    counted = f"{num_tiles:,} of {len(images):,}" if num_tiles < len(images) else f"{len(images):,}"
    set_title(figure, f"{counted} pseudo-inputs of the VampPrior\n{view.name}")
    show_tiles(figure.subplots(), tile(images[:num_tiles], num_columns))
    return figure


def prior_density(
    view: ModelView, posteriors: Posteriors, split_name: str = "test", max_points: int = 10_000
) -> Figure:
    """Draw the density of a prior of two latents on the left, and posterior means by class on the right.

    In a narrow figure, the second panel is below the first.

    Both panels have the same axes and the same contours, which hold 50, 80 and 95 % of the prior's mass.
    The scale of p(z) is logarithmic.

    Args:
        posteriors: of N >= 1 images; mu (N, 2) and labels (N,).
        split_name: the split's name, for the title.
        max_points: of more images than this, a random subset is drawn.

    Raises:
        ValueError: z is not 2, there are no images, or ``max_points`` < 1.
    """
    if view.latent_dim != 2:
        what = f"prior_density shows two latent dimensions, the model has z = {view.latent_dim}"
        raise ValueError(f"{what}: train with z = 2")
    chosen = chosen_points(view, posteriors, max_points)
    points, labels = posteriors.mu.cpu().numpy()[chosen], posteriors.labels.cpu().numpy()[chosen]
    plane = on_plane(view.prior(), points)
    breadth, height = np.ptp(plane.z0), np.ptp(plane.z1)
    panel = min(MAX_PANEL, max(MIN_PANEL, PANEL * breadth / height))  # wide; both scales are the same
    width = own_width(2 * panel + 4.8)
    narrow = width < NARROW
    figure = new_figure(2 * panel + 4.8, min(PANEL, panel * height / breadth) + 1.2)
    if narrow:
        figure.set_figheight(2 * min(PANEL, (width - 1) * height / breadth) + 2.4)
    figure.set_layout_engine("compressed")  # panels keep their proportions, and what belongs to them stays near
    set_title(figure, f"Prior and posterior means of {len(points):,} {split_name} images: {view.name}")
    left, right = figure.subplots(*((2, 1) if narrow else (1, 2)), sharex=True, sharey=True)
    shades = left.pcolormesh(plane.z0, plane.z1, plane.p, cmap="Blues", norm=_scale(plane), rasterized=True)
    figure.colorbar(shades, ax=left, location="left", label="p(z), on a logarithmic scale", extend="min")
    right.scatter(
        *points.T, s=5 if len(points) > 3000 else 16, c=class_colours(view)[labels], alpha=0.6, linewidths=0
    )
    room = (width - 1) if narrow else panel
    set_panel_title(left, "density of the prior", room, fontsize=text_size(10))
    set_panel_title(right, "posterior means, and the same contours", room, fontsize=text_size(10))
    for axes in (left, right):
        draw_contours(axes, plane)
        axes.set(xlabel="z0", ylabel="z1", aspect="equal")
        axes.tick_params(labelleft=True, labelbottom=True)
    (dots, classes), (lines, shares) = class_handles(view), contour_handles()
    entries = [*dots, *lines], [*classes, *shares]
    if narrow:
        legend_below(figure, *entries, most=2)
    else:
        legend_beside(figure, right, *entries)
    return figure


def _scale(plane: Plane) -> LogNorm:
    """Return a logarithmic scale from a tenth of p at the outermost contour to the largest p on the grid.

    A few narrow peaks would leave the rest of a linear scale white.
    """
    from matplotlib.colors import LogNorm

    outermost = plane.levels[0]
    # the grid can miss a peak that is narrower than its step
    return LogNorm(outermost / BELOW, max(float(plane.p.max()), outermost * BELOW), clip=False)
