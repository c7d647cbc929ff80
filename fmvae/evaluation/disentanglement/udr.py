"""Unsupervised disentanglement ranking: how well latents of models with other seeds match. Needs no factors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fmvae.errors import DataError
from fmvae.evaluation.disentanglement.points import Numbers, as_codes

FEWEST = 3  # models: two have one pair, which says nothing of either
DRAWS = (100, 4000)  # least and most of a level's draws
NUMBERS = 200_000  # in a draw's matrices, over all draws: many dimensions vary less, and need fewer draws


class UDR(NamedTuple):
    """The scores of M models.

    Attributes:
        scores: (M,), in [0, 1].
        pairs: (M, M), symmetric, the score of each pair; the diagonal is 1 and takes no part.
        similarity: for each pair i < j, the absolute rank correlations of their dimensions (D_i, D_j).
    """

    scores: np.ndarray
    pairs: np.ndarray
    similarity: dict[tuple[int, int], np.ndarray]


def udr(codes: Sequence[Numbers], informative: Sequence[Numbers]) -> UDR:
    """Return the UDR of several models (Duan et al. 2020, section 4), with Spearman's correlation.

    Two models are similar if their informative dimensions match one to one, in any order and with any sign. With
    R the absolute rank correlations of model a's dimensions and b's, and d_a and d_b the numbers of informative
    dimensions, the score of a pair is

        (Σ_b max_a R² / Σ_a R + Σ_a max_b R² / Σ_b R) / (d_a + d_b),

    and a model's score is the median over its pairs. Correlations of N points are about 0.8 / √N where there is
    none, so equal models with d dimensions have about 1 / (1 + 0.8 (d − 1) / √N), not 1. The score of models that
    are not disentangled is the larger, the fewer dimensions are informative: compare with :func:`rotated_level`.

    The sum over both sides is divided by d_a + d_b, as in the paper. disentanglement_lib takes the mean of each
    side and averages the two means, which is another number if d_a ≠ d_b.

    Args:
        codes: (N, D) for each model, of the same N images; D may differ.
        informative: bool (D,) for each model: which dimensions count (Duan et al.: those with a KL > 0.01 nats).

    Raises:
        DataError: fewer than three models, or codes of other images.
    """
    if len(codes) < FEWEST:
        problem = f"{len(codes)} models"
        raise DataError("udr", problem, f"give {FEWEST} or more, equal but for their seeds")
    ranked = [_ranks(as_codes(one)) for one in codes]
    if len({len(one) for one in ranked}) > 1:
        raise DataError("udr", f"codes of {[len(one) for one in ranked]} images", "encode the same images")
    kept = [np.asarray(one, dtype=bool) for one in informative]
    if [one.shape for one in kept] != [one.shape[1:] for one in ranked]:
        raise DataError("udr", "informative dimensions of other codes", "give a truth value for each dimension")
    pairs, similarity = np.eye(len(ranked)), {}
    for i, first in enumerate(ranked):
        for j in range(i + 1, len(ranked)):
            found = np.abs(first.T @ ranked[j]).clip(max=1)
            similarity[i, j] = found
            pairs[i, j] = pairs[j, i] = _matching(found[kept[i]][:, kept[j]])
    others = [np.delete(row, i) for i, row in enumerate(pairs)]
    return UDR(np.median(others, 1), pairs, similarity)


def rotated_level(dimensions: Sequence[int]) -> np.ndarray:
    """Return the mean UDR (M,) of M models that encode the same latents, each rotated at random.

    It is the level of models whose seeds find the same information, but not the same axes. The latents are
    independent, N(0, 1). With d_a informative dimensions, a model's codes are the first d_a latents, rotated by a
    matrix Q_a drawn uniformly from the orthogonal matrices; so a model with fewer informative dimensions encodes a
    part of the latents of one with more. The correlations r of two models' codes are then known, Q_a Q_b' over the
    latents that both have, and their rank correlations are those of Gaussians, 6 / π · asin(r / 2). So there is no
    error of finite N. What is estimated is the mean over rotations, from seeded draws: equal arguments give equal
    bits, and models with equal d the same level. Its standard error is below 0.005.

    Args:
        dimensions: of each model, the number of its informative dimensions, d_a >= 0; M >= 3, as for :func:`udr`.

    Raises:
        DataError: fewer than three models.
    """
    if len(dimensions) < FEWEST:
        problem = f"{len(dimensions)} models"
        raise DataError("udr", problem, f"give {FEWEST} or more, equal but for their seeds")
    levels = dict(_levels(tuple(sorted(map(int, dimensions)))))
    return np.array([levels[int(size)] for size in dimensions])


@lru_cache(maxsize=1024)
def _levels(sizes: tuple[int, ...]) -> tuple[tuple[int, float], ...]:
    """Return each number of informative dimensions among ``sizes``, which are sorted, with its models' level."""
    drawn = np.random.default_rng(0)
    draws = int(np.clip(NUMBERS // max(sum(size**2 for size in sizes), 1), *DRAWS))
    rotations = []
    for size in sizes:
        q, r = np.linalg.qr(drawn.standard_normal((draws, size, size)))
        # uniform only with the signs of R's diagonal (Mezzadri 2007)
        rotations.append(q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None])
    pairs = np.zeros((draws, len(sizes), len(sizes)))
    for i, first in enumerate(rotations):
        for j in range(i + 1, len(sizes)):
            both = min(sizes[i], sizes[j])
            shared = np.abs(first[..., :both] @ rotations[j][..., :both].swapaxes(1, 2)).clip(max=1)
            pairs[:, i, j] = pairs[:, j, i] = _matching(6 / np.pi * np.arcsin(shared / 2))
    scores = [np.median(np.delete(pairs[:, i], i, axis=1), axis=1).mean() for i in range(len(sizes))]
    return tuple(
        (size, float(np.mean([score for score, other in zip(scores, sizes, strict=True) if other == size])))
        for size in dict.fromkeys(sizes)
    )


def _ranks(codes: np.ndarray) -> np.ndarray:
    """Return the ranks of each dimension (N, D), centred and of length 1; zeros for a constant dimension."""
    from scipy.stats import rankdata

    ranks = rankdata(codes, axis=0)
    ranks -= ranks.mean(0)
    length = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def _matching(similarity: np.ndarray) -> np.ndarray:
    """Return scores (...) of pairs from the similarities of their informative dimensions (..., d_a, d_b).

    They are 0 where a model has no informative dimension.
    """
    *outer, rows, columns = similarity.shape
    if not rows or not columns:
        return np.zeros(outer)

    def shares(axis: int) -> np.ndarray:
        largest, total = similarity.max(axis), similarity.sum(axis)
        return np.divide(largest**2, total, out=np.zeros_like(total), where=total > 0).sum(-1)

    return (shares(-2) + shares(-1)) / (rows + columns)


def matched(similarity: np.ndarray) -> list[int]:
    """Return for each row of a similarity matrix (D_a, D_b) the column that is paired with it, -1 for none.

    The pairing is one to one, with the largest sum of similarities.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [found.get(row, -1) for row in range(len(similarity))]
