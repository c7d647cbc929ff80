"""Helpers of figures: new figures, grids of images in one array, and a model in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, inference_mode

from fmvae.data.images import CHANNELS
from fmvae.errors import ConfigError
from fmvae.models import VAE
from fmvae.models.modes import in_evaluation_mode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 1  # pixels between tiles


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure with this size in inches; it is not registered with pyplot.

    Raises:
        ConfigError: matplotlib cannot be imported with the user's settings.
    """
    try:
        from matplotlib.figure import Figure  # takes half a second, which training need not wait for
    except (ImportError, ValueError, OSError) as error:
        problem = f"matplotlib cannot be imported ({str(error).partition(chr(10))[0]})"
        raise ConfigError("figures", problem, "correct its settings and repeat the command") from None
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def looking_at(model: VAE) -> Iterator[None]:
    """Switch to evaluation mode without gradients inside; afterwards, restore the mode of each layer."""
    with in_evaluation_mode(model), inference_mode():
        yield


def tile(images: Tensor, num_columns: int, gap: int = GAP) -> np.ndarray:
    """Arrange images (N, C, H, W) in reading order in one array (rows * (H + gap), num_columns * (W + gap)).

    For RGB images, the array has an additional last axis of size 3. The gap, to the right of and below each image,
    is NaN, and so are the empty tiles after the last image.

    Raises:
        ValueError: the images have neither 1 nor 3 channels.
    """
    num_images, channels, height, width = images.shape
    if channels not in CHANNELS:
        raise ValueError(f"{channels} channels: pictures show 1 (grey) or 3 (RGB)")
    num_rows = math.ceil(num_images / num_columns)
    tiles = np.full((num_rows * num_columns, height + gap, width + gap, channels), np.nan, np.float32)
    tiles[:num_images, :height, :width] = images.permute(0, 2, 3, 1).float().cpu()
    rows = tiles.reshape(num_rows, num_columns, height + gap, width + gap, channels).swapaxes(1, 2)
    array = rows.reshape(num_rows * (height + gap), num_columns * (width + gap), channels)
    return array[:, :, 0] if channels == 1 else array


def tile_centres(num_tiles: int, size: int) -> np.ndarray:
    """Return the centres (num_tiles,) of images of ``size`` pixels along an axis of a tiled array."""
    return np.arange(num_tiles) * (size + GAP) + (size - 1) / 2


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draw a tiled array, grey (H, W) or RGB (H, W, 3), with no frame and no ticks; NaN is white."""
    axes.imshow(np.nan_to_num(tiles, nan=1) if tiles.ndim == 3 else tiles, cmap="gray", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    axes.set(xticks=[], yticks=[])
