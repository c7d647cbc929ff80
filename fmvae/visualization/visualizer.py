"""What a VAE reconstructs, generates and encodes, as figures.

Made without pyplot. Looking at a model changes nothing in it, and draws from the stream ``sampling`` alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.special import ndtr, ndtri

from fmvae import rng
from fmvae.data.split import Split, to_float
from fmvae.models import VAE, ConditionalVAE
from fmvae.models.posterior import Posteriors, encode_split
from fmvae.objectives import Likelihood
from fmvae.visualization.latent import latent_scatter
from fmvae.visualization.tiles import looking_at, new_figure, show_tiles, tile, tile_centres
from fmvae.visualization.traversal import latent_traversal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_COLUMNS = 10  # of reconstructions, before they wrap


class VAEVisualizer:
    """Figures of one model. Each method returns a new ``Figure``, the same for the same seed.

    Args:
        model: any VAE of grey images, on any device, in any mode.
        likelihood: turns the decoder's logits into the image they stand for.
        class_names: by label.
        seed: of the stream ``sampling``.
        name: the model in titles; the class and z unless told.

    Raises:
        ValueError: the images are not grey, or a conditional model has another number of classes.
    """

    def __init__(
        self,
        model: VAE,
        likelihood: Likelihood,
        *,
        class_names: Sequence[str],
        seed: int = 0,
        name: str | None = None,
    ):
        if model.image_shape[0] != 1:
            raise ValueError(f"image_shape {model.image_shape} is not grey: use a model with one channel")
        if isinstance(model, ConditionalVAE) and model.num_classes != len(class_names):
            raise ValueError(f"{len(class_names)} class_names, {model.num_classes} classes: name each class")
        self.model, self.likelihood = model, likelihood
        self.class_names, self.seed = tuple(class_names), seed
        self.name = name or f"{type(model).__name__}, z = {model.latent_dim}"

    def at_epoch(self, epoch: int) -> VAEVisualizer:
        """The same visualizer of the same model, with the epoch in its titles."""
        other = copy.copy(self)
        other.name = f"{self.name}, epoch {epoch}"
        return other

    # --- the model, looked at -------------------------------------------------------------------------------

    @property
    def weight(self) -> Tensor:
        """One of the model's parameters, for its device and type."""
        return next(self.model.parameters())

    def posteriors(self, split: Split, num: int | None = None) -> Posteriors:
        """``encode_split`` of the first ``num`` images or all, with every layer left in its mode."""
        with looking_at(self.model):
            return encode_split(self.model, split, num)

    def encode_means(self, images: Tensor, labels: Tensor) -> Tensor:
        """The posterior means (N, z) of images (N, 1, H, W) in [0, 1] with labels (N,).

        Raises:
            ValueError: images or labels of another shape or range.
        """
        images, labels = self.checked(images, labels)
        with looking_at(self.model):
            return self.model.encode(images, labels)[0]

    def decode_means(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The images (N, 1, H, W) in [0, 1] that z (N, z) stands for; labels (N,) are for conditional models."""
        with looking_at(self.model):
            return self.likelihood.mean(self.model.decode(z, labels))

    # --- figures --------------------------------------------------------------------------------------------

    def show_reconstructions(self, images: Tensor, labels: Tensor) -> Figure:
        """Each image above its reconstruction at the posterior mean, ten to a row.

        Args:
            images: (N, 1, H, W) in [0, 1], N >= 1.
            labels: (N,) integers.

        Raises:
            ValueError: images or labels of another shape or range.
        """
        images, labels = self.checked(images, labels)
        means = self.decode_means(self.encode_means(images, labels), labels)
        num_columns = min(len(images), NUM_COLUMNS)
        num_rows = math.ceil(len(images) / num_columns)
        figure = new_figure(max(num_columns, 4) + 1.2, 2.35 * num_rows + 0.4)
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
        device, labels = self.weight.device, None
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
        figure = new_figure(width, height)
        figure.suptitle(f"Samples from the prior: {self.name}")
        axes = figure.subplots()
        show_tiles(axes, tile(means, num_columns))
        if self.model.conditional:
            axes.set_yticks(tile_centres(num_rows, means.shape[2]), self.class_names)
        return figure

    def latent_manifold(self, side: int = 20, label: int | None = None) -> Figure:
        """Decoder means over the latent plane, every tile standing for the same prior mass.

        The grid is the standard normal's quantiles at (i + 0.5) / side (Kingma & Welling 2014, app. A); z0
        runs from left to right, z1 upwards.

        Args:
            side: tiles each way, >= 1.
            label: the class of all tiles, for a conditional model.

        Raises:
            ValueError: z is not 2, ``side`` < 1, or the label is missing, needless or out of range.
        """
        if self.model.latent_dim != 2:
            what = f"latent_manifold shows two latent dimensions, the model has z = {self.model.latent_dim}"
            raise ValueError(f"{what}: train with z = 2")
        if side < 1:
            raise ValueError(f"side must be >= 1, got {side}")
        labels = self.repeated(label, side * side)
        quantiles = ndtri((torch.arange(side, dtype=torch.float64) + 0.5) / side)
        z1, z0 = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
        z = torch.stack([z0, z1], dim=-1).flatten(0, 1).to(self.weight)  # (side * side, 2), in reading order
        means = self.decode_means(z, labels)
        figure = new_figure(8, 8.3)
        axes = figure.subplots()
        show_tiles(axes, tile(means, side, gap=0))
        of_class = "" if label is None else f" of {self.class_names[label]}"
        axes.set(
            title=f"Latent manifold{of_class}: {self.name}", xlabel="z0 (equal shares of the prior)", ylabel="z1"
        )
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
        """Posterior means of a split by class, see :func:`fmvae.visualization.latent.latent_scatter`."""
        if min(max_points, len(split)) < 1:
            raise ValueError(f"max_points {max_points} of {len(split)} images: give 1 or more of each")
        return latent_scatter(self, self.posteriors(split), split.name, max_points)

    def latent_traversal(
        self, split: Split, index: int | None = None, label: int | None = None, **options: Any
    ) -> Figure:
        """One latent dimension varied per row, from the prior mean or from image ``index`` of a split.

        Args:
            split: whose mean KL orders the dimensions.
            index: of the image to start from; its label is kept. None starts from the prior mean.
            label: for a conditional model that starts from the prior mean.
            options: of :func:`fmvae.visualization.traversal.latent_traversal`.
        """
        posteriors = self.posteriors(split)
        if index is None:
            return latent_traversal(self, posteriors, label=label, **options)
        image = to_float(split.images[index])
        return latent_traversal(self, posteriors, image=image, label=int(split.labels[index]), **options)

    # --- arguments ------------------------------------------------------------------------------------------

    def repeated(self, label: int | None, num_images: int) -> Tensor | None:
        """Labels (num_images,) of one class, None for a model that takes none."""
        if not self.model.conditional:
            if label is not None:
                raise ValueError(f"label {label} for a model that is not conditional: leave it out")
            return None
        if label is None or not 0 <= label < len(self.class_names):
            raise ValueError(f"label {label}: a conditional model needs one in [0, {len(self.class_names)})")
        return torch.full((num_images,), label, device=self.weight.device)

    def checked(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both as the model takes them, or a ValueError that says why it cannot."""
        if not len(images) or images.shape[1:] != self.model.image_shape or labels.shape != images.shape[:1]:
            wanted = f"(N, {', '.join(map(str, self.model.image_shape))}) and (N,), N >= 1"
            raise ValueError(f"images {tuple(images.shape)}, labels {tuple(labels.shape)}: give {wanted}")
        if not (images.min() >= 0 and images.max() <= 1):  # so that NaN is caught too
            raise ValueError(f"images in [{images.min():g}, {images.max():g}]: scale them to [0, 1]")
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < len(self.class_names):
                raise ValueError(f"label {label} with {len(self.class_names)} class_names: name each class")
        return images.detach().to(self.weight), labels.to(self.weight.device, torch.int64)
