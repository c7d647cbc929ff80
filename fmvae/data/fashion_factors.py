"""Garments of Fashion-MNIST, moved, scaled, turned and dimmed: natural images with factors that are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from fmvae.data.factors import FactorData, check_version
from fmvae.data.fashion_mnist import CLASS_NAMES
from fmvae.data.grid import Grid
from fmvae.data.sources import SHA256, RawDataset, load_dataset
from fmvae.data.tables import Source, open_table
from fmvae.errors import DataError

VERSION = 1  # of the definition below; a change of any pixel needs another
CLASSES, PER_CLASS = len(CLASS_NAMES), 10  # the first ten garments of each class in the training file
GARMENT = 28  # pixels a side of a garment
# a multiple of 8, as some models need, and near the 28 pixels of Fashion-MNIST, so that training costs as much;
# the largest garment, turned by 20 degrees and shifted by 3 pixels, does not leave it
SIDE = 32
SHIFTS = (-3, -1, 1, 3)  # pixels
SCALES = (0.44, 0.52, 0.6, 0.68)
DEGREES = (-20, -10, 0, 10, 20)  # counterclockwise
QUARTERS = (2, 3, 4)  # of the garment's brightness
GRID = Grid(
    ("garment", "x", "y", "scale", "rotation", "brightness"),
    (CLASSES * PER_CLASS, len(SHIFTS), len(SHIFTS), len(SCALES), len(DEGREES), len(QUARTERS)),
)
ROOM = SIDE + 2 * max(SHIFTS)  # pixels a side, of which every shift shows a window
SAMPLES = 3  # a side of a pixel, at most 0.76 pixels of the garment apart
ONE = 256  # samples lie on a lattice of 1/256 pixel, so that all weights are whole numbers
WHITE = SAMPLES**2 * ONE**2 * max(QUARTERS)  # what a white pixel at full brightness adds up to, over 255


def positions(scale: float, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where samples lie in a garment: row and column (ROOM * SAMPLES,) * 2 float64, in 1/256 pixel.

    Pixel i has its centre at i. The garment's centre is in the middle of the room.
    """
    steps = (np.arange(ROOM * SAMPLES) + 0.5) / SAMPLES - ROOM / 2
    right, up = steps[None, :], -steps[:, None]
    turn = math.radians(degrees)
    x = (math.cos(turn) * right + math.sin(turn) * up) / scale
    y = (math.cos(turn) * up - math.sin(turn) * right) / scale
    middle = (GARMENT - 1) / 2
    return (middle - y) * ONE, (middle + x) * ONE


def warped(garments: np.ndarray, scale: float, degrees: float) -> np.ndarray:
    """Scale and turn garments (N, 28, 28): sums (N, ROOM, ROOM) int64 of bilinear samples, 255 * 9 * 256² at most.

    Once a sample's position is rounded, the rest is whole numbers, so that all machines render the same.
    """
    edge = GARMENT + 1  # the garment has a black border of a pixel, where samples outside of it are taken
    room = np.pad(garments, ((0, 0), (1, 1), (1, 1))).reshape(len(garments), -1).astype(np.int64)
    row, column = (
        np.clip(np.rint(at).astype(np.int64) + ONE, 0, edge * ONE - 1).ravel() for at in positions(scale, degrees)
    )
    (top, down), (left, across) = divmod(row, ONE), divmod(column, ONE)
    total = np.zeros((len(garments), len(row)), np.int64)
    for below, weight in ((0, ONE - down), (1, down)):
        for beside, other in ((0, ONE - across), (1, across)):
            total += room[:, (top + below) * (GARMENT + 2) + left + beside] * (weight * other)
    return total.reshape(-1, ROOM, SAMPLES, ROOM, SAMPLES).sum((2, 4))


def _blocks(garments: np.ndarray) -> Iterator[np.ndarray]:
    """Yield all images of each garment."""
    sums = np.stack([[warped(garments, scale, degrees) for degrees in DEGREES] for scale in SCALES], axis=0)
    start = [max(SHIFTS) - shift for shift in SHIFTS]  # a window further left shows the garment further right
    for one in range(len(garments)):
        windows = sliding_window_view(
            sums[:, :, one], (SIDE, SIDE), axis=(2, 3)
        )  # (scale, turn, y, x, SIDE, SIDE)
        moved = windows[:, :, start][:, :, :, start].transpose(3, 2, 0, 1, 4, 5)
        dimmed = moved[:, :, :, :, None] * np.array(QUARTERS)[:, None, None]
        images = (dimmed + WHITE // 2) // WHITE
        yield images.astype(np.uint8).reshape(-1, 1, SIDE, SIDE)


def chosen_garments(raw: RawDataset) -> np.ndarray:
    """Return the first ten garments of each class of the training file, by class: (100, 28, 28) uint8.

    Raises:
        DataError: the images have another size, or a class has too few.
    """
    images, labels = raw.train_images, raw.train_labels
    if images.shape[1:] != (GARMENT, GARMENT):
        found = "x".join(map(str, images.shape[1:]))
        raise DataError(raw.root, f"holds images of {found} pixels, not 28x28", "set data.root to another folder")
    found = [np.flatnonzero(labels == c)[:PER_CLASS] for c in range(CLASSES)]
    for c, places in enumerate(found):
        if len(places) < PER_CLASS:
            problem = f"has {len(places)} training images of class {c}, of which {PER_CLASS} are needed"
            raise DataError(raw.root, problem, "set data.root to another folder")
    return images[np.concatenate(found)]


class FashionFactors(FactorData):
    """100 garments, 10 of each class, at 4 x 4 places, 4 scales, 5 rotations and 3 brightnesses.

    The 96,000 grey images of 32x32 pixels have their garment's class as label.

    Args:
        root, download, download_to, sha256: where Fashion-MNIST is, as for ``FashionMNISTManager``.
        version: of the definition; it is part of the run's name, in place of the images' bytes.
        cache: folder for the images; None means the user's cache.
        apart, num_train, val_size, num_test, seed: as for ``Grid.split``.
        image_shape, num_classes: what the config says of the images, for models; checked against the data.
        class_names: None means Fashion-MNIST's for the published files, else ``0``, ``1``, ...
        batch_size, device: as for ``ImageData``.
    """

    mirrored = True

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        download: bool = True,
        download_to: str | Path | None = None,
        sha256: Mapping[str, str] | None = None,
        version: int = VERSION,
        cache: str | Path | None = None,
        apart: Sequence[str] | None = None,
        num_train: int | None = None,
        val_size: int = 5000,
        num_test: int | None = 10_000,
        image_shape: Sequence[int] = (1, SIDE, SIDE),
        num_classes: int = CLASSES,
        class_names: Sequence[str] | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        check_version(version, VERSION)
        expected = {name: value.lower() for name, value in (sha256 or SHA256).items()}

        def make() -> Source:
            raw = load_dataset(root, download=download, download_to=download_to, sha256=sha256)
            return Source(GRID, (1, SIDE, SIDE), _blocks(chosen_garments(raw)))

        definition = {
            "version": VERSION,
            "sha256": {name: value for name, value in expected.items() if "train" in name},
        }
        super().__init__(
            open_table(cache, "fashion_factors", definition, make),
            apart=apart,
            num_train=num_train,
            val_size=val_size,
            num_test=num_test,
            labels_of=lambda factors: factors[:, 0] // PER_CLASS,
            num_classes=CLASSES,
            class_names=class_names or (CLASS_NAMES if expected == SHA256 else None),
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
