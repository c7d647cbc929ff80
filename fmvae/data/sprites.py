"""Sprites: one white shape on black, with five factors that the image determines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from fmvae.data.factors import FactorData, check_version
from fmvae.data.grid import Grid
from fmvae.data.tables import Source, open_table

VERSION = 1  # of the definition below; a change of any pixel needs another
SIDE, PLACES = 32, 16
PATCH = SIDE - PLACES + 1  # pixels a side around the shape's centroid; places are a pixel apart
SAMPLES = 8  # a side of a pixel: its grey value is the share of samples inside the shape
UNIT = math.sqrt(60)  # at scale 1 every shape has an area of 60 pixels
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ORIENTATIONS = 20


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the signed distance to the nearest edge's line, positive inside: height 1.2 times the base, area 1.

    This and the next two functions take coordinates from the shape's centroid, with y upwards.
    """
    base = math.sqrt(2 / 1.2)
    height = 1.2 * base
    slope = math.hypot(height, base / 2)
    side = ((2 * height / 3 - y) * base / 2 - np.abs(x) * height) / slope
    return np.minimum(side, y + height / 3)


def half_disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the same for the upper half of a disc, area 1."""
    radius = math.sqrt(2 / math.pi)
    above = y + 4 * radius / (3 * math.pi)
    return np.minimum(above, radius - np.hypot(x, above))


def corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the same for an L: a square without its upper right quarter, area 1."""
    side = math.sqrt(4 / 3)
    right, up = x + 5 / 12 * side, y + 5 / 12 * side  # from the square's lower left corner
    square = np.minimum(np.minimum(right, up), np.minimum(side - right, side - up))
    return np.minimum(square, side / 2 - np.minimum(right, up))


SHAPES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (triangle, half_disc, corner)
GRID = Grid(("shape", "scale", "orientation", "x", "y"), (len(SHAPES), len(SCALES), ORIENTATIONS, PLACES, PLACES))


def depths(shape: int, scale: int, orientation: int) -> np.ndarray:
    """Return how many pixels each sample of a patch is inside the shape: (PATCH * SAMPLES,) * 2, y downwards."""
    steps = (np.arange(PATCH * SAMPLES) + 0.5) / SAMPLES - PATCH / 2
    right, up = steps[None, :], -steps[:, None]
    turn = 2 * math.pi * orientation / ORIENTATIONS  # counterclockwise
    size = SCALES[scale] * UNIT
    x = (math.cos(turn) * right + math.sin(turn) * up) / size
    y = (math.cos(turn) * up - math.sin(turn) * right) / size
    return SHAPES[shape](x, y) * size


def patch(shape: int, scale: int, orientation: int) -> np.ndarray:
    """Render a shape in the middle of (PATCH, PATCH) uint8 pixels.

    Samples are counted, so the result has no rounding that differs between machines.
    """
    inside = depths(shape, scale, orientation) > 0
    count = inside.reshape(PATCH, SAMPLES, PATCH, SAMPLES).sum((1, 3))
    return ((255 * count + SAMPLES**2 // 2) // SAMPLES**2).astype(np.uint8)


def _blocks() -> Iterator[np.ndarray]:
    """Yield the images of each shape, scale and orientation: a patch at all places."""
    for combination in np.ndindex(*GRID.sizes[:3]):
        room = np.pad(patch(*combination), PLACES - 1)
        at = sliding_window_view(room, (SIDE, SIDE))[::-1, ::-1]  # (y, x, SIDE, SIDE)
        yield at.swapaxes(0, 1).reshape(PLACES**2, 1, SIDE, SIDE)


class Sprites(FactorData):
    """3 shapes x 6 scales x 20 orientations x 16 x 16 places: 92,160 grey images of 32x32 pixels.

    Like dSprites (Matthey et al. 2017), with two differences. No shape has a rotational symmetry, so no two
    combinations give the same image; in dSprites, a square looks the same in four orientations and an ellipse in
    two. All shapes have the same area at the same scale, and x and y are those of the centroid.

    Args:
        version: of the definition; it is part of the run's name, in place of the images' bytes.
        cache: folder for the images; None means the user's cache.
        apart, num_train, val_size, num_test, seed: as for ``Grid.split``.
        image_shape, num_classes: what the config says of the images, for models; checked against the data.
        batch_size, device: as for ``ImageData``.
    """

    def __init__(
        self,
        *,
        version: int = VERSION,
        cache: str | Path | None = None,
        apart: Sequence[str] | None = None,
        num_train: int | None = None,
        val_size: int = 5000,
        num_test: int | None = 10_000,
        image_shape: Sequence[int] = (1, SIDE, SIDE),
        num_classes: int = 0,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        check_version(version, VERSION)
        super().__init__(
            open_table(cache, "sprites", {"version": VERSION}, lambda: Source(GRID, (1, SIDE, SIDE), _blocks())),
            apart=apart,
            num_train=num_train,
            val_size=val_size,
            num_test=num_test,
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
