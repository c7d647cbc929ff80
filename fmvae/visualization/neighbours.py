"""Generated images beside the training images that are nearest to them: does the model copy?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fmvae.data.split import Split, to_float
from fmvae.visualization.model_view import ModelView, Source
from fmvae.visualization.samples import drawn_from
from fmvae.visualization.tiles import new_figure, set_note, set_title, show_tiles, tile, tile_centres

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_NEAREST = 3
ROWS = ("generated", "nearest training image", "second nearest", "third nearest")
CHUNK = 4096  # training images at a time: 13 MB of 28 x 28 pixels


def nearest_images(images: Tensor, among: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Find the nearest images by the Euclidean distance of all pixels.

    Args:
        images: (N, C, H, W) in [0, 1].
        among: (M, C, H, W), uint8, M >= num.

    Returns:
        The distances (N, num) in ascending order, and the indices (N, num) in ``among``.
    """
    points = images.flatten(1).double().cpu()
    best = torch.full((len(points), num), torch.inf, dtype=torch.float64)
    index = torch.zeros((len(points), num), dtype=torch.long)
    for start in range(0, len(among), CHUNK):
        others = to_float(among[start : start + CHUNK]).flatten(1).double().cpu()
        distances = torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")  # 0 for a copy
        own = torch.arange(start, start + len(others)).expand(len(points), -1)
        best, order = torch.cat([best, distances], 1).topk(num, largest=False, sorted=True)
        index = torch.cat([index, own], 1).gather(1, order)
    return best, index


def neighbours(
    view: ModelView, train: Split, test: Split, source: Source | None = None, num_columns: int = 10
) -> Figure:
    """Draw generated images, and below each the three training images with the smallest distance in pixels.

    Below each column is the distance of the nearest one. The title has the median over the columns, and the
    same for as many test images (or all, if there are fewer), which are no copies: a model that copies is nearer
    than these. It says of how many images both are.

    Args:
        train, test: three or more training images, and at least one test image.
        source: gives the latents; None draws them from the prior. A conditional model draws each class in turn.

    Raises:
        ValueError: there are too few images.
    """
    if len(train) < NUM_NEAREST or not len(test):
        raise ValueError(f"{len(train)} training and {len(test)} test images: {NUM_NEAREST} and 1 are needed")
    labels = None
    if view.conditional:
        labels = torch.arange(num_columns, device=view.weight.device) % len(view.names)
    means = view.sample_means(num_columns, labels, source).cpu()
    distances, found = nearest_images(means, train.images, NUM_NEAREST)
    real, _ = nearest_images(to_float(test.images[:num_columns]), train.images, 1)
    rows = [means, *(to_float(train.images[index]) for index in found.T)]
    figure = new_figure(num_columns * 0.9 + 2.2, len(rows) * 0.95 + 0.9)
    # results.json has numbers of these names, of more images and among other training images
    sets = f"{num_columns:,} images shown, against all {len(train):,} training images"
    medians = f"median distance {distances[:, 0].median():.2f}, of {len(real):,} test images {real.median():.2f}"
    set_title(
        figure,
        f"Nearest training images of samples from {drawn_from(source)}, in pixels: {view.name}\n{sets}: {medians}",
    )
    axes = figure.subplots()
    show_tiles(axes, tile(torch.cat([row.to(means) for row in rows]), num_columns))
    _, _, height, width = means.shape
    axes.set_yticks(tile_centres(len(rows), height), ROWS)
    axes.set_xticks(tile_centres(num_columns, width), [f"{value:.2f}" for value in distances[:, 0]])
    set_note(figure, "distance to the nearest training image", 10)
    return figure
