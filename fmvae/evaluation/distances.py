"""Distances of generated and reconstructed images from real ones, in one set of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmvae.evaluation.frechet import FeatureStatistics, frechet_distance, frechet_standard_error
from fmvae.evaluation.kernel import kernel_distance
from fmvae.evaluation.neighbours import neighbour_measures

Array = NDArray[np.floating]


def fid_block(
    *,
    real: Array,
    train: Array,
    generated: Array,
    reconstructed: Array | None = None,
    labels: tuple[NDArray[np.integer], NDArray[np.integer]] | None,
    class_names: Sequence[str],
    num_neighbours: int,
) -> dict[str, Any]:
    """Compute distances to the test images from features, each (N, D).

    Args:
        real: features of test images; ``reconstructed`` are of the same images, and ``generated`` of images
            generated with the same labels.
        train: features of training images.
        reconstructed: None omits ``reconstruction``.
        labels: the labels of ``real`` and of ``train``; None omits the distances by class.

    Returns:
        Fréchet distances: ``generation``, ``reconstruction`` and ``floor`` (of training images: the score of a
        perfect model); ``generation_se``, the standard error of ``generation``; kernel distances: ``kid`` and
        ``kid_floor``; ``precision``, ``recall``, ``density`` and ``coverage`` of the generated images; and
        ``per_class``, generation and floor of each class with more images than feature dimensions.
    """
    statistics = FeatureStatistics.of(real)  # warns once if N is small; the other sets have the same N

    def distance(features: Array) -> float:
        return frechet_distance(statistics, FeatureStatistics.of(features, warn=False))

    block: dict[str, Any] = {
        "generation": distance(generated),
        "generation_se": frechet_standard_error(statistics, generated),
        **({} if reconstructed is None else {"reconstruction": distance(reconstructed)}),
        "floor": distance(train),
        "kid": kernel_distance(real, generated),
        "kid_floor": kernel_distance(real, train),
        **neighbour_measures(real, generated, num_neighbours=num_neighbours),
        "num_images": len(real),
        "reference": "test",
    }
    if labels is not None:
        block["per_class"] = _per_class(real, generated, train, *labels, class_names)
    return block


def _per_class(
    real: Array,
    generated: Array,
    train: Array,
    real_labels: NDArray[np.integer],
    train_labels: NDArray[np.integer],
    class_names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Compute Fréchet distances within each class; each has its own floor, as few images bias both upwards."""
    result = {}
    for c, name in enumerate(class_names):
        of_real, of_train = np.flatnonzero(real_labels == c), np.flatnonzero(train_labels == c)
        num = min(len(of_real), len(of_train))  # equal numbers, as the bias depends on them
        if num <= real.shape[1]:
            continue
        sides = (real[of_real[:num]], generated[of_real[:num]], train[of_train[:num]])
        of_class, made, floor = (FeatureStatistics.of(side, warn=False) for side in sides)
        result[name] = {
            "generation": frechet_distance(of_class, made),
            "floor": frechet_distance(of_class, floor),
            "num_images": num,
        }
    return result
