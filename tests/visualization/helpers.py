"""What the tests of figures share: small models, random images, and how to read a figure back."""

import random

import numpy as np
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from fmvae import rng
from fmvae.data import CLASS_NAMES
from fmvae.data.split import Split
from fmvae.models import VAE
from fmvae.objectives import Bernoulli
from fmvae.visualization import VAEVisualizer


def seeded(model_class, *args, **kwargs) -> VAE:
    with rng.seeded_init(0):
        return model_class(*args, **kwargs)


def visualizer(model: VAE, seed: int = 0, likelihood=None) -> VAEVisualizer:
    return VAEVisualizer(model, likelihood or Bernoulli(), class_names=CLASS_NAMES, seed=seed)


def random_split(num_images: int = 60) -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (num_images, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Split("test", images, torch.arange(num_images) % 10)


def shown(figure: Figure, panel: int = 0) -> np.ndarray:
    """The tiled array of a panel; NaN where nothing is drawn."""
    return np.ma.filled(np.ma.asarray(figure.axes[panel].images[0].get_array()), np.nan)


def tile_at(array: np.ndarray, row: int, column: int, pitch: int = 29) -> np.ndarray:
    return array[row * pitch : row * pitch + 28, column * pitch : column * pitch + 28]


def tick_labels(axis) -> list[str]:
    return [text.get_text() for text in axis.get_ticklabels()]


@torch.no_grad()
def means_of(model: VAE, z: torch.Tensor, labels: torch.Tensor | None = None) -> np.ndarray:
    """The decoder's means (N, 28, 28), computed apart from the visualizer."""
    return model.eval().decode(z, labels).sigmoid()[:, 0].numpy()


def points_of(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) and colours (N, 3) of the points drawn."""
    (scatter,) = (artist for artist in figure.axes[0].collections if isinstance(artist, PathCollection))
    return np.asarray(scatter.get_offsets()), np.asarray(scatter.get_facecolor())[:, :3]


def nearest(positions: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Which of the means (M, 2) each position (N, 2) is, or an error if it is none of them."""
    distances = np.linalg.norm(positions[:, None] - mu[None], axis=2)
    assert (distances.min(1) < 1e-5).all()
    return distances.argmin(1)


def global_states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
