"""Distances of generated and reconstructed images from real ones, in one set of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmvae.evaluation.frechet import FeatureStatistics, frechet_distance, frechet_standard_error
from fmvae.evaluation.kernel import kernel_distance
from fmvae.evaluation.neighbours import neighbour_measures

Array = NDArray[np.floating]


class RealImages:
    """Real images to compare with, in one set of features; what depends on them alone is computed once.

    Args:
        test, train: features (N, D) of test images, and of as many training images.
        labels: the labels of ``test`` and of ``train``; None omits the distances by class.
    """

    def __init__(
        self,
        test: Array,
        train: Array,
        labels: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
        class_names: Sequence[str] = (),
    ):
        self.test = test
        self.statistics = FeatureStatistics.of(test)  # warns once if N is small; the other sets have the same N
        self.floors = {"floor": self.distance(train), "kid_floor": kernel_distance(test, train)}
        self.classes = {} if labels is None else dict(_classes(test, train, *labels, class_names))
        self.labelled = labels is not None

    def distance(self, features: Array) -> float:
        """Return the Fréchet distance of images from the test images, by their features (N, D)."""
        return frechet_distance(self.statistics, FeatureStatistics.of(features, warn=False))

    def block(self, generated: Array, num_neighbours: int) -> dict[str, Any]:
        """Compare generated images, which have the labels of the test images, by their features (N, D).

        Returns:
            Fréchet distances: ``generation`` and ``floor`` (of training images: the score of a perfect model);
            ``generation_se``, the standard error of ``generation``; kernel distances: ``kid`` and ``kid_floor``;
            ``precision``, ``recall``, ``density`` and ``coverage`` of the generated images; and ``per_class``,
            generation and floor of each class with more images than feature dimensions.
        """
        block: dict[str, Any] = {
            "generation": self.distance(generated),
            "generation_se": frechet_standard_error(self.statistics, generated),
            "floor": self.floors["floor"],
            "kid": kernel_distance(self.test, generated),
            "kid_floor": self.floors["kid_floor"],
            **neighbour_measures(self.test, generated, num_neighbours=num_neighbours),
            "num_images": len(self.test),
            "reference": "test",
        }
        if self.labelled:
            block["per_class"] = {name: known.block(generated) for name, known in self.classes.items()}
        return block


class _Class(NamedTuple):
    """One class: its test images by number, their statistics, and the floor, as few images bias both upwards."""

    images: NDArray[np.integer]
    statistics: FeatureStatistics
    floor: float

    def block(self, generated: Array) -> dict[str, float]:
        made = FeatureStatistics.of(generated[self.images], warn=False)
        return {
            "generation": frechet_distance(self.statistics, made),
            "floor": self.floor,
            "num_images": len(self.images),
        }


def _classes(
    test: Array,
    train: Array,
    test_labels: NDArray[np.integer],
    train_labels: NDArray[np.integer],
    class_names: Sequence[str],
) -> Iterator[tuple[str, _Class]]:
    """Yield the classes that have enough images, by name."""
    for c, name in enumerate(class_names):
        of_test, of_train = np.flatnonzero(test_labels == c), np.flatnonzero(train_labels == c)
        num = min(len(of_test), len(of_train))  # equal numbers, as the bias depends on them
        if num <= test.shape[1]:
            continue
        known, floor = (
            FeatureStatistics.of(side, warn=False) for side in (test[of_test[:num]], train[of_train[:num]])
        )
        yield name, _Class(of_test[:num], known, frechet_distance(known, floor))
