"""What the pictures are made of: images side by side in one array, and a model that is only looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, inference_mode

from fmvae.errors import ConfigError
from fmvae.models import VAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1  # pixels between tiles


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this many inches, that belongs to the caller: pyplot does not know of it.

    Raises:
        ConfigError: matplotlib can't be used as it is set up.
    """
    try:
        from matplotlib.figure import Figure  # half a second, for which no training has to wait
    except (ImportError, ValueError, OSError) as error:
        problem = f"matplotlib cannot be imported ({str(error).partition(chr(10))[0]})"
        raise ConfigError("figures", problem, "mend its settings; the same command then draws") from None
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def looking_at(model: VAE) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards each layer is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def tile(images: Tensor, num_columns: int, gap: int = GAP) -> np.ndarray:
    """Images (N, 1, H, W) in reading order, in one array (rows * (H + gap), num_columns * (W + gap)).

    The gap, to the right of and below each image, is NaN, and so are the tiles after the last image.
    """
    num_images, _, height, width = images.shape
    num_rows = math.ceil(num_images / num_columns)
    tiles = np.full((num_rows * num_columns, height + gap, width + gap), np.nan, np.float32)
    tiles[:num_images, :height, :width] = images[:, 0].float().cpu()
    rows = tiles.reshape(num_rows, num_columns, height + gap, width + gap).swapaxes(1, 2)
    return rows.reshape(num_rows * (height + gap), num_columns * (width + gap))


def tile_centres(num_tiles: int, size: int) -> np.ndarray:
    """Where images of ``size`` pixels have their centres on an axis of their tiled array: (num_tiles,)."""
    return np.arange(num_tiles) * (size + GAP) + (size - 1) / 2


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draw a tiled array in grey, with no frame and no ticks."""
    axes.imshow(tiles, cmap="gray", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    axes.set(xticks=[], yticks=[])
