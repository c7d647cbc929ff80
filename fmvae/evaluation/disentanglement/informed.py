"""The scores from mutual information: MIG, modularity, InfoM and InfoC. All are deterministic, in [0, 1]."""

from __future__ import annotations

import numpy as np

from fmvae.evaluation.disentanglement.points import NUM_BINS, Numbers, checked, entropies, informed

INACTIVE = 1 / 20  # of the widest dimension's range: narrower ones are left out of InfoM and InfoC


def mig(codes: Numbers, factors: Numbers, *, num_bins: int = NUM_BINS) -> float:
    """Return the mutual information gap (Chen et al. 2018, eq. 6), with bins as Locatello et al. 2019.

    The mean over factors of (I₁ − I₂) / H(factor), where I₁ and I₂ are the two largest mutual informations of
    the factor with a dimension. 1: every factor is in one dimension, whole, and in no other. Chance: near 0.

    Args:
        codes: (N, D), D >= 2. Each dimension is divided into ``num_bins`` bins of equal width.
        factors: whole numbers (N, K). Those with one value are left out.

    Raises:
        DataError: as :func:`~fmvae.evaluation.disentanglement.points.checked`.
    """
    points = checked(codes, factors)
    ordered = np.sort(informed(points, num_bins)[:, points.varied], 0)
    return float(((ordered[-1] - ordered[-2]) / entropies(points)[points.varied]).mean())


def modularity(codes: Numbers, factors: Numbers, *, num_bins: int = NUM_BINS) -> float:
    """Return the modularity (Ridgeway & Mozer 2018, section 3): whether each dimension follows one factor only.

    The mean over dimensions of 1 − Σ I² / (I₁² (K − 1)), where I₁ is the dimension's largest mutual information
    with a factor, and the sum is over the K − 1 other factors. A dimension without any counts as 0, as in
    Locatello et al. 2019. Noise is far from 0: its small mutual informations differ by chance, and in proportion
    to the factors' numbers of values.

    Args and errors: as for :func:`mig`.
    """
    points = checked(codes, factors)
    squared = informed(points, num_bins)[:, points.varied] ** 2
    largest = squared.max(1)
    others = (squared.sum(1) - largest) / (len(points.varied) - 1)
    return float(np.divide(largest - others, largest, out=np.zeros_like(largest), where=largest > 0).mean())


def infom(codes: Numbers, factors: Numbers, *, num_bins: int = NUM_BINS) -> float:
    """Return InfoM (Hsu et al. 2023, section 3): whether each dimension follows one factor only.

    The mean over active dimensions of max_k I / Σ_k I, where I is the mutual information divided by the factor's
    entropy, scaled so that equal shares give 0 and one factor alone 1. Active are dimensions whose range is above
    a twentieth of the widest one's. Mutual information is that of :func:`mig`; the paper takes an estimate from
    nearest neighbours.

    Args and errors: as for :func:`mig`.
    """
    shares = _active(codes, factors, num_bins)
    return _concentration(shares.T)


def infoc(codes: Numbers, factors: Numbers, *, num_bins: int = NUM_BINS) -> float:
    """Return InfoC (Hsu et al. 2023, section 3): whether each factor is in one dimension only.

    As :func:`infom`, but the mean over factors of max_d I / Σ_d I, over active dimensions d. 0 if there is one
    active dimension or none: then nothing is told apart.

    Args and errors: as for :func:`mig`.
    """
    return _concentration(_active(codes, factors, num_bins))


def _active(codes: Numbers, factors: Numbers, num_bins: int) -> np.ndarray:
    """Return the normalised mutual information of active dimensions and varied factors."""
    points = checked(codes, factors)
    shares = informed(points, num_bins)[:, points.varied] / entropies(points)[points.varied]
    width = np.ptp(points.codes, 0)
    return shares[width > width.max() * INACTIVE]


def _concentration(shares: np.ndarray) -> float:
    """Return the mean over columns of the largest entry's share of the column, scaled to [0, 1]."""
    num = len(shares)
    if num < 2 or not shares.shape[1]:
        return 0.0
    total = shares.sum(0)
    largest = np.divide(shares.max(0), total, out=np.full(len(total), 1 / num), where=total > 0)
    return float((largest.mean() - 1 / num) / (1 - 1 / num))
