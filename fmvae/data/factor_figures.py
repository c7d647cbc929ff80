"""Figures of images with ground-truth factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from fmvae.data.split import Split, to_float

Render = Callable[[torch.Tensor], torch.Tensor]

MAX_COLUMNS = 10  # values of a factor that are drawn; of more, these are evenly spread


def factor_figures(
    splits: Sequence[Split], names: Sequence[str], sizes: Sequence[int], render: Render | None
) -> dict[str, Figure]:
    """Return the figures of data with factors: counts of values, and images if the data can render them."""
    figures = {"factor_values": factor_values(splits, names, sizes)}
    return {"factors": factor_grid(names, sizes, render), **figures} if render else figures


def shown_values(size: int) -> list[int]:
    """Return which values of a factor are drawn: all, or the first, the last and others evenly between them."""
    num = min(size, MAX_COLUMNS)
    return [round(i * (size - 1) / max(1, num - 1)) for i in range(num)]


def varied(sizes: Sequence[int], k: int) -> torch.Tensor:
    """Return the factors (n, K) of a row: factor k has its shown values, the others their middle ones."""
    values = shown_values(sizes[k])
    rows = torch.tensor([[size // 2 for size in sizes]]).repeat(len(values), 1)
    rows[:, k] = torch.tensor(values)
    return rows


def factor_grid(names: Sequence[str], sizes: Sequence[int], render: Render) -> Figure:
    """Draw a row of images for each factor: it varies, and the others keep their middle values."""
    columns = max(len(shown_values(size)) for size in sizes)
    figure = Figure(figsize=(0.9 * columns + 1.6, 1.05 * len(names) + 0.7), layout="constrained")
    figure.suptitle("Each row varies one factor; the others keep their middle values")
    panels = figure.subplots(len(names), columns, squeeze=False)
    for k, (name, row) in enumerate(zip(names, panels, strict=True)):
        factors = varied(sizes, k)
        images = to_float(render(factors)).cpu().numpy()
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
        row[0].set_ylabel(f"{name}\n({sizes[k]} values)", rotation=0, ha="right", va="center", fontsize=9)
        for axes, image, value in zip(row, images, factors[:, k].tolist(), strict=False):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axes.set_title(str(value), fontsize=8)
    return figure


def factor_values(splits: Sequence[Split], names: Sequence[str], sizes: Sequence[int]) -> Figure:
    """Draw how many images of each split have each value of each factor, as a share of the split."""
    figure = Figure(figsize=(9, 1.7 * len(names) + 0.6), layout="constrained")
    figure.suptitle("Share of each split's images by the value of each factor")
    for axes, k in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], range(len(names)), strict=True):
        for split in splits:
            assert split.factors is not None
            counts = split.factors[:, k].bincount(minlength=sizes[k]).cpu().numpy()
            edges = np.arange(sizes[k] + 1) - 0.5
            axes.stairs(counts / len(split), edges, label=f"{split.name} ({len(split):,} images)", alpha=0.8)
        axes.set(xlabel=f"{names[k]} (0 to {sizes[k] - 1})", ylabel="share", xlim=(-0.6, sizes[k] - 0.4))
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend(fontsize=8)
    return figure
