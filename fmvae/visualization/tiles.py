"""What the pictures are made of: images side by side in one array, and a model that is only looked at."""

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
    """Images (N, C, H, W) in reading order, in one array (rows * (H + gap), num_columns * (W + gap)).

    RGB images have a last axis of 3 beside. The gap, to the right of and below each image, is NaN, and so are the
    tiles after the last image.

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
    """Where images of ``size`` pixels have their centres on an axis of their tiled array: (num_tiles,)."""
    return np.arange(num_tiles) * (size + GAP) + (size - 1) / 2


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draw a tiled array, grey (H, W) or RGB (H, W, 3), with no frame and no ticks; NaN is white."""
    axes.imshow(np.nan_to_num(tiles, nan=1) if tiles.ndim == 3 else tiles, cmap="gray", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    axes.set(xticks=[], yticks=[])
