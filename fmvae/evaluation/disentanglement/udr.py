"""Unsupervised disentanglement ranking: how well latents of models with other seeds match. Needs no factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fmvae.errors import DataError
from fmvae.evaluation.disentanglement.points import Numbers, as_codes

FEWEST = 3  # models: two have one pair, which says nothing of either


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
    none, so equal models with d dimensions have about 1 / (1 + 0.8 (d − 1) / √N), not 1.

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


def _ranks(codes: np.ndarray) -> np.ndarray:
    """Return the ranks of each dimension (N, D), centred and of length 1; zeros for a constant dimension."""
    from scipy.stats import rankdata

    ranks = rankdata(codes, axis=0)
    ranks -= ranks.mean(0)
    length = np.linalg.norm(ranks, axis=0)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def _matching(similarity: np.ndarray) -> float:
    """Return the score of a pair from the similarities of its informative dimensions (d_a, d_b); 0 without any."""
    if not similarity.size:
        return 0.0

    def shares(axis: int) -> float:
        largest, total = similarity.max(axis), similarity.sum(axis)
        return np.divide(largest**2, total, out=np.zeros_like(total), where=total > 0).sum()

    return float((shares(0) + shares(1)) / sum(similarity.shape))


def matched(similarity: np.ndarray) -> list[int]:
    """Return for each row of a similarity matrix (D_a, D_b) the column that is paired with it, -1 for none.

    The pairing is one to one, with the largest sum of similarities.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [found.get(row, -1) for row in range(len(similarity))]
