"""What a VAE reconstructs, generates and encodes, and how its training went, as figures.

Made without pyplot. Looking at a model changes nothing in it, and draws from the stream ``sampling`` alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.special import ndtr, ndtri

from fmvae import rng
from fmvae.data.split import Split
from fmvae.models import VAE, ConditionalVAE
from fmvae.objectives import Likelihood

NUM_COLUMNS = 10  # of reconstructions, before they wrap
BATCH_SIZE = 1000  # images encoded at a time
GAP = 1  # pixels between tiles
PRIOR_SHARE = 0.95
PRIOR_RADIUS = math.sqrt(-2 * math.log(1 - PRIOR_SHARE))  # 2-D standard normal: chi-squared, 2 degrees
CURVE_COLOURS = {"train": "#4477aa", "val": "#cc6633"}


@contextmanager
def looking_at(model: VAE) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards each layer is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def tile(images: Tensor, num_columns: int, gap: int = GAP) -> np.ndarray:
    """Images (N, 1, H, W) in reading order, in one array (rows * (H + gap), num_columns * (W + gap)).

    The gap, to the right of and below each image, is NaN, and so are the tiles after the last image.
    """
    num_images, _, height, width = images.shape
    num_rows = math.ceil(num_images / num_columns)
    tiles = np.full((num_rows * num_columns, height + gap, width + gap), np.nan, np.float32)
    tiles[:num_images, :height, :width] = images[:, 0].float().cpu()
    rows = tiles.reshape(num_rows, num_columns, height + gap, width + gap).swapaxes(1, 2)
    return rows.reshape(num_rows * (height + gap), num_columns * (width + gap))


def tile_centres(num_tiles: int, size: int) -> np.ndarray:
    """Where images of ``size`` pixels have their centres on an axis of their tiled array: (num_tiles,)."""
    return np.arange(num_tiles) * (size + GAP) + (size - 1) / 2


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draw a tiled array in grey, with no frame and no ticks."""
    axes.imshow(tiles, cmap="gray", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    axes.set(xticks=[], yticks=[])


class VAEVisualizer:
    """Figures of one model. Each method returns a new ``Figure``, the same for the same seed.

    Args:
        model: any VAE of grey images, on any device, in any mode.
        likelihood: turns the decoder's logits into the image they stand for.
        class_names: by label.
        seed: of the stream ``sampling``.

    Raises:
        ValueError: the images are not grey, or a conditional model has another number of classes.
    """

    def __init__(self, model: VAE, likelihood: Likelihood, *, class_names: Sequence[str], seed: int = 0):
        if model.image_shape[0] != 1:
            raise ValueError(f"image_shape {model.image_shape} is not grey: use a model with one channel")
        if isinstance(model, ConditionalVAE) and model.num_classes != len(class_names):
            raise ValueError(f"{len(class_names)} class_names, {model.num_classes} classes: name each class")
        self.model, self.likelihood = model, likelihood
        self.class_names, self.seed = tuple(class_names), seed
        self.name = f"{type(model).__name__}, z = {model.latent_dim}"

    def show_reconstructions(self, images: Tensor, labels: Tensor) -> Figure:
        """Each image above its reconstruction at the posterior mean, ten to a row.

        Args:
            images: (N, 1, H, W) in [0, 1], N >= 1.
            labels: (N,) integers.

        Raises:
            ValueError: images or labels of another shape or range.
        """
        images, labels = self._checked(images, labels)
        with looking_at(self.model):
            mu, _ = self.model.encode(images, labels)
            means = self.likelihood.mean(self.model.decode(mu, labels))
        num_columns = min(len(images), NUM_COLUMNS)
        num_rows = math.ceil(len(images) / num_columns)
        figure = Figure(figsize=(max(num_columns, 4) + 1.2, 2.35 * num_rows + 0.4), layout="constrained")
        figure.suptitle(f"Reconstructions at the posterior mean: {self.name}")
        _, _, height, width = images.shape
        panels = figure.subplots(num_rows, squeeze=False).flat
        parts = (part.split(num_columns) for part in (images, means, labels))
        for axes, above, below, row in zip(panels, *parts, strict=True):
            show_tiles(axes, np.concatenate([tile(above, num_columns), tile(below, num_columns)]))
            names = [self.class_names[label] for label in row.tolist()]
            axes.set_xticks(tile_centres(len(names), width), names)
            axes.set_yticks(tile_centres(2, height), ["original", "reconstruction"])
            axes.xaxis.tick_top()
        return figure

    def generate_samples(self, num_samples: int = 64) -> Figure:
        """Decoder means of latents drawn from the prior, in a near-square grid.

        A conditional model has one row per class instead, of ``num_samples // num_classes`` (at least one).

        Raises:
            ValueError: ``num_samples`` < 1.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {num_samples}")
        device, labels = self._weight.device, None
        num_columns = math.ceil(math.sqrt(num_samples))
        if self.model.conditional:
            num_columns = max(1, num_samples // len(self.class_names))
            labels = torch.arange(len(self.class_names), device=device).repeat_interleave(num_columns)
            num_samples = len(labels)
        generator = rng.stream(self.seed, "sampling", device=device)
        with looking_at(self.model):
            means = self.likelihood.mean(self.model.sample(num_samples, labels, generator=generator))
        num_rows = math.ceil(num_samples / num_columns)
        inches = min(0.9, max(0.3, 9 / max(num_columns, num_rows)))  # a tile's side
        width, height = max(num_columns * inches + 1.2, 5), num_rows * inches + 0.5
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(f"Samples from the prior: {self.name}")
        axes = figure.subplots()
        show_tiles(axes, tile(means, num_columns))
        if self.model.conditional:
            axes.set_yticks(tile_centres(num_rows, means.shape[2]), self.class_names)
        return figure

    def latent_manifold(self, side: int = 20, label: int | None = None) -> Figure:
        """Decoder means over the latent plane, every tile standing for the same prior mass.

        The grid is the standard normal's quantiles at (i + 0.5) / side (Kingma & Welling 2014, app. A); z1
        runs from left to right, z2 upwards.

        Args:
            side: tiles each way, >= 1.
            label: the class of all tiles, for a conditional model.

        Raises:
            ValueError: z is not 2, ``side`` < 1, or the label is missing, needless or out of range.
        """
        self._need_plane("latent_manifold")
        if side < 1:
            raise ValueError(f"side must be >= 1, got {side}")
        labels = self._repeated(label, side * side)
        quantiles = ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side)
        z2, z1 = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
        z = torch.stack([z1, z2], dim=-1).flatten(0, 1).to(self._weight)  # (side * side, 2), in reading order
        with looking_at(self.model):
            means = self.likelihood.mean(self.model.decode(z, labels))
        figure = Figure(figsize=(8, 8.3), layout="constrained")
        axes = figure.subplots()
        show_tiles(axes, tile(means, side, gap=0))
        of_class = "" if label is None else f" of {self.class_names[label]}"
        axes.set(title=f"Latent manifold{of_class}: {self.name}", xlabel="z1", ylabel="z2")
        # the axes run as the normal's CDF does, so round values have their place between the tiles' own
        ticks = torch.arange(-3, 3.1, 0.5, dtype=torch.float64)
        ticks = ticks[ticks.abs() <= quantiles.max()]
        share, names = ndtr(ticks).numpy(), [f"{tick:g}" for tick in ticks.tolist()]
        height, width = axes.images[0].get_size()
        axes.set_xticks(share * width - 0.5, names)
        axes.set_yticks((1 - share) * height - 0.5, names)
        axes.tick_params(length=3)
        return figure

    def latent_scatter(self, split: Split, max_points: int = 10_000) -> Figure:
        """Posterior means in the latent plane, coloured by class, in random order: no class hides another.

        Args:
            split: whose images are encoded.
            max_points: of a larger split, a random subset of this size is shown.

        Raises:
            ValueError: z is not 2, the split is empty, or ``max_points`` < 1.
        """
        self._need_plane("latent_scatter")
        if (num_points := min(max_points, len(split))) < 1:
            raise ValueError(f"max_points {max_points} of {len(split)} images: give 1 or more of each")
        points, labels = np.empty((num_points, 2), np.float32), np.empty(num_points, np.int64)
        batches = split.batches(BATCH_SIZE, rng.stream(self.seed, "sampling"))
        with looking_at(self.model):
            for start, batch in zip(range(0, num_points, BATCH_SIZE), batches, strict=False):
                end = min(start + BATCH_SIZE, num_points)
                x, y = self._checked(*(part[: end - start] for part in batch))
                points[start:end], labels[start:end] = self.model.encode(x, y)[0].float().cpu(), y.cpu()
        figure = Figure(figsize=(9, 7), layout="constrained")
        axes, classes = figure.subplots(), np.arange(len(self.class_names))
        colours = colormaps["tab10" if len(classes) <= 10 else "tab20"](classes % 20)
        axes.scatter(*points.T, s=5, c=colours[labels], alpha=0.6, linewidths=0)
        axes.add_patch(Circle((0, 0), PRIOR_RADIUS, fill=False, linestyle="--", color="black"))
        title = f"Posterior means of {num_points:,} {split.name} images: {self.name}"
        axes.set(title=title, xlabel="z1", ylabel="z2", aspect="equal")
        handles = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in colours]
        handles.append(Line2D([], [], color="black", linestyle="--"))
        names = [*self.class_names, f"{PRIOR_SHARE:.0%} of the prior"]
        axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        return figure

    @property
    def _weight(self) -> Tensor:
        return next(self.model.parameters())

    def _need_plane(self, method: str) -> None:
        if (z := self.model.latent_dim) != 2:
            raise ValueError(f"{method} shows two latent dimensions, the model has z = {z}: train with z = 2")

    def _repeated(self, label: int | None, num_images: int) -> Tensor | None:
        """Labels (num_images,) of one class, None for a model that takes none."""
        if not self.model.conditional:
            if label is not None:
                raise ValueError(f"label {label} for a model that is not conditional: leave it out")
            return None
        if label is None or not 0 <= label < len(self.class_names):
            raise ValueError(f"label {label}: a conditional model needs one in [0, {len(self.class_names)})")
        return torch.full((num_images,), label, device=self._weight.device)

    def _checked(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both as the model takes them, or a ValueError that says why it cannot."""
        if not len(images) or images.shape[1:] != self.model.image_shape or labels.shape != images.shape[:1]:
            wanted = f"(N, {', '.join(map(str, self.model.image_shape))}) and (N,), N >= 1"
            raise ValueError(f"images {tuple(images.shape)}, labels {tuple(labels.shape)}: give {wanted}")
        if not (images.min() >= 0 and images.max() <= 1):  # so that NaN is caught too
            raise ValueError(f"images in [{images.min():g}, {images.max():g}]: scale them to [0, 1]")
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < len(self.class_names):
                raise ValueError(f"label {label} with {len(self.class_names)} class_names: name each class")
        return images.detach().to(self._weight), labels.to(self._weight.device, torch.int64)


def training_curves(history: Sequence[Mapping]) -> Figure:
    """Objective, reconstruction and KL by epoch, for training and validation, with the best epoch marked.

    Args:
        history: a row per epoch: ``epoch``, ``beta``, and ``train/`` and ``val/`` of ``objective``, ``recon``
            and ``kl``, in nats per image. What a row lacks, such as validation in most epochs, is not drawn.
            Beta has a panel, below the KL that it weighs, if it varies.

    Raises:
        ValueError: ``history`` is empty.
    """
    if not history:
        raise ValueError("history has 0 epochs: train for at least one")
    beta_varies = len({row["beta"] for row in history if "beta" in row}) > 1
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    mosaic, heights = ("ORK\nORB", [4, 1]) if beta_varies else ("ORK", [1])
    panels = figure.subplot_mosaic(mosaic, sharex=True, height_ratios=heights)
    for title, quantity in {"Objective": "objective", "Reconstruction": "recon", "KL": "kl"}.items():
        axes = panels[title[0]]
        for split, colour in CURVE_COLOURS.items():
            epochs, values = _curve(history, f"{split}/{quantity}")
            if epochs:
                axes.plot(epochs, values, marker=".", color=colour, label=split)
        axes.set(title=title, ylabel="nats per image", xlabel="epoch")
    if beta_varies:
        panels["K"].set_xlabel("")
        panels["B"].step(*_curve(history, "beta"), where="mid", color="black")
        panels["B"].set(ylabel="β", xlabel="epoch")
    panels["O"].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # the axis is shared
    title = "Training curves"
    points = zip(*_curve(history, "val/objective"), strict=True)
    if validated := [(value, epoch) for epoch, value in points if math.isfinite(value)]:
        value, best = min(validated)
        title += f" (best validation objective {value:.2f} at epoch {best})"
        for axes in panels.values():
            axes.axvline(best, color="gray", linestyle=":", label="best")
    figure.suptitle(title)
    panels["O"].legend()
    return figure


def _curve(history: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """The epochs whose row has ``key``, and their values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [row[key] for row in rows]
