"""The Fréchet distance is what its closed forms, SciPy and two other implementations say."""

import logging
import re
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from fmvae.errors import ConfigError
from fmvae.evaluation import FeatureStatistics, calculate_fid, frechet_distance
from fmvae.evaluation.frechet import MIN_RELIABLE, frechet_standard_error

D = 12


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float), 10_000)


def random_covariance(seed: int, rank: int = D) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(D, rank))
    return factor @ factor.T / D


def features(seed: int, num: int = 400, dim: int = D) -> np.ndarray:
    """Correlated features off the origin, as those of images are."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(num, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim), 0)


def by_sqrtm(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """The formula as Heusel et al. wrote it."""
    return by_root_of(a, b, a.covariance @ b.covariance)


def by_one_matrix(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """A wrong one that is often seen: the root of the symmetrised product."""
    product = a.covariance @ b.covariance
    return by_root_of(a, b, (product + product.T) / 2)


def by_root_of(a: FeatureStatistics, b: FeatureStatistics, product: np.ndarray) -> float:
    root = np.real(np.asarray(scipy.linalg.sqrtm(product)))
    return float(np.sum((a.mean - b.mean) ** 2) + np.trace(a.covariance + b.covariance - 2 * root))


# --- closed forms --------------------------------------------------------------------------------------------


def test_the_distance_to_oneself_is_zero():
    x = features(0)
    assert abs(calculate_fid(x, x)) < 1e-9 * np.trace(np.cov(x.T))
    assert abs(calculate_fid(x, x[np.random.default_rng(0).permutation(len(x))])) < 1e-9 * np.trace(np.cov(x.T))
    assert calculate_fid(x, features(1)) > 1


def test_a_shift_of_the_mean_is_its_squared_length():
    x, shift = features(0), np.random.default_rng(1).normal(size=D)
    assert calculate_fid(x, x + shift) == pytest.approx(shift @ shift, rel=1e-9)


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    a, b, m, n = rng.uniform(0.1, 4, (4, D))
    expected = np.sum((m - n) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(gaussian(m, np.diag(a)), gaussian(n, np.diag(b))) == pytest.approx(expected, rel=1e-12)


def test_scaled_features_have_a_closed_form():
    covariance, mean = random_covariance(0), np.arange(D)
    distance = frechet_distance(gaussian(mean, covariance), gaussian(3 * mean, 9 * covariance))
    assert distance == pytest.approx(4 * mean @ mean + 4 * np.trace(covariance), rel=1e-10)


def test_rotating_both_changes_nothing_and_rotating_one_does():
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(D, D)))
    a, b = features(0), features(1)
    assert calculate_fid(a @ q, b @ q) == pytest.approx(calculate_fid(a, b), rel=1e-9)
    assert calculate_fid(a @ q, b) != pytest.approx(calculate_fid(a, b), rel=1e-3)


# --- other implementations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_non_commuting_covariances_give_what_scipys_matrix_root_gives(seed):
    a = gaussian(np.zeros(D), random_covariance(seed))
    b = gaussian(np.ones(D), random_covariance(seed + 100))
    assert not np.allclose(a.covariance @ b.covariance, b.covariance @ a.covariance)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)
    assert by_one_matrix(a, b) != pytest.approx(by_sqrtm(a, b), rel=1e-5)


class AsTheyAre(nn.Module):
    """Features that are given as images are."""

    num_features = D

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def by_torchmetrics(a: np.ndarray, b: np.ndarray) -> float:
    metric = FrechetInceptionDistance(feature=AsTheyAre()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    return metric.compute().item()


def by_torch_fidelity(a: np.ndarray, b: np.ndarray) -> float:
    of_a, of_b = (fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b))
    return fid_statistics_to_metric(of_a, of_b, verbose=False)[KEY_METRIC_FID]


@pytest.mark.parametrize("other", [by_torchmetrics, by_torch_fidelity])
@pytest.mark.parametrize("seed", range(3))
def test_other_implementations_give_the_same_on_the_same_features(other: Callable, seed):
    a, b = features(seed), features(seed + 10)
    assert calculate_fid(a, b) == pytest.approx(other(a, b), rel=1e-6)
    assert calculate_fid(a, b) != pytest.approx(other(a, b + 0.01), rel=1e-6)


# --- statistics ----------------------------------------------------------------------------------------------


def test_the_statistics_are_numpys_with_an_unbiased_covariance():
    x = features(3)
    statistics = FeatureStatistics.of(x)
    assert statistics.num == len(x)
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.T, ddof=1), rtol=1e-10)
    assert not np.allclose(statistics.covariance, np.cov(x.T, ddof=0), rtol=1e-4)


def test_features_in_single_precision_are_averaged_in_double():
    """A large mean over a small spread is where float32 sums fail."""
    x = (1000 + np.random.default_rng(0).normal(size=(6000, 3)) * 0.01).astype(np.float32)
    statistics = FeatureStatistics.of(x)
    assert statistics.covariance.dtype == np.float64
    np.testing.assert_allclose(statistics.covariance, np.cov(x.astype(np.float64).T), rtol=1e-9)
    assert not np.allclose(np.diag(statistics.covariance), x.var(axis=0, dtype=np.float32), rtol=1e-6)


# --- difficult covariances -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, D // 2])
def test_rank_deficient_covariances_give_a_finite_distance(rank):
    a, b = gaussian(np.zeros(D), random_covariance(0, rank)), gaussian(np.zeros(D), random_covariance(1))
    for x, y in ((a, b), (b, a), (a, a)):
        assert np.isfinite(frechet_distance(x, y))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_flat_data_in_a_wide_space_are_as_far_apart_as_on_their_plane():
    """18 of 20 eigenvalues are rounding errors, some below zero, which a root would turn into NaN."""
    plane, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 2)))
    a, b = features(0, dim=2), features(1, dim=2)
    wide = FeatureStatistics.of(a @ plane.T)
    assert np.linalg.eigvalsh(wide.covariance).min() < 0
    assert calculate_fid(a @ plane.T, b @ plane.T) == pytest.approx(calculate_fid(a, b), rel=1e-6)
    error = frechet_standard_error(FeatureStatistics.of(a), b)
    assert frechet_standard_error(wide, b @ plane.T) == pytest.approx(error, rel=1e-6)


def test_a_constant_feature_adds_nothing_but_its_shift():
    a, b = features(0), features(1)
    wider_a = np.column_stack([a, np.full(len(a), 2.0)])
    wider_b = np.column_stack([b, np.full(len(b), 5.0)])
    assert calculate_fid(wider_a, wider_b) == pytest.approx(calculate_fid(a, b) + 9, rel=1e-9)


def test_disjoint_supports_give_the_sum_of_the_traces():
    a, b = np.diag([1.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 4.0])
    assert frechet_distance(gaussian(np.zeros(4), a), gaussian(np.zeros(4), b)) == pytest.approx(10, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_is_symmetric_and_not_negative(seed):
    a, b = features(seed), features(seed + 20)
    assert calculate_fid(a, b) == pytest.approx(calculate_fid(b, a), rel=1e-10)
    assert calculate_fid(a, b) > 0


# --- standard error ------------------------------------------------------------------------------------------


def generator_of_features(dim: int = 16):
    """Real statistics, and samples of a fixed distribution beside the real one."""
    rng = np.random.default_rng(0)
    real_map = rng.normal(size=(dim, dim)) / np.sqrt(dim)
    own_map, shift = real_map + rng.normal(size=(dim, dim)) / (2 * np.sqrt(dim)), rng.normal(size=dim) / 3
    real = FeatureStatistics.of(rng.normal(size=(20_000, dim)) @ real_map)
    return real, lambda num: rng.normal(size=(num, dim)) @ own_map + shift


@pytest.mark.parametrize("num", [500, 2000])
def test_the_standard_error_is_the_spread_over_independent_samples(num):
    real, sample = generator_of_features()
    distances = [frechet_distance(real, FeatureStatistics.of(sample(num), warn=False)) for _ in range(400)]
    errors = [frechet_standard_error(real, sample(num)) for _ in range(20)]
    assert np.mean(errors) == pytest.approx(np.std(distances, ddof=1), rel=0.12)
    assert np.std(errors) < 0.15 * np.mean(errors)  # one sample is enough to say it


def test_the_standard_error_is_made_of_the_derivatives_by_each_images_weight():
    """By central differences of the distance as Heusel et al. wrote it."""
    x, step = features(1, 200, dim=4), 1e-5
    real, num = FeatureStatistics.of(features(0, dim=4)), 200

    def distance(image: int, change: float) -> float:
        weights = np.full(num, (1 - change) / num)
        weights[image] += change
        covariance = np.cov(x.T, aweights=weights, ddof=0) * num / (num - 1)
        return by_sqrtm(real, gaussian(weights @ x, covariance))

    derivatives = np.array([distance(i, step) - distance(i, -step) for i in range(num)]) / (2 * step)
    error = frechet_standard_error(real, x)
    assert error == pytest.approx(np.sqrt(np.sum(derivatives**2)) / num, rel=2 / num)
    shift_only = np.std(2 * x @ (x.mean(0) - real.mean)) / np.sqrt(num)
    assert error != pytest.approx(shift_only, rel=0.1)


def test_a_perfect_model_has_no_smaller_standard_error_than_its_spread():
    """The derivatives vanish there, and what is left is on the safe side."""
    rng = np.random.default_rng(0)
    real = FeatureStatistics.of(rng.normal(size=(20_000, 16)))
    samples = rng.normal(size=(200, 320, 16))
    spread = np.std([frechet_distance(real, FeatureStatistics.of(x, warn=False)) for x in samples])
    assert 1 < np.mean([frechet_standard_error(real, x) for x in samples[:20]]) / spread < 2


def test_real_statistics_are_factored_once_for_many_sets(monkeypatch):
    real, sample = generator_of_features(4)
    calls, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: calls.append(matrix) or eigh(matrix))
    for _ in range(3):
        frechet_distance(real, FeatureStatistics.of(sample(100), warn=False))
    assert sum(matrix is real.covariance for matrix in calls) == 1
    assert len(calls) == 4


# --- too few images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [2, D - 1, D])
def test_no_more_images_than_dimensions_is_a_config_error(num):
    with pytest.raises(ConfigError, match=f"{num} images cannot give a covariance of {D}-dimensional features"):
        calculate_fid(features(0), features(1, num))
    FeatureStatistics.of(features(1, D + 1))


@pytest.mark.parametrize(("num", "warns"), [(MIN_RELIABLE - 1, True), (MIN_RELIABLE, False)])
def test_few_images_give_a_warning_with_their_number(num, warns, caplog):
    with caplog.at_level(logging.WARNING):
        FeatureStatistics.of(features(0, num, dim=2))
    assert bool(re.search(f"FID from {num} images is biased", caplog.text)) == warns


def test_the_warning_can_be_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        real = FeatureStatistics.of(features(0), warn=False)
        frechet_standard_error(real, features(1))
    assert not caplog.text
    with pytest.raises(ConfigError, match="12 images cannot give a covariance"):
        frechet_standard_error(real, features(1, D))


def test_the_bias_that_the_warning_speaks_of():
    """Two samples of one distribution are apart, and further the smaller they are."""
    rng = np.random.default_rng(0)
    distances = [calculate_fid(*rng.normal(size=(2, num, D))) for num in (50, 500, 5000)]
    assert distances[0] > distances[1] > distances[2] > 0
