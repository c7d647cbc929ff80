"""Models to explore, with weights that were never trained, and their pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmvae.data import ImageData
from fmvae.explore.content import Subject
from fmvae.explore.page import page_of
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE
from fmvae.models.modes import in_evaluation_mode
from fmvae.objectives import Bernoulli, Likelihood
from fmvae.visualization import Source, VAEVisualizer

SHAPE = (1, 16, 16)
MODELS = {
    "base": lambda: BaseVAE(4, 30, SHAPE),
    "beta": lambda: BetaVAE(4, image_shape=SHAPE),
    "beta_bn_relu": lambda: BetaVAE(4, "bn_relu", image_shape=SHAPE),
    "conv": lambda: ConvVAE(4, SHAPE),
    "gated": lambda: GatedVAE(4, 30, SHAPE),
    "residual": lambda: ResidualVAE(4, 8, 2, "batch", SHAPE),
    "residual_group": lambda: ResidualVAE(4, 8, 1, "group", SHAPE),
    "conditional": lambda: ConditionalVAE(4, 3, "mlp", 30, "learned", SHAPE),
    "conditional_conv": lambda: ConditionalVAE(4, 3, "conv", image_shape=SHAPE),
    "conditional_residual": lambda: ConditionalVAE(4, 3, "residual", image_shape=SHAPE, width=8, norm="group"),
    "base_rgb": lambda: BaseVAE(4, 30, (3, 8, 8)),
}


def stirred(model: VAE) -> VAE:
    """Give a model weights that differ from zero and one everywhere, and running statistics."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.2 * (torch.rand(tensor.shape, generator=generator) - 0.5))
        for tensor in model.buffers():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return model


def images(shape: Sequence[int] = SHAPE, names: Sequence[str] | None = ("Left", "Right", "Both")) -> ImageData:
    """Return 60 random images in each split, of three classes, or without labels."""
    generator = torch.Generator().manual_seed(5)

    def split() -> tuple[Any, Any]:
        pixels = torch.randint(0, 256, (60, *shape), generator=generator, dtype=torch.uint8)
        return pixels, torch.arange(60) % 3 if names else None

    return ImageData(
        train=split(), val=split(), test=split(), num_classes=3 if names else 1, class_names=names, batch_size=20
    )


def subject(
    model: VAE,
    name: str = "run",
    label: str = "",
    likelihood: Likelihood | None = None,
    names: Sequence[str] | None = ("Left", "Right", "Both"),
    **given: Any,
) -> Subject:
    data = images(model.image_shape, names)
    view = VAEVisualizer(model, likelihood or Bernoulli(), class_names=data.class_names, name=f"{name}, z")
    return Subject(name, view, data, label, [("−ELBO", "1.00 nats")], **given)


def written(folder: Path, *subjects: Subject, left_out: Sequence[tuple[str, str]] = ()) -> Path:
    path = folder / "explorer.html"
    path.write_text(page_of(subjects, left_out), encoding="utf-8")
    return path


def decoded(one: Subject, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the expected images, from the model itself: an independent way of the page's."""
    view = one.visualizer
    with torch.no_grad(), in_evaluation_mode(view.model):
        return view.likelihood.mean(view.model.decode(z, labels))


def shifted(latent_dim: int) -> Source:
    """A sampler whose draws show where they come from: near 5 + class."""

    def draw(num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        centre = 5.0 if labels is None else 5.0 + labels[:, None]
        return centre + 0.1 * torch.rand((num, latent_dim), generator=generator)

    return Source("a sampler far away", draw)
