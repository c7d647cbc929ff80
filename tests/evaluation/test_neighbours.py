"""Precision, recall, density and coverage are what brute force, torch-fidelity and closed forms say."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from fmvae.errors import ConfigError
from fmvae.evaluation import neighbours
from fmvae.evaluation.neighbours import neighbour_measures

NAMES = ("precision", "recall", "density", "coverage")


def features(seed: int, num: int = 300, dim: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, dim)) + shift


def by_brute_force(real: np.ndarray, generated: np.ndarray, k: int) -> dict[str, float]:
    """The definitions one by one, from differences and full sorts in float64."""

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    def radii(points: np.ndarray) -> np.ndarray:
        return np.sort(distances(points, points), axis=1)[:, k]

    apart = distances(real, generated)
    in_real, in_generated = apart <= radii(real)[:, None], apart <= radii(generated)[None]
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_generated.any(axis=1).mean(),
        "density": in_real.sum(axis=0).mean() / k,
        "coverage": in_real.any(axis=1).mean(),
    }


# --- other implementations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sizes", [(300, 300), (300, 170), (170, 300)])
def test_brute_force_gives_the_same(k, sizes):
    real, generated = features(0, sizes[0]), features(1, sizes[1], shift=0.4)
    measures, expected = neighbour_measures(real, generated, k), by_brute_force(real, generated, k)
    assert measures == pytest.approx(expected, rel=1e-12)
    assert tuple(measures) == NAMES
    assert measures != pytest.approx(by_brute_force(real, generated, k + 1), rel=1e-3)


@pytest.mark.parametrize("k", [3, 5])
def test_torch_fidelity_gives_the_same_precision_and_recall(k):
    real, generated = features(0), features(1, shift=0.4)
    other = prc_features_to_metric(
        torch.from_numpy(generated), torch.from_numpy(real), prc_neighborhood=k, save_cpu_ram=False, verbose=False
    )
    measures = neighbour_measures(real, generated, k)
    assert measures["precision"] == pytest.approx(other["precision"], rel=1e-6)
    assert measures["recall"] == pytest.approx(other["recall"], rel=1e-6)
    assert measures["precision"] != pytest.approx(measures["recall"], rel=1e-2)  # a swap would show


@pytest.mark.parametrize("chunk", [1, 64, 299])
def test_chunks_of_rows_change_nothing(chunk, monkeypatch):
    real, generated = features(0), features(1, 170, shift=0.4)
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    assert neighbour_measures(real, generated) == pytest.approx(by_brute_force(real, generated, 5), rel=1e-12)


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_an_offset_common_to_all_features_changes_nothing(offset):
    """Without the centring, single precision would see neighbours 1 apart at 1e3 from the origin as equal."""
    real, generated = features(0), features(1, shift=0.4)
    expected = by_brute_force(real, generated, 5)
    assert neighbour_measures(real + offset, generated + offset) == pytest.approx(expected, rel=1e-12)
    x, y = (torch.from_numpy(a + offset).float() for a in (real, generated))
    uncentred = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
    exact = np.linalg.norm(real[:, None] - generated[None], axis=2) ** 2
    assert not np.allclose(uncentred.numpy(), exact, rtol=1e-2)


# --- closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5])
def test_the_real_images_themselves_are_precise_and_reach_everything(k):
    real = features(0)
    measures = neighbour_measures(real, real[::-1].copy(), k)
    assert [measures[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    # each ball holds its centre, k - 1 others, and one on its edge, where rounding decides
    assert 1 <= measures["density"] <= (k + 1) / k


def test_sets_far_apart_share_nothing():
    assert neighbour_measures(features(0), features(1, shift=100)) == dict.fromkeys(NAMES, 0)


def test_a_model_of_half_the_data_is_precise_and_covers_half():
    real = np.concatenate([features(0, 200), features(1, 200, shift=100)])
    measures = neighbour_measures(real, real[:200] + 1e-3)
    assert measures["precision"] == 1
    assert measures["recall"] == measures["coverage"] == 0.5


def test_a_model_that_adds_rubbish_covers_all_and_is_half_precise():
    real = features(0, 200)
    measures = neighbour_measures(real, np.concatenate([real + 1e-3, features(1, 200, shift=100)]))
    assert measures["recall"] == measures["coverage"] == 1
    assert measures["precision"] == 0.5


def test_density_exceeds_one_where_the_real_balls_crowd():
    real = features(0)
    measures = neighbour_measures(real, 0.01 * features(1))
    assert measures["density"] > 2
    assert measures["precision"] == 1
    assert measures["recall"] == 0  # its own balls are tiny: nothing of the variety is reached
    assert neighbour_measures(real, 2 * features(1))["density"] < 0.5


@pytest.mark.parametrize(("num", "num_generated"), [(400, 400), (400, 200)])
def test_one_distribution_twice_has_the_expectation_of_naeem_et_al(num, num_generated):
    """A real point is missed if its 5 nearest of all others are real, whatever the distribution; density is 1."""
    sets = [(features(2 * seed, num), features(2 * seed + 1, num_generated)) for seed in range(20)]

    def mean(name: str, k: int) -> float:
        return float(np.mean([neighbour_measures(*pair, k)[name] for pair in sets]))

    missed = np.prod([(num - i) / (num + num_generated - i) for i in range(1, 6)])
    assert mean("coverage", 5) == pytest.approx(1 - missed, abs=0.01)
    assert mean("density", 5) == pytest.approx(1, abs=0.03)
    assert mean("coverage", 3) < 1 - missed - 0.05


def test_balls_are_closed_so_that_equal_images_find_each_other():
    same = np.ones((10, 3))
    assert neighbour_measures(same, same) == {"precision": 1, "recall": 1, "density": 2, "coverage": 1}
    assert neighbour_measures(same, same + 1) == dict.fromkeys(NAMES, 0)


def test_exchanging_the_sets_exchanges_precision_and_recall():
    a, b = features(0), features(1, 170, shift=0.4)
    there, back = neighbour_measures(a, b), neighbour_measures(b, a)
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])
    assert there["precision"] != there["recall"]


# --- too few images ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "num_generated"), [(5, 300), (300, 5), (1, 300)])
def test_too_few_images_for_the_neighbours_are_a_config_error(num, num_generated):
    few = min(num, num_generated)
    with pytest.raises(ConfigError, match=f"num_images: {few} images cannot have 5 neighbours each"):
        neighbour_measures(features(0, num), features(1, num_generated))
    neighbour_measures(features(0, 6), features(1, 6))
