"""All measures of one model on the test split, as ``(name, value)`` for the caller to record."""

from collections.abc import Iterator
from typing import Any

import torch

from fmvae import rng
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.evaluation.features import generated_images, pixel_features, real_images, reconstructed_images
from fmvae.evaluation.frechet import FeatureStatistics, frechet_distance
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.models import VAE
from fmvae.objectives import Objective


@torch.inference_mode()
def evaluate(
    model: VAE, objective: Objective, data: FashionMNISTManager, *, seed: int, fid_images: int = 10_000
) -> Iterator[tuple[str, Any]]:
    """Measure a trained model on the test split; the same model gives the same numbers whenever it is asked.

    Args:
        seed: the run's seed; posterior and prior draws come from its streams.
        fid_images: images on each side of the Fréchet distances; 0 leaves them out.

    Yields:
        ``("test", terms)``: see ``measure_elbo``, with ``num_images``.
        ``("fid", {"pixels": block})``: see ``pixel_fid``.
    """
    model.eval()
    noise = rng.stream(seed, "evaluation", device=data.device)
    terms = measure_elbo(model, objective, data.test, noise, at_mean=True)
    yield "test", {"num_images": len(data.test), **terms}
    if fid_images:
        yield "fid", {"pixels": pixel_fid(model, objective, data, seed=seed, num_images=fid_images)}


def pixel_fid(
    model: VAE, objective: Objective, data: FashionMNISTManager, *, seed: int, num_images: int
) -> dict[str, Any]:
    """Fréchet distances to the test images, in the 784 pixel values.

    Returns:
        ``generation`` (decoder means of prior draws, labels in the proportions of the test split),
        ``reconstruction`` (of the test images themselves), ``floor`` (training images against test images: what a
        perfect model would score), the number of images on each side, and what they were compared with.
    """
    smaller = min(data.test, data.train, key=len)  # the floor takes as many training images
    if num_images > len(smaller):
        raise ConfigError(
            "evaluation.fid.num_images",
            f"{num_images} images asked, but the {smaller.name} split holds {len(smaller)}",
            f"give {len(smaller)} or fewer, or 0 to leave FID out",
        )
    likelihood = objective.likelihood
    draws = rng.stream(seed, "sampling", device=data.device)
    # training images in a fixed random order: as stored, a sorted file would give the floor a few classes only
    order = torch.randperm(len(data.train), generator=rng.stream(0, "evaluation"))[:num_images]
    train = type(data.train)("train", data.train.images[order], data.train.labels[order])
    real = FeatureStatistics.of(pixel_features(real_images(data.test, num_images)))
    compared = {
        "generation": generated_images(model, likelihood, data.test.labels[:num_images], draws),
        "reconstruction": reconstructed_images(model, likelihood, data.test, num_images),
        "floor": real_images(train, num_images),
    }
    distances = {
        name: frechet_distance(real, FeatureStatistics.of(pixel_features(images)))
        for name, images in compared.items()
    }
    return {**distances, "num_images": num_images, "reference": "test", "features": "pixels in [0, 1]"}
