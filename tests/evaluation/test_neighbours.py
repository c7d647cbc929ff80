"""Precision, recall, density and coverage are what brute force, torch-fidelity and closed forms say."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch_fidelity.metric_prc import prc_features_to_metric

from fmvae.errors import ConfigError
from fmvae.evaluation import neighbours
from fmvae.evaluation.neighbours import copying_measures, nearest_distances, neighbour_measures

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


# --- copies --------------------------------------------------------------------------------------------------


def nearest(points: np.ndarray, among: np.ndarray, k: int = 1) -> np.ndarray:
    """The distance of each point to its k-th nearest one, by SciPy."""
    ranks: Any = [k]
    return KDTree(among).query(points, ranks)[0][:, 0]


@pytest.mark.parametrize("sizes", [(300, 300), (300, 170), (1, 300), (300, 1)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_distances_are_those_of_brute_force_and_of_another_library(sizes, offset, monkeypatch):
    points, among = features(0, sizes[0]) + offset, features(1, sizes[1], shift=0.4) + offset
    by_differences = np.linalg.norm(points[:, None] - among[None], axis=2).min(axis=1)
    for chunk in (neighbours.CHUNK, 7):
        monkeypatch.setattr(neighbours, "CHUNK", chunk)
        found = nearest_distances(points, among)
        np.testing.assert_allclose(found, by_differences, rtol=1e-12)
        np.testing.assert_allclose(found, nearest(points, among), rtol=1e-12)
    assert sizes[1] == 1 or not np.allclose(found, np.sort(among[:, 0])[0])


@pytest.mark.parametrize("chunk", [1, 64, 1024])
def test_a_point_is_not_its_own_neighbour_and_an_equal_one_is(chunk, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    points = features(0)
    found = nearest_distances(points, points, others=True)
    np.testing.assert_allclose(found, nearest(points, points, k=2), rtol=1e-12)
    assert found.min() > 0
    assert (nearest_distances(points, points) == 0).all()  # negative control
    twice = np.concatenate([points, points[:3]])
    assert (nearest_distances(twice, twice, others=True) == 0).sum() == 6


def copying_by_another_library(test: np.ndarray, train: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    """The definitions, by SciPy and the median of sorted values."""

    def median(values: np.ndarray) -> float:
        values, half = np.sort(values), len(values) // 2
        return float(values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2)

    def share(to_train: np.ndarray, to_test: np.ndarray) -> float:
        return float(
            np.mean([1.0 if a < b else 0.5 if a == b else 0.0 for a, b in zip(to_train, to_test, strict=True)])
        )

    num = min(len(test), len(train))
    first, few = train[:num], test[:num]
    block = {
        "nearest_train": median(nearest(generated, train)),
        "nearest_test": median(nearest(generated, test)),
        "real_nearest_train": median(nearest(test, train)),
        "real_nearest_test": median(nearest(test, test, k=2)),
        "nearer_train": share(nearest(generated, first), nearest(generated, few)),
        "real_nearer_train": share(nearest(few, first), nearest(few, few, k=2)),
    }
    ratios = [block[f"{whose}nearest_train"] / block[f"{whose}nearest_test"] for whose in ("", "real_")]
    return {**block, "nearest_ratio": ratios[0] / ratios[1]}


@pytest.mark.parametrize("sizes", [(300, 300, 300), (300, 500, 200), (300, 170, 201)])
def test_copying_measures_are_their_definition(sizes):
    """With as many, more, and fewer training images than test images."""
    test, train, generated = (features(seed, num) for seed, num in enumerate(sizes))
    found = copying_measures(test, train, generated)
    assert found == pytest.approx(copying_by_another_library(test, train, generated), rel=1e-12)
    swapped = copying_measures(train, test, generated)
    assert found["nearer_train"] != swapped["nearer_train"]
    if len(train) != len(test):
        assert found["nearer_train"] + swapped["nearer_train"] == pytest.approx(1, abs=1e-12)
        all_of_them = (nearest(generated, train) < nearest(generated, test)).mean()
        assert found["nearer_train"] != all_of_them  # which more training images would raise


def test_ties_count_half_and_nothing_is_divided_by_zero():
    points = features(0, 20)
    found = copying_measures(points, points, points)
    assert found["nearer_train"] == 0.5
    assert found["nearest_train"] == found["nearest_test"] == found["real_nearest_train"] == 0
    assert found["real_nearer_train"] == 1  # each test image is among the training images
    assert found["nearest_ratio"] == 1
    assert found["num_twins"] == 20
    same = np.ones((10, 3))
    assert copying_measures(same, same, same)["real_nearer_train"] == 0.5


def test_exact_twins_hide_no_copies_and_make_none():
    """Of the test images, 40 % or 60 % are training images, too."""
    test, train, generated = (features(seed, 300) for seed in range(3))
    usual = copying_measures(test, train, generated)
    assert "num_twins" not in usual
    for twins in (120, 180):
        known = test.copy()
        known[:twins] = train[:twins]
        found = copying_measures(known, train, generated)
        assert found["num_twins"] == twins
        rest = known[twins:]
        real = np.median(nearest(rest, train)) / np.median(nearest(known, known, k=2)[twins:])
        expected = np.median(nearest(generated, train)) / np.median(nearest(generated, known)) / real
        assert found["nearest_ratio"] == pytest.approx(expected, rel=1e-12)
        assert found["nearest_ratio"] == pytest.approx(1, abs=0.15)
        # control: over all test images it would be far from 1, or undefined
        naive = found["real_nearest_train"] / found["real_nearest_test"]
        assert naive < 0.9
        copies = copying_measures(known, train, train)  # of which a part equals test images, too
        assert copies["nearest_ratio"] == 0
        assert copies["nearest_train"] == 0


def over_seeds(share: float, tag: str, seeds: int = 16, num: int = 400) -> tuple[float, float]:
    """Mean of a number, and its standard error, where this share of the generated images is copied."""
    values = []
    for seed in range(seeds):
        test, train, generated = (features(3 * seed + part, num) for part in range(3))
        copies = int(share * num)
        generated[:copies] = train[:copies]
        values.append(copying_measures(test, train, generated)[tag])
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(seeds))


def test_copies_are_noticed_and_independent_draws_are_not():
    for tag, expected in (("nearest_ratio", 1.0), ("nearer_train", 0.5), ("real_nearer_train", 0.5)):
        mean, error = over_seeds(0.0, tag)
        print(f"{tag} without copies: {mean:.4f} +- {error:.4f}")
        assert abs(mean - expected) < 4 * error
    mean, error = over_seeds(0.1, "nearer_train")  # one in ten
    print(f"nearer_train, 10 % copies: {mean:.4f} +- {error:.4f}")
    assert mean == pytest.approx(0.55, abs=4 * error)
    assert mean > 0.5 + 4 * error
    assert over_seeds(0.55, "nearest_ratio", 2)[0] == 0
    assert over_seeds(1.0, "nearer_train", 2)[0] == 1
    assert over_seeds(1.0, "nearest_train", 2)[0] == 0
