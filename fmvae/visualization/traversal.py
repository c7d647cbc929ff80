"""Latent traversals: vary one latent dimension at a time, with the others fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmvae.errors import ConfigError
from fmvae.models.posterior import Posteriors
from fmvae.objectives import Density
from fmvae.visualization.animation import enlarged, frame, gif
from fmvae.visualization.latent import Ranking, ranking
from fmvae.visualization.model_view import ModelView
from fmvae.visualization.tiles import GAP, new_figure, set_note, set_title, show_tiles, tile, tile_centres

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 10  # dimensions to show, the first in rank, if none are chosen
OTHER_UNITS = (
    "0 and σ: the prior's mean and standard deviation in the dimension\n"
    "MI: mutual information of the dimension and the image, in nats"
)
FOLLOWED = "below each name: the factor that it follows most, and their mutual information"
MARK_COLOUR = "#ee7733"


class Traversal(NamedTuple):
    """Images (D, S, C, H, W): D dimensions at S values, the others at ``start`` (z,).

    Attributes:
        ranking: of all dimensions; those shown are in its order.
        values: (S,), in standard deviations of the prior from its mean.
        own: the values of ``start`` in the shown dimensions, (D,), in the same units.
    """

    dimensions: list[int]
    ranking: Ranking
    values: np.ndarray
    start: Tensor
    own: np.ndarray
    images: Tensor

    def names(self) -> list[str]:
        """Return the name of each row."""
        return [self.ranking.named(dimension) for dimension in self.dimensions]


def chosen_dimensions(dimensions: Sequence[int] | None, latent_dim: int) -> list[int]:
    """Return ``dimensions`` after a check, or all if None.

    Raises:
        ConfigError: a dimension does not exist or is not an integer, or the list is empty.
    """
    if dimensions is None:
        return list(range(latent_dim))
    way_out = "give 0" + (f" to {latent_dim - 1}" if latent_dim > 1 else "")
    if not dimensions:
        raise ConfigError("figures.traversal.dimensions", "an empty list", f"{way_out}, or null for all")
    for dimension in dimensions:
        whole = isinstance(dimension, int) and not isinstance(dimension, bool)
        if not whole or not 0 <= dimension < latent_dim:
            problem = f"dimension {dimension!r} of a model with z = {latent_dim} does not exist"
            raise ConfigError("figures.traversal.dimensions", problem, way_out)
    return list(dict.fromkeys(dimensions))


def traverse(
    view: ModelView,
    posteriors: Posteriors,
    start: Tensor,
    label: int | None = None,
    *,
    prior: Density,
    dimensions: Sequence[int] | None = None,
    span: float = 3.0,
    steps: int = 9,
) -> Traversal:
    """Decode ``start`` with one dimension at a time set to ``steps`` values around the prior's mean.

    Args:
        posteriors: they determine the order of the dimensions, see :func:`fmvae.visualization.latent.ranking`.
        start: (z,), the values of the other dimensions.
        label: for the decoder of a conditional model.
        prior: its mean and standard deviation in each dimension are the origin and the unit of the values.
        dimensions: to vary; None takes all, but at most the first ten.
        span: > 0; values are from -span to +span, in standard deviations of the prior.
        steps: >= 2.

    Raises:
        ConfigError: a dimension does not exist.
        ValueError: ``span`` or ``steps`` is out of range, or the label is missing, not needed or out of range.
    """
    if steps < 2 or not span > 0:
        raise ValueError(f"span {span:g} in {steps} steps: give a span > 0 and 2 steps or more")
    wanted = set(chosen_dimensions(dimensions, view.latent_dim))
    ranked = ranking(posteriors, prior)
    rows = [dimension for dimension in ranked.order() if dimension in wanted]
    if dimensions is None:
        rows = rows[:MAX_ROWS]
    values = np.linspace(-span, span, steps)
    mean, std = prior.moments()
    start = start.to(view.weight)
    own = ((start.cpu() - mean) / std)[rows].numpy()
    z = start.repeat(len(rows), steps, 1)  # (D, S, z)
    for row, dimension in enumerate(rows):
        z[row, :, dimension] = (mean[dimension] + std[dimension] * torch.from_numpy(values)).to(start)
    labels = view.repeated(label, len(rows) * steps)
    images = view.decode_means(z.flatten(0, 1), labels).unflatten(0, (len(rows), steps))
    return Traversal(rows, ranked, values, start, own, images)


def latent_traversal(
    view: ModelView,
    posteriors: Posteriors,
    image: Tensor | None = None,
    label: int | None = None,
    *,
    dimensions: Sequence[int] | None = None,
    span: float = 3.0,
    steps: int = 9,
    prior: Density | None = None,
    followed: Sequence[str] | None = None,
) -> Figure:
    """Draw a traversal: a row per dimension, the most informative first, and a column per value.

    It starts from the posterior mean of an image, or from the prior mean. With an image, it and its reconstruction
    are shown on the left, and a mark in each row shows the image's own value.

    Args:
        image: (C, H, W) in [0, 1]; None starts from the prior mean.
        label: with an image, its label in [0, num_classes), or None if the data have no labels; without an image,
            the class for a conditional model, else None.
        posteriors, dimensions, span, steps: as for :func:`traverse`, which also lists the errors.
        prior: of the model, if already computed.
        followed: for each of the model's dimensions, what to write below its name: the factor that it follows.
    """
    prior = prior or view.prior()
    start, kept = _start(view, prior, image, label)
    traversal = traverse(view, posteriors, start, kept, prior=prior, dimensions=dimensions, span=span, steps=steps)
    num_rows = len(traversal.dimensions)
    from_image = image is not None
    width = max(0.8 * steps + 1.8 + 0.4 * (followed is not None) + 2.2 * from_image, 7)
    note_height = 0.32 * (not prior.is_standard) + 0.16 * (followed is not None)  # inches
    figure = new_figure(width, max(0.82 * num_rows + 1.2, 3.2) + note_height)
    left, axes = None, None
    if from_image:
        left, axes = figure.subplots(1, 2, width_ratios=[1.3, steps])
        _show_image(left, view, image, start, kept)
    else:
        axes = figure.subplots()
    array = tile(traversal.images.flatten(0, 1), steps)
    show_tiles(axes, array)
    _, height, breadth = view.image_shape
    unit = "" if prior.is_standard else "σ"
    axes.set_xticks(tile_centres(steps, breadth), [value_name(value) + unit for value in traversal.values])
    rows = traversal.names()
    if followed is not None:
        below = (followed[dimension] for dimension in traversal.dimensions)
        rows = [f"{name}\n{factor}" for name, factor in zip(rows, below, strict=True)]
    axes.set_yticks(tile_centres(num_rows, height), rows)
    axes.xaxis.tick_top()
    note = f"value of the row's dimension; all others stay at {'0, ' * prior.is_standard}the prior mean"
    if from_image:
        note = "value of the row's dimension, absolute; all others stay at the image's (▲) posterior mean"
    if not prior.is_standard:
        note = note.replace(", absolute", "") + f"\n{OTHER_UNITS}"
    if followed is not None:
        note += f"\n{FOLLOWED}"
    if from_image:
        _mark_own_values(axes, traversal, height, breadth)
    set_note(figure, note)
    set_title(figure, _title(view, traversal, dimensions is None, label, from_image))
    return figure


def _start(view: ModelView, prior: Density, image: Tensor | None, label: int | None) -> tuple[Tensor, int | None]:
    """Return the start of a traversal (z,), and the label for the decoder."""
    if image is None:
        return prior.moments()[0], label
    if label is None and view.class_names is not None:
        raise ValueError("an image without a label: give its label")
    mu = view.encode_means(image[None], None if label is None else torch.tensor([label]))
    return mu[0], label if view.conditional else None


def _show_image(axes: Axes, view: ModelView, image: Tensor, mu: Tensor, label: int | None) -> None:
    """Draw the image above its reconstruction."""
    reconstruction = view.decode_means(mu[None], view.repeated(label, 1))
    show_tiles(axes, tile(torch.cat([image[None].cpu(), reconstruction.cpu()]), 1))
    axes.set_yticks(tile_centres(2, image.shape[-2]), ["original", "reconstruction"], rotation=90, va="center")
    axes.set_anchor("N")


def _mark_own_values(axes: Axes, traversal: Traversal, height: int, breadth: int) -> None:
    """Mark the image's own value below each row's tiles, if it lies within the row's range."""
    own = traversal.own
    first, last = traversal.values[0], traversal.values[-1]
    columns = (own - first) / (last - first) * (len(traversal.values) - 1)
    inside = (own >= first) & (own <= last)
    x = columns * (breadth + GAP) + (breadth - 1) / 2
    y = np.arange(len(own)) * (height + GAP) + height
    axes.plot(x[inside], y[inside], marker="^", markersize=5, linestyle="", color=MARK_COLOUR, clip_on=False)


def _title(view: ModelView, traversal: Traversal, capped: bool, label: int | None, from_image: bool) -> str:
    num_rows = len(traversal.dimensions)
    which = f"Traversal of {num_rows} of {view.latent_dim} dimensions"
    if num_rows == view.latent_dim:
        which = "Latent traversal"
    elif capped:
        which = f"Traversal of the {num_rows} dimensions of largest {traversal.ranking.name}"
    of_class = f" ({name})" if (name := view.of_class(label)) else ""
    origin = f"an image's posterior mean{of_class}" if from_image else f"the prior mean{of_class}"
    return f"{which} from {origin}\n{view.name}"


def value_name(value: float) -> str:
    """Format a column's value, for example ``-0.75``, but never as ``-0``."""
    return f"{round(float(value), 6) + 0.0:.3g}"


def traversal_animation(
    view: ModelView,
    posteriors: Posteriors,
    image: Tensor | None = None,
    label: int | None = None,
    *,
    dimensions: Sequence[int] | None = None,
    span: float = 3.0,
    steps: int = 17,
    scale: int = 4,
    milliseconds: int = 100,
    prior: Density | None = None,
) -> bytes:
    """Make an animated GIF of a traversal: a tile per dimension and a frame per value, forth and back.

    Args:
        image, label, posteriors, dimensions, span, prior: as for :func:`latent_traversal`.
        steps: values in one direction; there are 2 * steps - 2 frames, which repeat forever.
        scale: factor by which pixels are enlarged (nearest neighbour).
        milliseconds: per frame; a GIF stores multiples of ten.

    Returns:
        The file's content.
    """
    prior = prior or view.prior()
    start, kept = _start(view, prior, image, label)
    traversal = traverse(view, posteriors, start, kept, prior=prior, dimensions=dimensions, span=span, steps=steps)
    unit = "" if prior.is_standard else "σ"
    shades = enlarged(traversal.images, scale)
    frames = [
        frame(shades[:, step], traversal.names(), [f"value {value:+.2f}{unit}    {view.name}"])
        for step, value in enumerate(traversal.values)
    ]
    frames += frames[-2:0:-1]
    return gif(frames, [milliseconds] * len(frames))
