"""The kernel distance between two sets of features, in float64 (Bińkowski et al. 2018)."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fmvae.errors import ConfigError

CHUNK = 1024  # rows of kernel values held at a time: 80 MB for 10,000 columns


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return the KID: the unbiased squared maximum mean discrepancy of a (N, D) and b (M, D), for (x·y/D + 1)³.

    Unlike the Fréchet distance, it is unbiased for every N and M and does not need N > D. It is negative about
    half of the time if both sets come from the same distribution. It uses all points at once, not random subsets;
    the mean over subsets that other implementations report estimates the same number with more noise. Features are
    not standardised; the kernel depends on their origin and scale.

    Raises:
        ConfigError: N or M is below 2, for which the estimate does not exist.
    """
    x, y = (torch.from_numpy(np.asarray(features, dtype=np.float64)) for features in (a, b))
    for num in (len(x), len(y)):
        if num < 2:
            raise ConfigError(
                "evaluation.fid.num_images",
                f"{num} images cannot give a kernel distance",
                "use at least 2, at best 10000",
            )
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _sum(x, y) / (len(x) * len(y))


def _mean_of_pairs(x: Tensor) -> float:
    """Return the mean of the kernel over pairs of different points of x (N, D); equal pairs would cause a bias."""
    num, dim = x.shape
    total = 0.0
    for start in range(0, num, CHUNK):
        rows, later = x[start : start + CHUNK], x[start + CHUNK :]
        total += _sum(rows, rows) + 2 * _sum(rows, later)  # the kernel is symmetric
    with_itself = _cubed(x.square().sum(dim=1) / dim + 1).sum().item()
    return (total - with_itself) / (num * (num - 1))


def _sum(x: Tensor, y: Tensor) -> float:
    """Return the sum of the kernel over all pairs of x (N, D) and y (M, D)."""
    dim = x.shape[1]
    return sum(_cubed(rows @ y.T / dim + 1).sum().item() for rows in x.split(CHUNK))


def _cubed(base: Tensor) -> Tensor:
    return base.square().mul_(base)
