"""UDR: copies match, other models do not, and it equals SciPy's correlations."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import ortho_group

from fmvae.errors import DataError
from fmvae.evaluation.disentanglement import matched, rotated_level, udr
from tests.evaluation.disentanglement import seconds
from tests.evaluation.disentanglement.codes import noise, rotated

NUM, WIDTH = 2000, 6
ALL = [np.ones(WIDTH, bool)] * 3


def sources() -> np.ndarray:
    return noise(NUM, WIDTH, seed=11)


def copies() -> list[np.ndarray]:
    """The same codes, in other orders, with other signs, and stretched."""
    z = sources()
    return [z, -z[:, ::-1], np.sinh(z[:, [2, 0, 1, 5, 4, 3]]) * [1, -1, 1, -1, 1, 2]]


def untrained() -> list[np.ndarray]:
    """Random linear maps of the same sources, as of networks with random weights."""
    return [sources() @ np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)) for seed in range(3)]


def test_permuted_and_flipped_copies_are_near_1_and_untrained_ones_clearly_lower():
    same, other = udr(copies(), ALL), udr(untrained(), ALL)
    bound = 1 / (1 + 0.8 * (WIDTH - 1) / np.sqrt(NUM))  # as documented
    assert same.scores == pytest.approx(bound, abs=0.02)
    assert (same.scores > 0.88).all()
    assert other.scores.max() < 0.6 < same.scores.min(), (same.scores, other.scores)
    turned = udr([sources(), *[rotated(sources(), angle) for angle in (30, 45)]], ALL)
    assert turned.scores.max() < 0.8


def test_pairs_equal_a_second_implementation():
    models = [z[:300] for z in [*copies()[:1], *untrained()[:2]]]
    found = udr(models, ALL)
    for i, j in found.similarity:
        assert found.pairs[i, j] == pytest.approx(seconds.pair_score(models[i], models[j]), abs=1e-9)
    assert found.scores[0] == pytest.approx(np.median([found.pairs[0, 1], found.pairs[0, 2]]))
    assert found.scores[0] != pytest.approx(np.median(found.pairs[0]), abs=1e-3)  # negative control: with itself


def test_only_informative_dimensions_count():
    z = [np.concatenate([code, noise(NUM, 3, seed)], 1) for seed, code in enumerate(copies())]
    kept = [np.arange(WIDTH + 3) < WIDTH] * 3
    assert udr(z, kept).pairs == pytest.approx(udr(copies(), ALL).pairs, abs=1e-12)
    assert udr(z, [np.ones(WIDTH + 3, bool)] * 3).scores.max() < 0.75  # negative control
    assert udr(z, kept).similarity[0, 1].shape == (WIDTH + 3, WIDTH + 3)
    nothing = udr(copies(), [np.zeros(WIDTH, bool)] * 3)
    assert nothing.scores.tolist() == [0, 0, 0]


def test_models_may_differ_in_their_dimensions_and_constants_match_nothing():
    a, b, c = copies()
    found = udr([a, b[:, :4], np.ones_like(c)], [np.ones(z.shape[1], bool) for z in (a, b[:, :4], c)])
    assert np.isfinite(found.pairs).all()
    assert found.similarity[0, 1].shape == (WIDTH, 4)
    assert found.pairs[0, 2] == 0 < found.pairs[0, 1] < 1


def test_latents_are_paired_one_to_one():
    found = udr(copies(), ALL)
    assert matched(found.similarity[0, 1]) == [5, 4, 3, 2, 1, 0]
    assert matched(found.similarity[0, 2]) == [1, 2, 0, 5, 4, 3]
    assert matched(np.array([[0.9, 0.8], [0.9, 0.1], [0.2, 0.3]])) == [1, 0, -1]


def test_the_level_of_two_dimensions_is_the_mean_over_angles():
    def score(angle: float) -> float:
        near, far = 6 / np.pi * np.arcsin(np.sort(np.abs([np.cos(angle), np.sin(angle)]))[::-1] / 2)
        return near**2 / (near + far)

    mean = quad(score, 0, np.pi / 4)[0] / (np.pi / 4)
    assert rotated_level([2, 2, 2]) == pytest.approx(mean, abs=0.006)  # of two pairs the median is the mean
    assert rotated_level([1, 1, 1]).tolist() == [1, 1, 1]
    assert rotated_level([0, 2, 2])[0] == 0


@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 2, 3), (5, 3, 4, 3)])
def test_the_level_is_the_score_of_latents_that_are_rotated(sizes):
    drawn = np.random.default_rng(5)

    def scores(*, turned: bool) -> np.ndarray:
        shared = drawn.normal(size=(300, max(sizes)))
        codes = [shared[:, :size] @ _turn(size, drawn) if turned else shared[:, :size] for size in sizes]
        return udr(codes, [np.ones(size, bool) for size in sizes]).scores

    found = np.array([scores(turned=True) for _ in range(40)])
    errors = found.std(0, ddof=1) / len(found) ** 0.5
    level = rotated_level(sizes)
    assert (np.abs(found.mean(0) - level) < 4 * errors + 0.01).all(), (found.mean(0), errors, level)
    # negative control: the same latents without a rotation, of which each model holds all or a part
    straight = scores(turned=False)
    assert straight.max() > level.max() + 0.1
    # negative control: other numbers of dimensions have another level
    assert (np.abs(found.mean(0) - rotated_level([size + 1 for size in sizes])) > 0.03).all()


def _turn(size: int, drawn: np.random.Generator) -> np.ndarray:
    return ortho_group.rvs(size, random_state=drawn) if size > 1 else np.ones((1, 1))


def test_levels_are_lower_for_more_dimensions_and_depend_on_no_order():
    alike = [rotated_level([size] * 3) for size in range(1, 9)]
    assert all(len(set(level)) == 1 for level in alike)
    assert all(more[0] < fewer[0] for fewer, more in pairwise(alike))
    assert rotated_level([3, 5, 3, 4]).tolist() == rotated_level([3, 3, 4, 5])[[0, 3, 1, 2]].tolist()
    with pytest.raises(DataError, match="2 models"):
        rotated_level([2, 2])


@pytest.mark.parametrize(
    ("models", "kept", "words"),
    [
        (copies()[:2], ALL[:2], "2 models"),
        ([*copies()[:2], copies()[2][:50]], ALL, "2000, 2000, 50"),
        (copies(), [*ALL[:2], np.ones(2, bool)], "a truth value for each dimension"),
        ([*copies()[:2], np.full((NUM, WIDTH), np.inf)], ALL, "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, kept, words):
    with pytest.raises(DataError, match=words):
        udr(models, kept)
