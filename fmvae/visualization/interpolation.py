"""Interpolation between images through the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmvae.data.split import Split
from fmvae.visualization.model_view import ModelView
from fmvae.visualization.tiles import new_figure, set_note, set_title, show_tiles, tile, tile_centres

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_PAIRS = 4  # of each kind


def interpolation_pairs(split: Split, num_pairs: int = NUM_PAIRS, labelled: bool = True) -> tuple[Tensor, Tensor]:
    """Choose pairs of images: some within a class, and some between classes with distant labels.

    Args:
        labelled: whether the images have classes. If not, the split's first images are paired in their order.

    Returns:
        Indices of the first and of the second images, each (P,), P <= 2 * num_pairs; P is 0 for fewer than two
        images.
    """
    if not labelled:
        num_images = min(len(split), 4 * num_pairs) // 2 * 2
        first, second = torch.arange(num_images).reshape(-1, 2).unbind(1)
        return first, second
    labels = split.labels.cpu()
    members = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    pairs = [(own[0], own[1]) for own in members if len(own) > 1][:num_pairs]
    half = len(members) // 2
    pairs += [(one[0], other[0]) for one, other in zip(members, members[half:], strict=False) if half][:num_pairs]
    first, second = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return first, second


def interpolations(
    view: ModelView, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], steps: int = 10
) -> Figure:
    """Draw one row per pair: the two originals, and between them decoded interpolations of their posterior means.

    A conditional model encodes each image with its own label, and decodes the whole row with the label of the left
    image, as labels cannot be interpolated; the title says so. The right end is then a reconstruction of the right
    image only if both have the same class.

    Args:
        first, second: images (P, C, H, W) in [0, 1] and labels (P,) of the left and of the right ends, P >= 1.
        steps: decoded images per row, both ends included, >= 2.

    Raises:
        ValueError: images or labels have a wrong shape or range, or ``steps`` < 2.
    """
    if steps < 2:
        raise ValueError(f"steps must be >= 2, got {steps}")
    (left, left_labels), (right, right_labels) = view.checked(*first), view.checked(*second)
    mu_left, mu_right = view.encode_means(left, left_labels), view.encode_means(right, right_labels)
    share = torch.linspace(0, 1, steps, device=mu_left.device, dtype=mu_left.dtype)
    z = torch.lerp(mu_left[:, None], mu_right[:, None], share[None, :, None])  # (P, S, z)
    means = view.decode_means(z.flatten(0, 1), left_labels.repeat_interleave(steps))
    rows = torch.cat(
        [left[:, None], means.unflatten(0, z.shape[:2]), right[:, None]], dim=1
    )  # (P, S + 2, C, H, W)

    num_rows, num_columns = rows.shape[:2]
    figure = new_figure(0.8 * num_columns + 2.4, 0.82 * num_rows + 1.1)
    axes = figure.subplots()
    show_tiles(axes, tile(rows.flatten(0, 1), num_columns))
    _, height, width = view.image_shape
    centres = tile_centres(num_columns, width)
    axes.set_xticks(centres, ["original", *(f"{t:.2f}" for t in share.tolist()), "original"])
    if view.class_names is not None:
        axes.set_yticks(tile_centres(num_rows, height), _pair_names(view, left_labels, right_labels))
    axes.xaxis.tick_top()
    for between in ((centres[0] + centres[1]) / 2, (centres[-2] + centres[-1]) / 2):  # data | model | data
        axes.axvline(between, color="#ee7733", linewidth=2)
    set_note(figure, "position between the two posterior means (0 left, 1 right)")
    different = bool((left_labels != right_labels).any())
    note = "; decoded as the left image's class" if view.conditional and different else ""
    set_title(figure, f"Interpolations between posterior means{note}\n{view.name}")
    return figure


def _pair_names(view: ModelView, left: Tensor, right: Tensor) -> list[str]:
    pairs = zip(view.names_of(left), view.names_of(right), strict=True)
    return [one if one == other else f"{one} → {other}" for one, other in pairs]
