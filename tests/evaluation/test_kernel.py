"""The kernel distance is what brute force and two other implementations say, and unbiased."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance

from fmvae.errors import ConfigError
from fmvae.evaluation import kernel
from fmvae.evaluation.kernel import kernel_distance

D = 8


def features(seed: int, num: int = 200, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, D)) + shift


def by_brute_force(a: np.ndarray, b: np.ndarray) -> float:
    """The estimate of Bińkowski et al., pair by pair."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(x * y) / len(x) + 1) ** 3

    def within(x: np.ndarray) -> float:
        return float(np.mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]))

    return within(a) + within(b) - 2 * float(np.mean([k(x, y) for x in a for y in b]))


def biased(a: np.ndarray, b: np.ndarray) -> float:
    """A wrong one that is often seen: the pairs of a point with itself are counted."""
    return sum(sign * float(np.mean((x @ y.T / D + 1) ** 3)) for x, y, sign in ((a, a, 1), (b, b, 1), (a, b, -2)))


class AsTheyAre(nn.Module):
    """Features that are given as images are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def by_torchmetrics(a: np.ndarray, b: np.ndarray) -> float:
    metric = KernelInceptionDistance(feature=AsTheyAre(), subsets=1, subset_size=len(a))
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    return metric.compute()[0].item()


def by_torch_fidelity(a: np.ndarray, b: np.ndarray) -> float:
    options = {"kid_subsets": 1, "kid_subset_size": len(a), "verbose": False}
    return kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **options)[KEY_METRIC_KID_MEAN]


# --- other implementations -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
@pytest.mark.parametrize("other", [by_torchmetrics, by_torch_fidelity])
@pytest.mark.parametrize("seed", range(3))
def test_other_implementations_give_the_same_on_the_same_features(other: Callable, seed):
    a, b = features(seed), features(seed + 10, shift=0.2)
    assert kernel_distance(a, b) == pytest.approx(other(a, b), rel=1e-6)
    assert biased(a, b) != pytest.approx(other(a, b), rel=1e-2)
    assert kernel_distance(a, b) != pytest.approx(other(a, b + 1e-4), rel=1e-6)


@pytest.mark.parametrize("sizes", [(2, 2), (30, 30), (30, 17), (17, 30)])
def test_brute_force_gives_the_same_for_unequal_numbers_too(sizes):
    a, b = features(0, sizes[0]), features(1, sizes[1], shift=0.5)
    assert kernel_distance(a, b) == pytest.approx(by_brute_force(a, b), rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 64, 199, 200])
def test_chunks_of_rows_change_nothing(chunk, monkeypatch):
    a, b = features(0), features(1, 130, shift=0.2)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "CHUNK", chunk)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-10)


def test_features_in_single_precision_are_compared_in_double():
    """The kernel's sums are millions of times the distance here."""
    a, b = (x.astype(np.float32) for x in (features(0, shift=10), features(1, shift=10.01)))
    exact = kernel_distance(a.astype(np.float64), b.astype(np.float64))
    assert kernel_distance(a, b) == exact
    assert biased(a, b) - biased(a.astype(np.float64), b.astype(np.float64)) != pytest.approx(0, abs=1e-6)


# --- properties ----------------------------------------------------------------------------------------------


def test_one_distribution_twice_is_zero_on_average_at_any_number():
    """Which neither the biased estimate nor the Fréchet distance is."""
    pairs = [(features(2 * seed, 20), features(2 * seed + 1, 20)) for seed in range(400)]
    distances = [kernel_distance(a, b) for a, b in pairs]
    standard_error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 3 * standard_error
    assert np.mean([biased(a, b) for a, b in pairs]) > 30 * standard_error
    assert min(distances) < 0 < max(distances)


def test_two_points_have_a_closed_form():
    """a at the origin, b at (1, ..., 1): kernel values 1, 8 and 1."""
    assert kernel_distance(np.zeros((5, D)), np.ones((7, D))) == pytest.approx(1 + 8 - 2, rel=1e-12)


def test_the_distance_is_symmetric_and_grows_with_the_shift():
    a = features(0)
    near, far = (kernel_distance(a, features(1, shift=shift)) for shift in (0.3, 0.6))
    assert 0 < near < far
    assert kernel_distance(features(1, shift=0.3), a) == pytest.approx(near, rel=1e-10)


@pytest.mark.parametrize(("num", "num_generated"), [(1, 9), (9, 1)])
def test_a_single_image_is_a_config_error(num, num_generated):
    with pytest.raises(ConfigError, match="num_images: 1 images cannot give a kernel distance"):
        kernel_distance(features(0, num), features(1, num_generated))
