"""The latent space in TensorBoard's projector: posterior means with their images and class names."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from fmvae.data.split import Split, to_float
from fmvae.models.posterior import Posteriors
from fmvae.runs.files import write_bytes

if TYPE_CHECKING:
    from fmvae.visualization.visualizer import VAEVisualizer

TAG = "posterior_means"
CONFIG = "projector_config.pbtxt"
HEADER = ["class", "index"]
MIN_COLUMNS = 3  # the projector opens with three principal components, and NaN for what the data lacks


class ProjectorData(NamedTuple):
    """mu (N, z) on the CPU, a row ``[class name, index in the split]`` each, and images (N, 1, H, W) in [0, 1]."""

    mu: Tensor
    metadata: list[list[str]]
    images: Tensor


def projector_data(
    visualizer: VAEVisualizer, split: Split, num: int = 5000, posteriors: Posteriors | None = None
) -> ProjectorData:
    """The posterior means of the first ``num`` images of a split, or of all if fewer, and what belongs to them.

    Args:
        posteriors: of the split or its first images, if known.

    Raises:
        ValueError: ``num`` < 1 or an empty split.
    """
    if (num := min(num, len(split))) < 1:
        raise ValueError(f"{num} of {len(split)} images: give 1 or more of each")
    if posteriors is None:
        posteriors = visualizer.posteriors(split, num)
    names = [visualizer.class_names[label] for label in split.labels[:num].tolist()]
    metadata = [[name, str(index)] for index, name in enumerate(names)]
    return ProjectorData(posteriors.mu[:num].float().cpu(), metadata, to_float(split.images[:num]).cpu())


def write_projector(directory: Path, data: ProjectorData) -> None:
    """Give a run's projector this data and nothing else, whatever was there before.

    Files: ``projector_config.pbtxt`` and ``00000/posterior_means/`` in the run's directory. Sprites may fill at
    most 8192 x 8192 pixels, 292 x 292 images of Fashion-MNIST.
    """
    from torch.utils.tensorboard import SummaryWriter

    mu = data.mu.numpy()
    mu = np.pad(mu, ((0, 0), (0, max(0, MIN_COLUMNS - mu.shape[1]))))
    embedding = Path("00000") / TAG
    with TemporaryDirectory() as made:
        # a writer of its own, as it adds to what it has written before; its empty events stay behind
        with SummaryWriter(made) as writer:
            writer.add_embedding(mu, data.metadata, data.images, tag=TAG, metadata_header=HEADER)
        shutil.rmtree(directory / embedding, ignore_errors=True)
        shutil.copytree(Path(made) / embedding, directory / embedding)
        write_bytes(directory / CONFIG, (Path(made) / CONFIG).read_bytes())
