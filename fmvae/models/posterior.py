"""Encode a whole split."""

from typing import NamedTuple

import torch
from torch import Tensor

from fmvae.common.phases import phase
from fmvae.data import Split
from fmvae.models.modes import in_evaluation_mode
from fmvae.models.vae import VAE

ENCODING_BATCH = 500


class Posteriors(NamedTuple):
    """mu and logvar (N, latent_dim), float32, and labels (N,) of N images, on the model's device."""

    mu: Tensor
    logvar: Tensor
    labels: Tensor


@torch.inference_mode()
def encode_split(model: VAE, split: Split, num: int | None = None) -> Posteriors:
    """Encode the first ``num`` images of a split (all if None) in evaluation mode; restore the model's mode."""
    first = split.take(slice(num))
    encoded = []
    with in_evaluation_mode(model), phase(f"posteriors, {split.name}", len(first), minor=True) as current:
        for x, labels in first.batches(ENCODING_BATCH):
            encoded.append(model.encode(x, labels))
            current.advance(len(x))
    mu, logvar = (torch.cat(parts) for parts in zip(*encoded, strict=True))
    return Posteriors(mu, logvar, first.labels)
