"""Data for TensorBoard's projector: posterior means with their images and class names."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fmvae.common.class_names import readable
from fmvae.data.split import Split, to_float
from fmvae.models.posterior import Posteriors
from fmvae.runs.files import write_bytes
from fmvae.visualization.latent import class_colours
from fmvae.visualization.model_view import ModelView

TAG = "posterior_means"
CONFIG = "projector_config.pbtxt"
HEADER = ["class", "index"]
MOST_PIXELS = 8192  # largest height and width of the sprite, the picture with the thumbnails of all images
MIN_COLUMNS = 3  # the projector shows three principal components at first, as NaN if there are fewer columns


class ProjectorData(NamedTuple):
    """The projector's data for N images.

    Attributes:
        mu: (N, z), on the CPU.
        metadata: for each image ``[class name, index in the split]``; without labels only the index.
        images: (N, C, H, W) in [0, 1], on the CPU.
        colours: (N, 3) in [0, 1], of each image's class; None without labels.
    """

    mu: Tensor
    metadata: list[list[str]] | list[str]
    images: Tensor
    colours: Tensor | None = None


def projector_data(
    view: ModelView, split: Split, num: int = 5000, posteriors: Posteriors | None = None
) -> ProjectorData:
    """Return posterior means, metadata and images of the first ``num`` images of a split (all if it has fewer).

    The projector puts all images in one picture of at most 8192 x 8192 pixels (292 x 292 images of Fashion-MNIST),
    which limits the number of large images.

    Args:
        posteriors: of the split or its first images, if already computed.

    Raises:
        ValueError: ``num`` < 1 or an empty split.
    """
    if (num := min(num, len(split), (MOST_PIXELS // max(view.image_shape[1:])) ** 2)) < 1:
        raise ValueError(f"{num} of {len(split)} images: give 1 or more of each")
    if posteriors is None:
        posteriors = view.posteriors(split, num)
    metadata: list[list[str]] | list[str] = [str(index) for index in range(num)]
    if view.class_names is not None:
        names = readable(view.class_names)
        metadata = [[names[label], str(index)] for index, label in enumerate(split.labels[:num].tolist())]
    colours = None
    if view.class_names is not None:
        of_classes = torch.from_numpy(class_colours(view)[:, :3]).float()
        colours = of_classes[split.labels[:num].cpu()]
    images = to_float(split.images[:num]).cpu()
    return ProjectorData(posteriors.mu[:num].float().cpu(), metadata, images, colours)


def coloured(images: Tensor, colours: Tensor | None) -> Tensor:
    """Return images (N, C, H, W) that show their class: grey ones in its colour, others in a frame of it.

    The projector colours nothing by itself before its user asks for it, but shows the images from the start.
    """
    if colours is None:
        return images
    shade = colours[:, :, None, None]
    if images.shape[1] == 1:
        return images * shade
    framed = shade.expand(-1, -1, *images.shape[2:]).clone()
    edge = max(1, min(images.shape[2:]) // 14)
    framed[:, :, edge:-edge, edge:-edge] = images[:, :, edge:-edge, edge:-edge]
    return framed


def write_projector(directory: Path, data: ProjectorData) -> None:
    """Write this data for a run's projector, in place of any earlier data.

    Files: ``projector_config.pbtxt`` and ``00000/posterior_means/`` in the run's directory.
    """
    from torch.utils.tensorboard import SummaryWriter

    mu = data.mu.numpy()
    mu = np.pad(mu, ((0, 0), (0, max(0, MIN_COLUMNS - mu.shape[1]))))
    height, width = data.images.shape[2:]
    side = max(height, width)  # TensorBoard's sprites take no image that is higher than wide
    images = F.pad(coloured(data.images, data.colours), (0, side - width, 0, side - height))
    embedding = Path("00000") / TAG
    with TemporaryDirectory() as made:
        # a new writer in a temporary folder: a writer adds to earlier data, and also writes an empty event file
        header = HEADER if isinstance(data.metadata[0], list) else None  # a single column must have none
        with SummaryWriter(made) as writer:
            writer.add_embedding(mu, data.metadata, images, tag=TAG, metadata_header=header)
        shutil.rmtree(directory / embedding, ignore_errors=True)
        shutil.copytree(Path(made) / embedding, directory / embedding)
        write_bytes(directory / CONFIG, (Path(made) / CONFIG).read_bytes())
