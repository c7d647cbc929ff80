"""The Fréchet distance between two sets of features, in float64 (Heusel et al. 2017).

Features to statistics to number, and nothing else: reading images and networks happens elsewhere.
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
        """The statistics of features (N, D).

        Args:
            features: the features, N > D.
            warn: whether to log that few images bias the distance; for those who call often and have said it once.

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
        if warn and num < MIN_RELIABLE:
            log.warning("FID from %d images is biased upwards: compare only equal numbers, at best 10000", num)
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (num - 1), num)

    @cached_property
    def factor(self) -> NDArray[np.float64]:
        """L (D, D) with L Lᵀ = covariance, for singular ones too (rounding below zero is clipped).

        Computed once, so that real statistics serve for many comparisons.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors * np.sqrt(values.clip(min=0))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """‖μa − μb‖² + tr(Σa) + tr(Σb) − 2 tr((Σa Σb)^½), >= 0 up to rounding (Dowson & Landau 1982).

    The eigenvalues of Σa Σb are the squared singular values of Laᵀ Lb, so the trace of the root is their sum: no
    matrix root of a non-symmetric product, and no complex parts.
    """
    cross = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
    shift = np.square(a.mean - b.mean).sum()
    return float(shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def frechet_standard_error(real: FeatureStatistics, features: ArrayLike) -> float:
    """The standard error of the distance of features (N, D) to fixed real statistics, from which N were drawn.

    The infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6): a linear expansion in the weight of each
    image, whose derivatives are exact, so that the standard error is their standard deviation over √N. A feature
    c = x − μ adds, up to a constant, 2 c·(μ − μr) + |c|² − cᵀ T c, with T = Lr (Lrᵀ Σ Lr)^−½ Lrᵀ from the
    derivative of −2 tr((Σr Σ)^½).

    It says how the distance would vary with other draws from the same model. Not in it: the bias from a finite N,
    and the real images, which are the same for all models. The tests compare it with the spread over new
    samples: it is too large where bias is most of the distance, as for a perfect model. It is also too large for
    images drawn with set numbers of each class. The bootstrap (Efron 1979) would need random draws and a distance
    for each.

    Raises:
        ConfigError: N <= D.
    """
    features = np.asarray(features, dtype=np.float64)
    generated = FeatureStatistics.of(features, warn=False)
    centred = features - generated.mean
    left, singular, _ = np.linalg.svd(real.factor.T @ generated.factor)  # Lrᵀ Σ Lr = U S² Uᵀ
    # directions in which either side has no spread keep none under reweighting, and add nothing
    kept = singular > singular.max() * len(singular) * np.finfo(np.float64).eps
    projected = centred @ (real.factor @ left[:, kept])
    derivative = 2 * centred @ (generated.mean - real.mean) + np.square(centred).sum(axis=1)
    derivative -= np.square(projected) @ (1 / singular[kept])
    return float(derivative.std(ddof=1) / np.sqrt(len(features)))


def calculate_fid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """The Fréchet distance between two sets of features, each (N, D) with N > D."""
    return frechet_distance(FeatureStatistics.of(features_a), FeatureStatistics.of(features_b))
