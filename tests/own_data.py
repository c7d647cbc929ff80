"""A dataset of one's own, as its author would write it, and a config that names it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fmvae.data
from fmvae.config import compose
from fmvae.data import ImageData, hold_out

YAML = """\
_target_: fmvae.data.Discs
image_shape: {image_shape}
num_classes: {num_classes}
num_images: 300
val_size: 40
batch_size: 50
seed: ${{seed}}
"""


class Discs(ImageData):
    """A soft disc on black, at a random place; its class is its radius, and in RGB its colour too."""

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        num_classes: int,
        num_images: int,
        val_size: int,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
    ):
        channels, height, width = image_shape
        draws = np.random.default_rng(0)
        kinds = np.arange(num_images) % (num_classes or 3)
        y, x = (draws.uniform(0.3, 0.7, num_images)[:, None, None] * side for side in (height, width))
        rows, columns = np.mgrid[:height, :width]
        distance = np.hypot(rows - y, columns - x)  # (N, H, W)
        discs = 255 / (1 + np.exp(2 * (distance - (1 + kinds[:, None, None]))))
        colours = np.eye(3)[kinds % 3] if channels == 3 else np.ones((num_images, 1))
        images = (discs[:, None] * colours[:, :, None, None]).astype(np.uint8)
        test = num_images // 5
        labels = kinds[test:]
        first, second = hold_out(labels, val_size, seed=seed)
        parts = [(images[:test], kinds[:test]), *((images[test:][i], labels[i]) for i in (first, second))]
        if not num_classes:
            parts = [(part, None) for part, _ in parts]
        super().__init__(
            test=parts[0],
            train=parts[1],
            val=parts[2],
            num_classes=num_classes,
            class_names=["small", "middle", "large"] if num_classes == 3 else None,
            batch_size=batch_size,
            device=device,
        )


def own_config(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
    image_shape: Sequence[int],
    num_classes: int,
) -> dict[str, Any]:
    """The config of a short run on discs, put into ``fmvae.data`` for this test, as configs may name that."""
    monkeypatch.setattr(fmvae.data, "Discs", Discs, raising=False)
    monkeypatch.setattr(Discs, "__module__", "fmvae.data")
    folder = tmp_path / "conf"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "discs.yaml").write_text(YAML.format(image_shape=[*image_shape], num_classes=num_classes))
    usual = ["data=discs", "trainer.epochs=1", "device=cpu", f"output_root={tmp_path}", "evaluation=fast"]
    usual += ["evaluation.fid.num_images=0", "figures.gif=true", "figures.traversal.steps=5"]
    return compose([f"hydra.searchpath=[file://{folder}]", *usual, *overrides])
