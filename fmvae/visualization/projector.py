"""The latent space in TensorBoard's projector: posterior means with their images and class names."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fmvae.data.split import Split, to_float
from fmvae.models.posterior import Posteriors
from fmvae.runs.files import write_bytes
from fmvae.visualization.model_view import ModelView

TAG = "posterior_means"
CONFIG = "projector_config.pbtxt"
HEADER = ["class", "index"]
MOST_PIXELS = 8192  # of a side of the one picture in which the projector keeps all images
MIN_COLUMNS = 3  # the projector opens with three principal components, and NaN for what the data lacks


class ProjectorData(NamedTuple):
    """What the projector shows of N images.

    Attributes:
        mu: (N, z), on the CPU.
        metadata: of each image, ``[class name, index in the split]``; without labels its index alone.
        images: (N, C, H, W) in [0, 1], on the CPU.
    """

    mu: Tensor
    metadata: list[list[str]] | list[str]
    images: Tensor


def projector_data(
    view: ModelView, split: Split, num: int = 5000, posteriors: Posteriors | None = None
) -> ProjectorData:
    """The posterior means of the first ``num`` images of a split, or of all if fewer, and what belongs to them.

    Of large images there are only as many as the projector takes: all lie in one picture of at most 8192 x 8192
    pixels (292 x 292 images of Fashion-MNIST).

    Args:
        posteriors: of the split or its first images, if known.

    Raises:
        ValueError: ``num`` < 1 or an empty split.
    """
    if (num := min(num, len(split), (MOST_PIXELS // max(view.image_shape[1:])) ** 2)) < 1:
        raise ValueError(f"{num} of {len(split)} images: give 1 or more of each")
    if posteriors is None:
        posteriors = view.posteriors(split, num)
    metadata: list[list[str]] | list[str] = [str(index) for index in range(num)]
    if view.class_names is not None:
        metadata = [[name, str(index)] for index, name in enumerate(view.names_of(split.labels[:num]))]
    return ProjectorData(posteriors.mu[:num].float().cpu(), metadata, to_float(split.images[:num]).cpu())


def write_projector(directory: Path, data: ProjectorData) -> None:
    """Give a run's projector this data and nothing else, whatever was there before.

    Files: ``projector_config.pbtxt`` and ``00000/posterior_means/`` in the run's directory.
    """
    from torch.utils.tensorboard import SummaryWriter

    mu = data.mu.numpy()
    mu = np.pad(mu, ((0, 0), (0, max(0, MIN_COLUMNS - mu.shape[1]))))
    height, width = data.images.shape[2:]
    side = max(height, width)  # TensorBoard's sprites take no image that is higher than wide
    images = F.pad(data.images, (0, side - width, 0, side - height))
    embedding = Path("00000") / TAG
    with TemporaryDirectory() as made:
        # a writer of its own, as it adds to what it has written before; its empty events stay behind
        header = HEADER if isinstance(data.metadata[0], list) else None  # a single column must have none
        with SummaryWriter(made) as writer:
            writer.add_embedding(mu, data.metadata, images, tag=TAG, metadata_header=header)
        shutil.rmtree(directory / embedding, ignore_errors=True)
        shutil.copytree(Path(made) / embedding, directory / embedding)
        write_bytes(directory / CONFIG, (Path(made) / CONFIG).read_bytes())
