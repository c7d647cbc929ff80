"""What every score starts from: checked codes and factors, and their mutual information."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fmvae.errors import DataError

NUM_BINS = 20  # as Locatello et al. 2019
MANY = 1e-9  # of a bin's width: values that lie on an edge but for rounding are taken as on it
Numbers = Tensor | np.ndarray


class Points(NamedTuple):
    """Checked points.

    Attributes:
        codes: float64 (N, D), D >= 2.
        factors: int64 (N, K); the values of each factor are counted from 0.
        values: the factors' original values, in order, for each factor.
        varied: the indices of the factors with two values or more; there are two at least.
    """

    codes: np.ndarray
    factors: np.ndarray
    values: list[np.ndarray]
    varied: list[int]


def checked(codes: Numbers, factors: Numbers) -> Points:
    """Check codes (N, D) and factors (N, K), and count the values of each factor from 0.

    A factor with one value says nothing about codes, so it takes no part in any score.

    Raises:
        DataError: the shapes do not fit, a code is not finite, factors are not whole numbers, or there are fewer
            than two dimensions or two factors that vary: every score compares dimensions, or factors.
    """
    z, given = as_codes(codes), _array(factors)
    if given.dtype.kind not in "iu":
        raise DataError("factors", f"{given.dtype} are not whole numbers", "give the index of each factor's value")
    if given.ndim != 2 or len(given) != len(z):
        problem = f"{tuple(given.shape)} for codes {tuple(z.shape)}"
        raise DataError("factors", problem, "give (N, K): a row for each code")
    if z.shape[1] < 2:
        way_out = "give two at least: a score tells whether a factor is in one dimension and not in others"
        raise DataError("codes", f"{z.shape[1]} dimension", way_out)
    found = [np.unique(column, return_inverse=True) for column in given.T]
    varied = [index for index, (values, _) in enumerate(found) if len(values) > 1]
    if len(varied) < 2:
        problem = f"{len(varied)} of {given.shape[1]} have more than one value"
        raise DataError("factors", problem, "give two that vary: a score tells whether codes keep them apart")
    counted = np.stack([indices.reshape(-1) for _, indices in found], 1)
    return Points(z, counted.astype(np.int64), [values for values, _ in found], varied)


def checked_test(points: Points, test: tuple[Numbers, Numbers] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return test codes (M, D) and factors (M, K), counted as in ``points``; -1 for a value that is not there.

    Without a test set, they are the points themselves.
    """
    if test is None:
        return points.codes, points.factors
    codes, factors = as_codes(test[0]), _array(test[1])
    if codes.shape[1] != points.codes.shape[1] or factors.shape != (len(codes), points.factors.shape[1]):
        problem = f"test codes {codes.shape} and factors {factors.shape}, fitted on {points.codes.shape}"
        raise DataError("factors", problem, "give as many dimensions and factors")
    counted = np.full(factors.shape, -1)
    for index, values in enumerate(points.values):
        place = np.searchsorted(values, factors[:, index]).clip(max=len(values) - 1)
        counted[:, index] = np.where(values[place] == factors[:, index], place, -1)
    return codes, counted


def as_codes(codes: Numbers) -> np.ndarray:
    """Return codes as float64 (N, D), N >= 2.

    Raises:
        DataError: the shape is another, or a code is not finite.
    """
    z = _array(codes).astype(np.float64)
    if z.ndim != 2 or len(z) < 2:
        raise DataError("codes", f"shape {tuple(z.shape)}", "give (N, D), with two points or more")
    if not np.isfinite(z).all():
        raise DataError("codes", f"{int((~np.isfinite(z)).sum())} are not finite", "encode with a sound model")
    return z


def _array(given: Numbers) -> np.ndarray:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)


def in_bins(codes: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Return the bin of each code (N, D), of ``num_bins`` of equal width from each dimension's least to greatest.

    A constant dimension is in bin 0.
    """
    low, width = codes.min(0), np.ptp(codes, 0)
    share = np.divide(codes - low, width, out=np.zeros_like(codes), where=width > 0)
    return np.floor(share * num_bins + MANY).astype(np.int64).clip(max=num_bins - 1)


def information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mutual information of two columns (N,) of whole numbers >= 0, in nats, from joint counts."""
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    joint = np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns) / len(first)
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    there = joint > 0
    return max(float((joint[there] * np.log(joint[there] / apart[there])).sum()), 0.0)


def mutual_information(codes: Numbers, factors: Numbers, num_bins: int = NUM_BINS) -> np.ndarray:
    """Return the mutual information of each dimension and each factor, in nats, (D, K); 0 for a constant.

    From contingency tables, so independent columns have more than 0: about (bins − 1)(values − 1) / 2N.

    Raises:
        DataError: as :func:`checked`.
    """
    points = checked(codes, factors)
    return informed(points, num_bins)


def informed(points: Points, num_bins: int = NUM_BINS) -> np.ndarray:
    """Return :func:`mutual_information` of checked points."""
    binned = in_bins(points.codes, num_bins)
    return np.array([[information(code, factor) for factor in points.factors.T] for code in binned.T])


def entropies(points: Points) -> np.ndarray:
    """Return the entropy of each factor, in nats, (K,)."""
    return np.array([information(factor, factor) for factor in points.factors.T])
