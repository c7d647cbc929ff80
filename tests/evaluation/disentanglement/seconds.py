"""A second implementation of each score, by other formulas or libraries, slow and plain."""

from itertools import product
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import entropy, spearmanr
from sklearn.metrics import mutual_info_score, roc_auc_score


def binned(column: np.ndarray, bins: int = 20) -> np.ndarray:
    """Bins by NumPy's edges, the last one closed."""
    edges = np.linspace(column.min(), column.max(), bins + 1)
    return np.digitize(column, edges[1:-1])


def information(z: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Mutual informations (D, K), by scikit-learn."""
    return np.array([[mutual_info_score(binned(code), factor) for factor in factors.T] for code in z.T])


def mig(z: np.ndarray, factors: np.ndarray) -> float:
    gaps = []
    for row, factor in zip(information(z, factors).T, factors.T, strict=True):
        largest = np.delete(row, row.argmax()).max()
        gaps.append((row.max() - largest) / entropy(np.unique(factor, return_counts=True)[1]))
    return float(np.mean(gaps))


def modularity(z: np.ndarray, factors: np.ndarray) -> float:
    """By the distance to the template that has the largest information alone, as the paper says it."""
    found = information(z, factors)
    scores = []
    for row in found:
        template = np.where(np.arange(len(row)) == row.argmax(), row.max(), 0)
        scores.append(1 - cdist([row], [template], "sqeuclidean")[0, 0] / (row.max() ** 2 * (len(row) - 1)))
    return float(np.mean(scores))


def info_scores(z: np.ndarray, factors: np.ndarray) -> tuple[float, float]:
    """InfoM and InfoC of codes that are all active."""
    found = information(z, factors) / [entropy(np.unique(factor, return_counts=True)[1]) for factor in factors.T]

    def mean_share(rows: np.ndarray) -> float:
        even = 1 / rows.shape[1]
        return float(np.mean([(max(row) / sum(row) - even) / (1 - even) for row in rows]))

    return mean_share(found), mean_share(found.T)


def purities(importance: np.ndarray) -> tuple[float, float]:
    """DCI's disentanglement and completeness, by SciPy's entropies."""
    dimensions, factors = importance.shape
    weights = importance.sum(1) / importance.sum()
    rows = np.array([1 - float(entropy(row, base=factors)) if row.any() else 0 for row in importance])
    columns = [1 - entropy(column, base=dimensions) for column in importance.T]
    return float(np.dot(weights, rows)), float(np.mean(columns))


def thresholds(code: np.ndarray, factor: np.ndarray) -> list[tuple[float, float, int]]:
    """Fit thresholds best first by exhaustive search: (from, to, predicted value) of each interval.

    Points weigh so that all values of the factor weigh the same; a threshold is the one that lowers the Gini
    impurity most.
    """
    values = np.unique(factor)
    weight = {value: 1 / (factor == value).sum() for value in values}

    def counted(inside: np.ndarray) -> np.ndarray:
        return np.array([weight[value] * (factor[inside] == value).sum() for value in values])

    def impurity(inside: np.ndarray) -> float:
        counts = counted(inside)
        return counts.sum() - (counts**2).sum() / counts.sum()

    def best(low: float, high: float) -> tuple[float, float]:
        inside = (code > low) & (code <= high)
        places = np.unique(code[inside])
        gains = [
            (impurity(inside) - impurity(inside & (code <= cut)) - impurity(inside & (code > cut)), cut)
            for cut in (places[1:] + places[:-1]) / 2
        ]
        return max(gains, default=(0.0, low))

    leaves = {(-np.inf, np.inf): best(-np.inf, np.inf)}
    while len(leaves) < len(values):
        (low, high), (gain, cut) = max(leaves.items(), key=lambda leaf: leaf[1][0])
        if gain <= 0:
            break
        del leaves[low, high]
        leaves |= {(low, cut): best(low, cut), (cut, high): best(cut, high)}
    return [(low, high, values[counted((code > low) & (code <= high)).argmax()]) for low, high in leaves]


def sap(z: np.ndarray, factors: np.ndarray, test_z: np.ndarray, test_factors: np.ndarray) -> float:
    accuracy = np.zeros((z.shape[1], factors.shape[1]))
    for d, k in product(range(z.shape[1]), range(factors.shape[1])):
        predicted = np.full(len(test_z), -1)
        for low, high, value in thresholds(z[:, d], factors[:, k]):
            predicted[(test_z[:, d] > low) & (test_z[:, d] <= high)] = value
        truth = test_factors[:, k]
        accuracy[d, k] = np.mean([(predicted == truth)[truth == value].mean() for value in np.unique(truth)])
    ordered = np.sort(accuracy, 0)
    return float((ordered[-1] - ordered[-2]).mean())


def explicitness(z: np.ndarray, factors: np.ndarray, test_z: np.ndarray, test_factors: np.ndarray) -> float:
    """A softmax regression by Newton's method to a zero gradient, and scikit-learn's areas."""
    mean, scale = z.mean(0), z.std(0)
    x, test_x = (np.c_[(codes - mean) / scale, np.ones(len(codes))] for codes in (z, test_z))
    areas = []
    for factor, truth in zip(factors.T, test_factors.T, strict=True):
        one_hot = np.eye(factor.max() + 1)[factor]
        width, num = x.shape[1], one_hot.shape[1]
        weights, penalty = np.zeros((width, num)), np.diag([1.0] * (width - 1) + [1e-9])
        for _ in range(30):
            shares = np.exp(x @ weights - (x @ weights).max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            gradient = x.T @ (shares - one_hot) + penalty @ weights
            curvature = np.einsum("nc,cd->ncd", shares, np.eye(num)) - np.einsum("nc,nd->ncd", shares, shares)
            hessian = np.einsum("ni,ncd,nj->icjd", x, curvature, x).reshape(width * num, -1)
            hessian += np.kron(penalty, np.eye(num))
            weights -= np.linalg.solve(hessian + 1e-9 * np.eye(len(hessian)), gradient.ravel()).reshape(width, num)
        predicted = test_x @ weights
        predicted = np.exp(predicted - predicted.max(1, keepdims=True))
        predicted /= predicted.sum(1, keepdims=True)
        areas.append(np.mean([roc_auc_score(truth == value, predicted[:, value]) for value in np.unique(truth)]))
    return float(np.mean(areas))


def boosted(z: np.ndarray, factor: np.ndarray, *, rounds: int, rate: float, depth: int, seed: int) -> np.ndarray:
    """Multinomial gradient boosting (Friedman 2001, algorithm 6): each dimension's share of the gain, (D,).

    Of equally good splits, one at random is taken.
    """
    drawn = np.random.default_rng(seed)
    one_hot = np.eye(factor.max() + 1)[factor]
    num = one_hot.shape[1]
    scores = np.tile(np.log(one_hot.mean(0)), (len(z), 1))
    importance = np.zeros(z.shape[1])

    def grow(inside: np.ndarray, left: int, residual: np.ndarray, gains: np.ndarray, update: np.ndarray) -> None:
        candidates = []
        for d in range(z.shape[1]) if left and len(inside) > 1 else ():
            order = inside[z[inside, d].argsort(kind="stable")]
            sums = residual[order].cumsum()
            counts = np.arange(1, len(order))
            first, second = sums[:-1] / counts, (sums[-1] - sums[:-1]) / (len(order) - counts)
            gain = counts * (len(order) - counts) / len(order) * (first - second) ** 2
            gain[z[order[1:], d] == z[order[:-1], d]] = -1
            if len(gain) and gain.max() > 1e-12:
                candidates.append((gain.max(), d, order, int(gain.argmax()) + 1))
        if not candidates:
            part = residual[inside]
            below = (np.abs(part) * (1 - np.abs(part))).sum()
            update[inside] = (num - 1) / num * part.sum() / below if below > 1e-150 else 0
            return
        best = max(found[0] for found in candidates)
        ties = [found for found in candidates if found[0] > best * (1 - 1e-9)]
        gain, d, order, cut = ties[drawn.integers(len(ties))]
        gains[d] += gain
        for part in (order[:cut], order[cut:]):
            grow(part, left - 1, residual, gains, update)

    for _ in range(rounds):
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        for value in range(num):
            update = np.zeros(len(z))
            grow(np.arange(len(z)), depth, one_hot[:, value] - shares[:, value], importance, update)
            scores[:, value] += rate * update
    return importance / importance.sum()


def pair_score(a: np.ndarray, b: np.ndarray) -> float:
    """UDR's score of two models whose dimensions all count, by SciPy's correlations."""
    correlation: Any = spearmanr
    found = np.array([[abs(correlation(x, y)[0]) for y in b.T] for x in a.T])
    by_column = sum(max(column) ** 2 / sum(column) for column in found.T)
    by_row = sum(max(row) ** 2 / sum(row) for row in found)
    return float((by_column + by_row) / (a.shape[1] + b.shape[1]))
