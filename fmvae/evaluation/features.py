"""Images as feature vectors, real and generated alike."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmvae.data import Split
from fmvae.evaluation.likelihood import EVALUATION_BATCH
from fmvae.models import VAE
from fmvae.objectives import Likelihood


def real_images(split: Split, num: int) -> Iterator[Tensor]:
    """The first ``num`` images of a split (fewer if it has fewer), in batches (B, C, H, W) in [0, 1]."""
    first = Split(split.name, split.images[:num], split.labels[:num])
    yield from (x for x, _ in first.batches(EVALUATION_BATCH))


@torch.inference_mode()
def reconstructed_images(model: VAE, likelihood: Likelihood, split: Split, num: int) -> Iterator[Tensor]:
    """The first ``num`` images of a split, encoded and decoded at the posterior mean."""
    first = Split(split.name, split.images[:num], split.labels[:num])
    for x, labels in first.batches(EVALUATION_BATCH):
        mu, _ = model.encode(x, labels)
        yield likelihood.mean(model.decode(mu, labels))


@torch.inference_mode()
def generated_images(
    model: VAE, likelihood: Likelihood, labels: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    """One decoder mean (not a pixel draw) per label, from prior latents; models without labels ignore them."""
    for chunk in labels.split(EVALUATION_BATCH):
        yield likelihood.mean(model.sample(len(chunk), chunk, generator=generator))


def pixel_features(batches: Iterator[Tensor]) -> NDArray[np.float64]:
    """Images as they are, flattened: (N, C*H*W), in [0, 1]."""
    return np.concatenate([batch.flatten(1).cpu().double().numpy() for batch in batches])
