"""The Fréchet distance between two sets of features, in float64 (Heusel et al. 2017).

This module only maps features to statistics, and statistics to a number; it reads no images and no networks.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

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
    def of(cls, features: ArrayLike, *, warn: bool = True) -> "FeatureStatistics":
        """Compute the statistics of features (N, D).

        Args:
            features: the features, N > D.
            warn: whether to log a warning that few images bias the distance.

        Raises:
            ConfigError: N <= D, for which the covariance is always singular.
        """
        features = np.asarray(features, dtype=np.float64)
        num, dim = features.shape
        if num <= dim:
            raise ConfigError(
                "evaluation.fid.num_images",
                f"{num} images cannot give a covariance of {dim}-dimensional features",
                f"use more than {dim}, at best 10000",
            )
        if warn and num < MIN_RELIABLE:
            log.warning("FID from %d images is biased upwards: compare only equal numbers, at best 10000", num)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (num - 1), num)

    @cached_property
    def factor(self) -> NDArray[np.float64]:
        """L (D, D) with L Lᵀ = covariance; the covariance may be singular (negative eigenvalues are set to 0).

        Cached, as the statistics of real images are used in many comparisons.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors * np.sqrt(values.clip(min=0))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return ‖μa − μb‖² + tr(Σa) + tr(Σb) − 2 tr((Σa Σb)^½), >= 0 up to rounding (Dowson & Landau 1982).

    The eigenvalues of Σa Σb are the squared singular values of Laᵀ Lb, so the trace of the root is the sum of the
    singular values. This avoids the square root of a non-symmetric matrix and its complex parts.
    """
    cross = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def frechet_standard_error(real: FeatureStatistics, features: ArrayLike) -> float:
    """Return the standard error of the distance between features (N, D) of a model and fixed real statistics.

    Uses the infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6): the distance is linearised in the
    weight of each image, with exact derivatives, and the standard error is their standard deviation over √N. The
    derivative for a centred feature c = x − μ is, up to a constant, 2 c·(μ − μr) + |c|² − cᵀ T c, where
    T = Lr (Lrᵀ Σ Lr)^−½ Lrᵀ comes from the derivative of −2 tr((Σr Σ)^½).

    It estimates how the distance varies between samples from the same model. It does not include the bias from a
    finite N, or the choice of real images, which are the same for all models. The tests compare it with the spread
    over new samples: it is too large where bias is most of the distance, as for a perfect model, and for samples
    with a fixed number of images per class. The bootstrap (Efron 1979) would need random draws and a distance for
    each.

    Raises:
        ConfigError: N <= D.
    """
    features = np.asarray(features, dtype=np.float64)
    generated = FeatureStatistics.of(features, warn=False)
    centred = features - generated.mean
    left, singular, _ = np.linalg.svd(real.factor.T @ generated.factor)  # Lrᵀ Σ Lr = U S² Uᵀ
    # directions without variance on either side have none under any weights, and contribute nothing
    kept = singular > singular.max() * len(singular) * np.finfo(np.float64).eps
    projected = centred @ (real.factor @ left[:, kept])
    derivative = 2 * centred @ (generated.mean - real.mean) + np.square(centred).sum(axis=1)
    derivative -= np.square(projected) @ (1 / singular[kept])
    return float(derivative.std(ddof=1) / np.sqrt(len(features)))


def calculate_fid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Return the Fréchet distance between two sets of features, each (N, D) with N > D."""
    return frechet_distance(FeatureStatistics.of(features_a), FeatureStatistics.of(features_b))
