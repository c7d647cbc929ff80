"""A read-only view of a model for figures: posteriors, decoded images, its shape and names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.class_names import drawable
from fmvae.data.checks import CHANNELS
from fmvae.data.split import Split
from fmvae.models import VAE, ConditionalVAE
from fmvae.models.posterior import Posteriors, encode_split
from fmvae.objectives import Density, Likelihood
from fmvae.visualization.tiles import looking_at


class Source(NamedTuple):
    """Where the latents of samples come from, if it is not the model's prior.

    Attributes:
        name: in titles, after "from".
        draw: gives latents (num, z) in any precision, for labels (num,) or None.
    """

    name: str
    draw: Callable[[int, Tensor | None, torch.Generator], Tensor]


class ModelView:
    """A model as figures use it. Random draws come from the stream ``sampling`` only and depend on the seed.

    Args:
        model: any VAE of grey or RGB images, on any device, in any mode.
        likelihood: converts the decoder's logits to the expected image.
        class_names: by label, any text; None for data without labels. Figures show them as
            :func:`fmvae.common.class_names.drawable` has them.
        seed: of the stream ``sampling``.
        name: the model's name in titles; by default the name of its class, and z.

    Raises:
        ValueError: the images are neither grey nor RGB, or a conditional model has another number of classes.
    """

    def __init__(
        self,
        model: VAE,
        likelihood: Likelihood,
        *,
        class_names: Sequence[str] | None,
        seed: int = 0,
        name: str | None = None,
    ):
        if model.image_shape[0] not in CHANNELS:
            raise ValueError(f"image_shape {model.image_shape}: pictures show 1 channel (grey) or 3 (RGB)")
        if model.conditional and class_names is None:
            raise ValueError(f"{type(model).__name__} takes labels: name each class")
        if isinstance(model, ConditionalVAE) and model.num_classes != len(class_names or ()):
            raise ValueError(f"{len(class_names or ())} class_names, {model.num_classes} classes: name each class")
        self.model, self.likelihood, self.seed = model, likelihood, seed
        self.class_names = None if class_names is None else tuple(class_names)
        self.name = name or f"{type(model).__name__}, z = {model.latent_dim}"

    def at_epoch(self, epoch: int) -> Self:
        """Return a copy of this view, with the epoch in its titles."""
        other = copy.copy(self)
        other.name = f"{self.name}, epoch {epoch}"
        return other

    # --- properties of the model ---------------------------------------------------------------------------------

    @property
    def latent_dim(self) -> int:
        return self.model.latent_dim

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.model.image_shape

    @property
    def conditional(self) -> bool:
        """Whether the model takes labels."""
        return self.model.conditional

    @property
    def weight(self) -> Tensor:
        """One of the model's parameters, which gives its device and dtype."""
        return next(self.model.parameters())

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, as figures show them.

        Raises:
            ValueError: the data have no labels.
        """
        if self.class_names is None:
            raise ValueError(f"{self.name} was trained on data without labels: there are no class names")
        return drawable(self.class_names)

    def names_of(self, labels: Tensor) -> list[str]:
        """Return the class name of each label (N,) for a figure; empty strings if the data have no labels."""
        if self.class_names is None:
            return [""] * len(labels)
        names = self.names
        return [names[label] for label in labels.tolist()]

    def of_class(self, label: int | None) -> str:
        """Return a label's class name for a title; an empty string without a label or without classes."""
        return "" if label is None or self.class_names is None else self.names[label]

    # --- encoding, decoding and sampling -----------------------------------------------------------

    def posteriors(self, split: Split, num: int | None = None) -> Posteriors:
        """Encode the first ``num`` images of a split, or all; every layer keeps its mode."""
        with looking_at(self.model):
            return encode_split(self.model, split, num)

    def encode_means(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return the posterior means (N, z) of images (N, C, H, W) in [0, 1] with labels (N,).

        Raises:
            ValueError: images or labels have a wrong shape or range.
        """
        images, labels = self.checked(images, labels)
        with looking_at(self.model):
            return self.model.encode(images, labels)[0]

    def decode_means(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Decode z (N, z) to expected images (N, C, H, W) in [0, 1]; labels (N,) are for conditional models."""
        with looking_at(self.model):
            return self.likelihood.mean(self.model.decode(z, labels))

    def prior(self) -> Density:
        """Return the prior with the current weights."""
        with looking_at(self.model):
            return self.model.prior_density()

    def sample_latents(self, num_samples: int, labels: Tensor | None, source: Source | None = None) -> Tensor:
        """Draw latents (N, z) from a source, or from the prior; labels are (N,), or None."""
        generator = rng.stream(self.seed, "sampling", device=self.weight.device)
        with looking_at(self.model):
            if source is None:
                return self.model.prior_density().sample(num_samples, generator)
            return source.draw(num_samples, labels, generator).to(self.weight)

    def sample_means(self, num_samples: int, labels: Tensor | None, source: Source | None = None) -> Tensor:
        """Decode draws from a source, or from the prior, to images (N, C, H, W) in [0, 1]."""
        if source is not None:
            return self.decode_means(self.sample_latents(num_samples, labels, source), labels)
        generator = rng.stream(self.seed, "sampling", device=self.weight.device)
        with looking_at(self.model):  # its own method, which a user's model may have overridden
            return self.likelihood.mean(self.model.sample(num_samples, labels, generator=generator))

    # --- arguments --------------------------------------------------------------------------------------------

    def repeated(self, label: int | None, num_images: int) -> Tensor | None:
        """Return labels (num_images,) of one class; None for an unconditional model."""
        if not self.conditional:
            if label is not None:
                raise ValueError(f"label {label} for a model that is not conditional: leave it out")
            return None
        if label is None or not 0 <= label < len(self.names):
            raise ValueError(f"label {label}: a conditional model needs one in [0, {len(self.names)})")
        return torch.full((num_images,), label, device=self.weight.device)

    def checked(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check images and labels and move them to the model's device; raise ValueError if they do not fit.

        For data without labels, ``labels`` may be None; zeros are returned.
        """
        if labels is None and self.class_names is None:
            labels = torch.zeros(len(images), dtype=torch.int64)
        found = None if labels is None else tuple(labels.shape)
        if not len(images) or images.shape[1:] != self.image_shape or labels is None or found != (len(images),):
            wanted = f"(N, {', '.join(map(str, self.image_shape))}) and (N,), N >= 1"
            raise ValueError(f"images {tuple(images.shape)}, labels {found}: give {wanted}")
        if not (images.min() >= 0 and images.max() <= 1):  # this form also catches NaN
            raise ValueError(f"images in [{images.min():g}, {images.max():g}]: scale them to [0, 1]")
        if self.class_names is not None:
            for label in (int(labels.min()), int(labels.max())):
                if not 0 <= label < len(self.class_names):
                    raise ValueError(f"label {label} with {len(self.class_names)} class_names: name each class")
        return images.detach().to(self.weight), labels.to(self.weight.device, torch.int64)
