"""The scores that fit a predictor on some points and test it on others: SAP, DCI, explicitness. All in [0, 1]."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fmvae.evaluation.disentanglement.points import Numbers, checked, checked_test

# of each factor's boosted trees; a fifth of the usual number of trees, at five times the usual learning rate
ROUNDS, LEARNING_RATE, DEPTH = 20, 0.5, 3


class DCI(NamedTuple):
    """The three scores of Eastwood & Williams 2018, and the importance of each dimension for each factor (D, K).

    An importance column adds up to 1; it is 0 for a factor with one value.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def sap(codes: Numbers, factors: Numbers, test: tuple[Numbers, Numbers] | None = None) -> float:
    """Return the separated attribute predictability (Kumar et al. 2018, section 3), in [0, 1).

    The mean over factors of the difference between the two dimensions that predict the factor best. How well one
    dimension predicts: thresholds on it, one fewer than the factor has values, are fitted by a decision tree with
    balanced classes; counted is the share of test points whose value is predicted, as a mean over values. So a
    perfect code scores the mean of 1 − 1 / (number of values), and chance is near 0. Deterministic.

    Locatello et al. 2019 fit a linear SVM, one value against the rest, which cannot tell the middle values of an
    ordered factor, even of a code that is equal to it.

    Args:
        codes: (N, D), D >= 2.
        factors: whole numbers (N, K), all taken as categories. Those with one value are left out.
        test: codes (M, D) and factors (M, K) to test on; None tests on the points themselves.

    Raises:
        DataError: as :func:`~fmvae.evaluation.disentanglement.points.checked`.
    """
    points = checked(codes, factors)
    test_codes, test_factors = checked_test(points, test)
    gaps = []
    for index in points.varied:
        truth = test_factors[:, index]
        accuracies = [
            _accuracy(points.codes[:, [d]], points.factors[:, index], test_codes[:, [d]], truth)
            for d in range(points.codes.shape[1])
        ]
        second, first = sorted(accuracies)[-2:]
        gaps.append(first - second)
    return float(np.mean(gaps))


def _accuracy(code: np.ndarray, factor: np.ndarray, test_code: np.ndarray, truth: np.ndarray) -> float:
    """Return the balanced accuracy of thresholds on one dimension (N, 1)."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=int(factor.max()) + 1, class_weight="balanced", random_state=0)
    right = tree.fit(code, factor).predict(test_code) == truth
    return float(np.mean([right[truth == value].mean() for value in np.unique(truth)]))


def dci(
    codes: Numbers,
    factors: Numbers,
    test: tuple[Numbers, Numbers] | None = None,
    *,
    seed: int = 0,
    threads: int = 1,
) -> DCI:
    """Return disentanglement, completeness and informativeness (Eastwood & Williams 2018).

    Boosted trees predict each factor from the codes, as Locatello et al. 2019. Their impurity importances, a
    matrix R (D, K), give

    - disentanglement Σ_d w_d (1 − H_K(R_d / Σ R_d)): one factor for each dimension, weights w in proportion to the
      dimension's sum. H_K is the entropy to the base K.
    - completeness: the mean over factors of 1 − H_D(R_k): one dimension for each factor.
    - informativeness: the share of test points whose value is predicted, a mean over factors.

    Chance is near 0 for the first two, and the share of the most frequent value for informativeness.

    Args:
        codes, factors, test: as for :func:`sap`.
        seed: of the trees, which matters only where two splits are equally good.
        threads: factors to fit at once; the numbers do not depend on it.

    Raises:
        DataError: as :func:`~fmvae.evaluation.disentanglement.points.checked`.
    """
    points = checked(codes, factors)
    test_codes, test_factors = checked_test(points, test)

    def fit(index: int) -> tuple[np.ndarray, float]:
        from sklearn.ensemble import GradientBoostingClassifier

        trees = GradientBoostingClassifier(
            n_estimators=ROUNDS, learning_rate=LEARNING_RATE, max_depth=DEPTH, random_state=seed
        )
        trees.fit(points.codes, points.factors[:, index])
        weights = np.asarray(trees.feature_importances_)
        return weights, float((trees.predict(test_codes) == test_factors[:, index]).mean())

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        fits = list(pool.map(fit, points.varied))
    importance = np.zeros((points.codes.shape[1], points.factors.shape[1]))
    importance[:, points.varied] = np.stack([weights for weights, _ in fits], 1)
    disentanglement, completeness = of_importance(importance[:, points.varied])
    return DCI(disentanglement, completeness, float(np.mean([share for _, share in fits])), importance)


def of_importance(importance: np.ndarray) -> tuple[float, float]:
    """Return disentanglement and completeness of an importance matrix (D, K) >= 0, D and K >= 2.

    A dimension or a factor without any importance counts as spread evenly.
    """
    totals = importance.sum(1)
    if not totals.sum():
        return 0.0, 0.0
    return float(_purity(importance) @ totals / totals.sum()), float(_purity(importance.T).mean())


def _purity(rows: np.ndarray) -> np.ndarray:
    """Return 1 minus each row's entropy, to the base of the row's length; 0 for a row of zeros."""
    num, total = rows.shape[1], rows.sum(1, keepdims=True)
    shares = np.divide(rows, total, out=np.full(rows.shape, 1 / num), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return (1 + (shares * logs).sum(1) / np.log(num)).clip(0, 1)


def explicitness(codes: Numbers, factors: Numbers, test: tuple[Numbers, Numbers] | None = None) -> float:
    """Return the explicitness (Ridgeway & Mozer 2018, section 3): whether factors can be read off linearly.

    A multinomial logistic regression predicts each factor from all standardised codes. The score is the area under
    the ROC curve of each value's probability on the test points, a mean over values, then over factors. It is not
    scaled: chance is 0.5, the best 1. Values that the test points lack are left out.

    Args and errors: as for :func:`sap`.
    """
    from sklearn.linear_model import LogisticRegression

    points = checked(codes, factors)
    test_codes, test_factors = checked_test(points, test)
    mean, scale = points.codes.mean(0), points.codes.std(0)
    scale[scale == 0] = 1
    areas = []
    for index in points.varied:
        model = LogisticRegression(max_iter=1000).fit((points.codes - mean) / scale, points.factors[:, index])
        shares, truth = model.predict_proba((test_codes - mean) / scale), test_factors[:, index]
        values = [value for value in np.unique(truth) if value >= 0 and (truth != value).any()]
        areas.append(np.mean([area(shares[:, value], truth == value) for value in values]) if values else 0.5)
    return float(np.mean(areas))


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative; ties count half."""
    from scipy.stats import rankdata

    num = int(positive.sum())
    above = rankdata(scores)[positive].sum() - num * (num + 1) / 2
    return float(above / (num * (len(scores) - num)))
