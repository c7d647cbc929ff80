"""The Fréchet distance between two sets of features, in float64 (Heusel et al. 2017).

Features to statistics to number, and nothing else: reading images and networks happens elsewhere.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fmvae.errors import ConfigError

MIN_RELIABLE = 5000  # below this the estimate's bias dominates differences between models
log = logging.getLogger("fmvae")


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean (D,) and unbiased covariance (D, D) of ``num`` feature vectors, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    num: int

    @classmethod
    def of(cls, features: ArrayLike) -> "FeatureStatistics":
        """The statistics of features (N, D).

        Raises:
            ConfigError: N <= D, for which the covariance is singular whatever the images.
        """
        features = np.asarray(features, dtype=np.float64)
        num, dim = features.shape
        if num <= dim:
            raise ConfigError(
                "evaluation.fid.num_images",
                f"{num} images cannot give a covariance of {dim}-dimensional features",
                f"use more than {dim}, at best 10000",
            )
        if num < MIN_RELIABLE:
            log.warning("FID from %d images is biased upwards: compare only equal numbers, at best 10000", num)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (num - 1), num)


def _factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """L with L Lᵀ = covariance, for singular ones too (rounding below zero is clipped)."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """‖μa − μb‖² + tr(Σa) + tr(Σb) − 2 tr((Σa Σb)^½), >= 0 up to rounding (Dowson & Landau 1982).

    The eigenvalues of Σa Σb are the squared singular values of Laᵀ Lb, so the trace of the root is their sum: no
    matrix root of a non-symmetric product, and no complex parts.
    """
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def calculate_fid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """The Fréchet distance between two sets of features, each (N, D) with N > D."""
    return frechet_distance(FeatureStatistics.of(features_a), FeatureStatistics.of(features_b))
