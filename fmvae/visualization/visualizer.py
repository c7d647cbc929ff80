"""Figures of a VAE: reconstructions, samples and the latent space.

They do not use pyplot, do not change the model, and draw random numbers from the stream ``sampling`` only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fmvae.data.split import Split, to_float
from fmvae.objectives import Density
from fmvae.visualization.appearance import own_width
from fmvae.visualization.density import SHARES, within_largest
from fmvae.visualization.latent import latent_scatter
from fmvae.visualization.model_view import ModelView, Source
from fmvae.visualization.samples import samples
from fmvae.visualization.tiles import (
    break_lines,
    name_columns,
    new_figure,
    set_title,
    show_tiles,
    tile,
    tile_centres,
)
from fmvae.visualization.traversal import latent_traversal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_COLUMNS = 10  # reconstructions per row
MANIFOLD_MARGIN = 1.2  # inches that a title leaves free, which is centred on the panel
VEIL = 0.75  # opacity of the white over pale tiles
CROWDED = 0.03  # of an axis: ticks that are closer to the one before are left out


class VAEVisualizer(ModelView):
    """Draw figures of one model; the constructor's arguments are those of :class:`ModelView`.

    Each method returns a new ``Figure``, which depends on the seed only.
    """

    def show_reconstructions(self, images: Tensor, labels: Tensor | None = None) -> Figure:
        """Draw each image above its reconstruction at the posterior mean, ten per row.

        Args:
            images: (N, C, H, W) in [0, 1], N >= 1.
            labels: (N,) integers; None if the data have no labels.

        Raises:
            ValueError: images or labels have a wrong shape or range.
        """
        images, labels = self.checked(images, labels)
        means = self.decode_means(self.encode_means(images, labels), labels)
        num_columns = min(len(images), NUM_COLUMNS)
        num_rows = math.ceil(len(images) / num_columns)
        figure = new_figure(max(num_columns, 4) + 1.2, 2.35 * num_rows + 0.4)
        set_title(figure, f"Reconstructions at the posterior mean: {self.name}")
        _, _, height, width = images.shape
        panels = figure.subplots(num_rows, squeeze=False).flat
        parts = (part.split(num_columns) for part in (images, means, labels))
        for axes, above, below, row in zip(panels, *parts, strict=True):
            show_tiles(axes, np.concatenate([tile(above, num_columns), tile(below, num_columns)]))
            axes.xaxis.tick_top()
            if self.class_names is not None:
                name_columns(axes, tile_centres(len(row), width), self.names_of(row), 1, 9)
            axes.set_yticks(tile_centres(2, height), ["original", "reconstruction"])
        return figure

    def generate_samples(self, num_samples: int = 64, source: Source | None = None) -> Figure:
        """Draw samples (decoder means of latents) in a nearly square grid.

        For a conditional model, draw one row per class with ``num_samples // num_classes`` samples (at least one).

        Args:
            source: gives the latents; None draws them from the prior.

        Raises:
            ValueError: ``num_samples`` < 1.
        """
        return samples(self, num_samples, source)

    def latent_manifold(self, side: int = 20, label: int | None = None) -> Figure:
        """Draw decoder means over the plane of two latents; every row and column covers the same prior mass.

        The grid points are the quantiles of the prior in each dimension at (i + 0.5) / side, for N(0, 1) as in
        Kingma & Welling 2014, app. A; z0 increases to the right, z1 upwards. Any other prior need not have mass
        where both are: tiles outside the contour that holds 95 % of it are pale.

        Args:
            side: tiles per row and column, >= 1.
            label: the class of all tiles, for a conditional model.

        Raises:
            ValueError: z is not 2, ``side`` < 1, or the label is missing, not needed or out of range.
        """
        if self.latent_dim != 2:
            what = f"latent_manifold shows two latent dimensions, the model has z = {self.latent_dim}"
            raise ValueError(f"{what}: train with z = 2")
        if side < 1:
            raise ValueError(f"side must be >= 1, got {side}")
        labels = self.repeated(label, side * side)
        prior = self.prior()
        quantiles = prior.quantiles((torch.arange(side, dtype=torch.float64) + 0.5) / side)  # (side, 2)
        z1, z0 = torch.meshgrid(quantiles[:, 1].flip(0), quantiles[:, 0], indexing="ij")
        z = torch.stack([z0, z1], dim=-1).flatten(0, 1).to(self.weight)  # (side * side, 2), in reading order
        means = self.decode_means(z, labels)
        figure = new_figure(8, 8.3, least=3.8)
        axes = figure.subplots()
        show_tiles(axes, tile(means, side, gap=0))
        of_class = f" of {name}" if (name := self.of_class(label)) else ""
        title, shares = f"Latent manifold{of_class}: {self.name}", "equal shares of the prior"
        height, width = axes.images[0].get_size()
        if not prior.is_standard:
            shares += " in each dimension alone"
            title += f"\npale: outside the contour that holds {SHARES[0]:.0%} of the prior"
            _veil(axes, within_largest(prior, z).reshape(side, side), axes.images[0].get_extent())
        break_lines(axes.xaxis.label, f"z0 ({shares})", own_width(8) - MANIFOLD_MARGIN, colon=False)
        axes.set_ylabel("z1")
        break_lines(axes.set_title(""), title, own_width(8) - MANIFOLD_MARGIN)
        (below0, names0), (below1, names1) = (_ticks(prior, quantiles, dimension) for dimension in (0, 1))
        axes.set_xticks(below0 * width - 0.5, names0)
        axes.set_yticks((1 - below1) * height - 0.5, names1)
        axes.tick_params(length=3)
        return figure

    def latent_scatter(self, split: Split, max_points: int = 10_000) -> Figure:
        """Draw posterior means of a split by class, see :func:`fmvae.visualization.latent.latent_scatter`."""
        if min(max_points, len(split)) < 1:
            raise ValueError(f"max_points {max_points} of {len(split)} images: give 1 or more of each")
        return latent_scatter(self, self.posteriors(split), split.name, max_points)

    def latent_traversal(
        self, split: Split, index: int | None = None, label: int | None = None, **options: Any
    ) -> Figure:
        """Vary one latent dimension per row, starting from the prior mean or from image ``index`` of a split.

        Args:
            split: its posteriors determine the order of the dimensions.
            index: of the image to start from, with its label. None starts from the prior mean.
            label: for a conditional model that starts from the prior mean.
            options: of :func:`fmvae.visualization.traversal.latent_traversal`.
        """
        posteriors = self.posteriors(split)
        if index is None:
            return latent_traversal(self, posteriors, label=label, **options)
        image = to_float(split.images[index])
        return latent_traversal(self, posteriors, image=image, label=int(split.labels[index]), **options)


def _veil(axes: Axes, kept: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """Make tiles pale that are not kept, of a square of tiles (side, side) in this extent."""
    veil = np.ones((*kept.shape, 4))  # white
    veil[..., 3] = np.where(kept, 0, VEIL)
    axes.imshow(veil, extent=extent, interpolation="nearest")


def _ticks(prior: Density, quantiles: Tensor, dimension: int) -> tuple[np.ndarray, list[str]]:
    """Return the share of the prior's mass below round values (T,) of a dimension, and the values' names.

    The axes of the manifold are linear in these shares.
    """
    low, high = quantiles[:, dimension].min().item(), quantiles[:, dimension].max().item()
    if prior.is_standard:
        values = np.arange(-3, 3.1, 0.5)
    else:
        from matplotlib.ticker import MaxNLocator

        values = np.asarray(MaxNLocator(10).tick_values(low, high))
    values = values[(values >= low) & (values <= high)]
    below = prior.shares_below(torch.from_numpy(values)[:, None].expand(-1, prior.latent_dim))[
        :, dimension
    ].numpy()
    if not prior.is_standard:  # where the prior has little mass, values crowd
        kept = [i for i in range(len(values)) if i == 0 or below[i] - below[i - 1] > CROWDED]
        values, below = values[kept], below[kept]
    return below, [f"{value:g}" for value in values]
