"""Figures of the latent space: posterior means by class, and the KL of each dimension."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fmvae import rng
from fmvae.models.posterior import Posteriors
from fmvae.objectives import Density, kl_divergence
from fmvae.visualization.appearance import own_width, text_size
from fmvae.visualization.density import contour_handles, draw_contours, on_plane
from fmvae.visualization.model_view import ModelView
from fmvae.visualization.tiles import POINTS, legend_below, legend_beside, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRIOR_SHARE = 0.95
PRIOR_RADIUS = math.sqrt(-2 * math.log(1 - PRIOR_SHARE))  # 2-D standard normal: chi-squared, 2 degrees of freedom
PRIOR_INTERVAL = 1.959964  # a 1-D standard normal has the same share of its mass within +- this value
ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, sec. 5.3
MOST_ROWS = 4  # of bars, in the figure of the KL by dimension
MOST_NAMED = 78  # classes in a legend
NARROW = 6.0  # inches: in a narrower figure, legends lie below
ACTIVE_COLOUR, INACTIVE_COLOUR = "#4477aa", "#bbbbbb"


def mean_kl(posteriors: Posteriors) -> np.ndarray:
    """Return each dimension's KL to the prior, averaged over images: (z,) float64, in nats per image."""
    mu, logvar = posteriors.mu.cpu().double(), posteriors.logvar.cpu().double()
    return kl_divergence(mu, logvar).mean(0).numpy()


def information_bound(posteriors: Posteriors) -> np.ndarray:
    """Return an upper bound on the mutual information of x and each dimension: (z,) float64, >= 0, in nats.

    0.5 (log Var - mean log sigma^2), with the variance of the aggregate posterior q(z_j): no distribution of this
    variance has a larger entropy than a Gaussian. It does not depend on the prior.
    """
    mu, logvar = posteriors.mu.cpu().double(), posteriors.logvar.cpu().double()
    variance = mu.var(0, correction=0) + logvar.exp().mean(0)
    return (0.5 * (variance.log() - logvar.mean(0))).numpy()


class Ranking(NamedTuple):
    """Numbers (z,) by which dimensions are ordered, in nats per image, with their symbol and their name."""

    scores: np.ndarray
    symbol: str
    name: str

    def order(self) -> list[int]:
        """Return the dimensions by decreasing score; equal ones by index."""
        return np.argsort(-self.scores, kind="stable").tolist()

    def named(self, dimension: int) -> str:
        """Return for example ``z3  KL 2.41``; dimensions count from 0."""
        return f"z{dimension}  {self.symbol} {self.scores[dimension]:.2f}"


def ranking(posteriors: Posteriors, prior: Density) -> Ranking:
    """Rank dimensions by KL if the prior is N(0, 1); no other prior has a KL for each dimension alone."""
    if prior.is_standard:
        return Ranking(mean_kl(posteriors), "KL", "KL")
    return Ranking(information_bound(posteriors), "MI ≤", "MI bound")


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project points (N, D), D >= 2, onto their first two principal components, by singular value decomposition.

    Returns:
        The coordinates of the points (N, 2) and of the origin (2,), both relative to the points' mean, and the two
        shares of the variance, in [0, 1]. Signs are fixed: the largest loading of a component is positive.
    """
    points = points.astype(np.float64)
    mean = points.mean(0)
    _, singular, components = np.linalg.svd(points - mean, full_matrices=False)
    if len(components) < 2:  # a single point spans no plane
        components, singular = np.eye(2, points.shape[1]), np.zeros(2)
    axes = components[:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]
    total = np.square(singular).sum()
    shares = np.square(singular[:2]) / total if total else np.zeros(2)
    return (points - mean) @ axes.T, -mean @ axes.T, shares


def latent_scatter(
    view: ModelView, posteriors: Posteriors, split_name: str = "test", max_points: int = 10_000
) -> Figure:
    """Draw posterior means, coloured by class; points are in random order, so that no class hides another.

    z = 2 is shown directly, with the circle that contains 95 % of the prior. More dimensions are projected onto
    two principal components; the prior's projection is a 2-D standard normal, with the same circle. z = 1 is shown
    as one strip per class. Without labels there is one colour and one strip. For a prior other than N(0, 1),
    contours of its density are drawn if z = 2; for other z it is not drawn, and the title says so.

    Args:
        posteriors: of N images; mu (N, z) and labels (N,).
        split_name: the split's name, for the title.
        max_points: of more images than this, a random subset is drawn; principal components are those of all
            images.

    Raises:
        ValueError: there are no images, or ``max_points`` < 1.
    """
    generator = rng.stream(view.seed, "sampling")
    order = chosen_points(view, posteriors, max_points, generator)
    num_points = len(order)
    mu, labels = posteriors.mu.cpu().numpy(), posteriors.labels.cpu().numpy()[order]
    prior = view.prior()
    figure = new_figure(9.6, 7, least=5.5)
    axes = figure.subplots()
    if view.latent_dim == 1:
        jitter = 0.7 * torch.rand(num_points, generator=generator).numpy() - 0.35
        points = np.column_stack([mu[order, 0], labels + jitter])
        _frame_strips(axes, view.names if view.class_names else [""], prior.is_standard)
    elif view.latent_dim == 2:
        points = mu[order]
        _frame_plane(axes, ("z0", "z1"), (0, 0) if prior.is_standard else None)
        if not prior.is_standard:
            draw_contours(axes, on_plane(prior, points))
    else:
        projected, origin, shares = principal_components(mu)
        points = projected[order]
        names = [f"PC{i + 1}  ({share:.1%} of variance)" for i, share in enumerate(shares)]
        _frame_plane(axes, names, origin if prior.is_standard else None)
    axes.scatter(
        *points.T, s=5 if num_points > 3000 else 16, c=class_colours(view)[labels], alpha=0.6, linewidths=0
    )
    projection = ", on two principal components" if view.latent_dim > 2 else ""
    title = f"Posterior means of {num_points:,} {split_name} images{projection}: {view.name}"
    handles, names = class_handles(view)
    if prior.is_standard:
        from matplotlib.lines import Line2D

        handles.append(Line2D([], [], color="black", linestyle="--"))
        names.append(_what_is_dashed(view.latent_dim))
    elif view.latent_dim == 2:
        lines, shares = contour_handles()
        handles, names = [*handles, *lines], [*names, *shares]
    else:
        title += "\nthe prior is not N(0, 1), and is not drawn"
    set_title(figure, title)
    if own_width(9.6) < NARROW:
        legend_below(figure, handles, names, 2)
    else:
        legend_beside(figure, axes, handles, names)
    return figure


def _what_is_dashed(latent_dim: int) -> str:
    """Return the legend's words for the circle, or the two lines, that hold a share of N(0, 1)."""
    share = f"{PRIOR_SHARE:.0%} of the prior N(0, 1)"
    if latent_dim == 1:
        return f"{share}\nlies between these lines"
    if latent_dim == 2:
        return f"{share}\nlies in this circle"
    return f"{share},\nprojected like the means,\nlies in this circle"


def chosen_points(
    view: ModelView, posteriors: Posteriors, max_points: int, generator: torch.Generator | None = None
) -> np.ndarray:
    """Return the indices of at most ``max_points`` images, in random order of the stream ``sampling``.

    Raises:
        ValueError: there are no images, or ``max_points`` < 1.
    """
    if (num_points := min(max_points, len(posteriors.labels))) < 1:
        raise ValueError(f"max_points {max_points} of {len(posteriors.labels)} images: give 1 or more of each")
    generator = generator or rng.stream(view.seed, "sampling")
    return torch.randperm(len(posteriors.labels), generator=generator)[:num_points].numpy()


def class_colours(view: ModelView) -> np.ndarray:
    """Return the colour of each label, (num_classes, 4); one without labels."""
    from matplotlib import colormaps

    classes = np.arange(len(view.class_names or [""]))
    return colormaps["tab10" if len(classes) <= 10 else "tab20"](classes % 20)


def class_handles(view: ModelView) -> tuple[list[Any], list[str]]:
    """Return a legend's handles and names of posterior means by class; of many classes, how many are not named."""
    from matplotlib.lines import Line2D

    names = list(view.names if view.class_names else ["posterior means"])
    handles: list[Any] = [
        Line2D([], [], color=each, marker="o", linestyle="") for each in class_colours(view)[:MOST_NAMED]
    ]
    if left_out := max(len(names) - MOST_NAMED, 0):
        return [*handles, Line2D([], [], linestyle="")], [*names[:MOST_NAMED], f"and {left_out:,} more"]
    return handles, names


def _frame_plane(axes: Axes, names, origin) -> None:
    """Label the axes, and draw the circle of N(0, 1) around the origin, if there is one."""
    from matplotlib.patches import Circle

    if origin is not None:
        axes.add_patch(Circle(tuple(origin), PRIOR_RADIUS, fill=False, linestyle="--", color="black"))
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")


def _frame_strips(axes: Axes, class_names, standard: bool) -> None:
    """Label one strip per class, the first on top; the height within a strip has no meaning."""
    for end in (-PRIOR_INTERVAL, PRIOR_INTERVAL) if standard else ():
        axes.axvline(end, linestyle="--", color="black", linewidth=1)
    axes.set(xlabel="z0", ylim=(len(class_names) - 0.5, -0.5))
    axes.set_yticks(range(len(class_names)), class_names)


def kl_per_dimension(view: ModelView, posteriors: Posteriors, split_name: str = "test") -> Figure:
    """Draw each dimension's mean KL in nats per image as a bar, largest first, active units in colour.

    A unit is active if the variance of its posterior mean over images is above 0.01 (Burda et al. 2016, sec. 5.3).
    Many dimensions take up to four rows on one scale; where names have no room, every second or third is named.

    Args:
        posteriors: of N >= 1 images.
        split_name: the split's name, for the title.

    Raises:
        ValueError: the prior is not N(0, 1), and has no KL for each dimension alone.
    """
    if not view.prior().is_standard:
        raise ValueError(f"{view.name}: only from the prior N(0, 1) does each dimension have a KL of its own")
    kl = mean_kl(posteriors)
    active = posteriors.mu.cpu().double().var(0, correction=0).numpy() > ACTIVE_VARIANCE
    order = Ranking(kl, "KL", "KL").order()
    width = min(16, max(6.5, 0.45 * len(order) + 2))
    room = own_width(width) - 1.4  # inches
    named = max(1, int(room / (1.5 * text_size(8) / POINTS)))  # bars in a row that have room for their names
    num_rows = min(MOST_ROWS, math.ceil(len(order) / named))
    in_a_row = math.ceil(len(order) / num_rows)  # rows of about equal length
    every, many = math.ceil(in_a_row / named), in_a_row > min(24, room / 0.3)
    figure = new_figure(width, 4.2 + 2.2 * (num_rows - 1), least=2.2 + 1.2 * num_rows)
    rows = figure.subplots(num_rows, 1, sharey=True, squeeze=False)[:, 0]
    for axes, start in zip(rows, range(0, len(order), in_a_row), strict=True):
        some = order[start : start + in_a_row]
        axes.bar(range(len(some)), kl[some], color=[ACTIVE_COLOUR if active[d] else INACTIVE_COLOUR for d in some])
        axes.set_xticks(range(0, len(some), every), [f"z{d}" for d in some[::every]])
        axes.tick_params(axis="x", rotation=90 if many else 0, labelsize=text_size(8 if many else 10))
        axes.set_ylabel("KL (nats per image)" if num_rows == 1 else "KL (nats)")
        axes.set_xlim(-0.6, max(in_a_row, 6) - 0.4)  # keep a single bar narrow
    counted = f"{active.sum()} of {len(order)} units active, {kl.sum():.2f} nats in all"
    images = f"mean of {len(posteriors.labels):,} {split_name} images"
    set_title(figure, f"KL per latent dimension: {view.name}\n{images}; {counted}", fontsize=text_size(11))
    rows[-1].set_xlabel("latent dimension, by KL")
    variance = f"variance of the posterior mean > {ACTIVE_VARIANCE:g}"
    kinds = {f"active ({variance})": ACTIVE_COLOUR, "inactive": INACTIVE_COLOUR}
    there = [kind for kind, any_such in zip(kinds, (active.any(), not active.all()), strict=True) if any_such]
    from matplotlib.patches import Patch

    legend_below(figure, [Patch(color=kinds[kind]) for kind in there], there, 2)
    return figure
