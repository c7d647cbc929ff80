"""Small files of the same form as dSprites and 3D Shapes."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from fmvae.data import Split

SPRITES_SIZES = (1, 2, 3, 2, 4, 3)  # colour, shape, scale, orientation, x, y
SHAPES_SIZES = (2, 3, 2, 2, 2, 3)


def combinations(sizes: Sequence[int]) -> np.ndarray:
    """All combinations (N, K) in lexicographic order."""
    return np.array(list(np.ndindex(*sizes)), np.int64)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def factors_of(split: Split) -> Tensor:
    """The factors of a split that has some."""
    assert split.factors is not None
    return split.factors


class Bomb:
    """A pickled object that makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def dsprites_arrays(side: int = 16) -> dict[str, Any]:
    """Random black and white images, all different, and their factors."""
    classes = combinations(SPRITES_SIZES)
    images = np.random.default_rng(0).integers(0, 2, (len(classes), side, side)).astype(np.uint8)
    return {"imgs": images, "latents_classes": classes, "latents_values": classes.astype(float)}


def write_dsprites(path: Path, bomb: Path, **changed: Any) -> str:
    """Write such a file, with a description that must not be unpickled; return its SHA-256."""
    description = np.array({"latents_names": Bomb(bomb)}, dtype=object)
    np.savez_compressed(path, **{"metadata": description, **dsprites_arrays(), **changed})
    return sha256_of(path)


def shapes_arrays(side: int = 16) -> dict[str, np.ndarray]:
    """Random RGB images, and labels that are floats, as in 3D Shapes."""
    classes = combinations(SHAPES_SIZES)
    images = np.random.default_rng(1).integers(0, 256, (len(classes), side, side, 3)).astype(np.uint8)
    return {"images": images, "labels": classes * np.array([0.1, 0.1, 0.1, 0.07, 1, 30]) - 1.25}


def stand_in_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``h5py`` that reads .npz files, for machines without the library."""

    class File:
        def __init__(self, path: Path, mode: str):
            assert mode == "r"
            try:
                with np.load(path, allow_pickle=False) as saved:
                    self.arrays = dict(saved)
            except ValueError as error:
                raise OSError(f"Unable to open file ({error})") from None

        def __enter__(self) -> dict[str, np.ndarray]:
            return self.arrays

        def __exit__(self, *_: object) -> None: ...

    module = types.ModuleType("h5py")
    module.__dict__["File"] = File
    monkeypatch.setitem(sys.modules, "h5py", module)


def write_shapes(path: Path, **changed: np.ndarray) -> str:
    """Write a file for the stand-in; return its SHA-256."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{**shapes_arrays(), **changed})
    return sha256_of(path)
