"""The scores of codes and factors: truths, chance levels, second implementations, invariances, bad input."""

from typing import Any

import numpy as np
import pytest
import torch

from fmvae.errors import DataError
from fmvae.evaluation.disentanglement import (
    dci,
    explicitness,
    infoc,
    infom,
    mig,
    modularity,
    mutual_information,
    sap,
)
from fmvae.evaluation.disentanglement.fitted import DEPTH, LEARNING_RATE, ROUNDS, of_importance
from tests.evaluation.disentanglement import seconds
from tests.evaluation.disentanglement.codes import SIZES, blurred, factors, noise, rotated

INFORMED = {"mig": mig, "modularity": modularity, "infom": infom, "infoc": infoc}
QUICK = {**INFORMED, "sap": sap, "explicitness": explicitness}
PARTS = ("disentanglement", "completeness", "informativeness")


def scores(z, given) -> dict[str, float]:
    """All scores, on the points themselves."""
    parts = dict(zip(PARTS, dci(z, given)[:3], strict=True))
    return {**{name: score(z, given) for name, score in QUICK.items()}, **parts}


@pytest.fixture(scope="module")
def perfect() -> dict[str, float]:
    given = factors(600)
    return scores(given.astype(float), given)


@pytest.fixture(scope="module")
def mixed() -> dict[str, float]:
    """The same code, with pairs of dimensions rotated by 45 degrees."""
    given = factors(600)
    return scores(rotated(given.astype(float)), given)


@pytest.fixture(scope="module")
def chance() -> dict[str, float]:
    given = factors(600)
    return scores(noise(600), given)


def test_a_code_that_equals_the_factors_scores_its_maximum(perfect, mixed):
    bound = 1 - np.mean([1 / size for size in SIZES])  # of SAP: every other dimension predicts by chance
    assert perfect["sap"] == pytest.approx(bound, abs=0.08)
    assert perfect["explicitness"] > 0.995
    finite = 0.03  # dimensions of independent factors have some information by chance
    assert {name for name in perfect if perfect[name] < 1 - finite} == {"sap"}, perfect
    # negative control: the rotated code has the same information, and none of these is at its maximum
    assert mixed["sap"] < bound - 0.2
    assert {name for name in mixed if mixed[name] > 1 - finite} <= {"explicitness", "informativeness"}, mixed


def test_a_rotation_lowers_what_it_should(perfect, mixed):
    for name in ("mig", "disentanglement", "completeness", "modularity", "sap", "infom", "infoc"):
        assert mixed[name] < perfect[name] - 0.1, name


def test_noise_scores_chance(chance):
    for name in ("mig", "sap", "disentanglement", "completeness", "infom", "infoc"):
        assert 0 <= chance[name] < 0.25, (name, chance)
    assert abs(sap(noise(6000), factors(6000), (noise(6000, seed=5), factors(6000, seed=6)))) < 0.03
    assert mig(noise(6000), factors(6000)) < 0.01
    # far from 0, as documented: a half is the area of chance, and modularity compares small differences
    other = noise(2000, seed=5), factors(2000, seed=6)
    assert explicitness(noise(6000), factors(6000), other) == pytest.approx(0.5, abs=0.03)
    assert 0.5 < modularity(noise(6000), factors(6000)) < 0.95
    # permuted factors: a code that follows them is at chance with them shuffled
    given = factors(6000)
    shuffled = given[np.random.default_rng(0).permutation(len(given))]
    assert mig(blurred(given), given) > 0.2 > 0.01 > mig(blurred(given), shuffled)


def test_chance_of_modularity_and_infom_follows_the_numbers_of_values():
    """By the bias of counted mutual information, as docs/measures.md has it."""

    def expected(sizes) -> tuple[float, float]:
        bias = np.array(sizes) - 1.0
        rest = (bias**2).sum() - bias.max() ** 2
        shares, even = bias / np.log(sizes), 1 / len(sizes)
        return 1 - rest / bias.max() ** 2 / (len(sizes) - 1), (shares.max() / shares.sum() - even) / (1 - even)

    num, z = 10_000, noise(10_000, 10)
    for sizes, near in (((3, 6, 20, 16, 16), (0.67, 0.11)), ((100, 4, 4, 4, 5, 3), (0.999, 0.60))):
        given = factors(num, sizes=sizes)
        found = mutual_information(z, given).mean(0)
        assert found == pytest.approx((np.array(sizes) - 1) * 19 / (2 * num), rel=0.25)  # fewer bins are filled
        # negative control: the bias is not information, of which there is none on more points
        assert mutual_information(noise(4 * num), factors(4 * num, sizes=sizes)).mean() < 0.4 * found.mean()
        assert (modularity(z, given), infom(z, given)) == pytest.approx(expected(sizes), abs=0.06)
        assert expected(sizes) == pytest.approx(near, abs=0.005)


def test_dci_of_noise_is_at_chance_on_other_points():
    found = dci(noise(1500), factors(1500), (noise(500, seed=5), factors(500, seed=6)))
    assert found.disentanglement < 0.1
    assert found.informativeness == pytest.approx(np.mean([1 / size for size in SIZES]), abs=0.06)


@pytest.mark.parametrize("name", ["mig", "modularity"])
def test_scores_of_information_equal_a_second_implementation(name):
    given = factors(1000)
    z = blurred(given)
    second = getattr(seconds, name)
    assert INFORMED[name](z, given) == pytest.approx(second(z, given), abs=1e-9)
    assert INFORMED[name](z, given, num_bins=10) != pytest.approx(second(z, given), abs=1e-4)  # negative control


def test_infom_and_infoc_equal_a_second_implementation():
    given = factors(1000)
    z = blurred(given)
    assert (infom(z, given), infoc(z, given)) == pytest.approx(seconds.info_scores(z, given), abs=1e-9)
    swapped = infoc(z, given), infom(z, given)
    assert swapped != pytest.approx(seconds.info_scores(z, given), abs=1e-3)  # negative control


def test_mutual_information_equals_scikit_learns_and_the_closed_form_of_a_table():
    given = factors(1000)
    z = blurred(given)
    assert np.allclose(mutual_information(z, given), seconds.information(z, given), atol=1e-12)
    # p(0,0) = p(1,1) = 3/8, p(0,1) = p(1,0) = 1/8
    pairs = np.array([(0, 0)] * 3 + [(1, 1)] * 3 + [(0, 1), (1, 0)])
    expected = 2 * 3 / 8 * np.log(3 / 2) + 2 / 8 * np.log(1 / 2)
    assert mutual_information(pairs.astype(float), pairs[:, ::-1])[0, 0] == pytest.approx(expected, abs=1e-12)


def test_sap_equals_an_exhaustive_search_for_thresholds():
    given, test = factors(150), factors(80, seed=9)
    z, test_z = blurred(given).astype(np.float32), blurred(test, seed=7).astype(np.float32)
    expected = seconds.sap(z, given, test_z, test)
    assert sap(z, given, (test_z, test)) == pytest.approx(expected, abs=1e-6)
    assert sap(z, given) != pytest.approx(expected, abs=1e-3)  # negative control: other points to test on


def test_explicitness_equals_newtons_method():
    given, test = factors(300, sizes=(3, 4)), factors(200, seed=9, sizes=(3, 4))
    z, test_z = blurred(given), blurred(test, seed=7)
    expected = seconds.explicitness(z, given, test_z, test)
    assert explicitness(z, given, (test_z, test)) == pytest.approx(expected, abs=2e-3)
    assert 2 * expected - 1 < expected - 0.05  # negative control: the scaled area is another number


def test_dci_equals_friedmans_boosting_within_its_spread_and_scipys_entropies():
    given, test = factors(120, sizes=(2, 3)), factors(60, seed=9, sizes=(2, 3))
    z, test_z = (part.astype(np.float32) for part in (blurred(given), blurred(test, seed=7)))
    found = dci(z, given, (test_z, test))
    size: Any = {"rounds": ROUNDS, "rate": LEARNING_RATE, "depth": DEPTH}
    # of the factor with three values: for two, scikit-learn fits one tree a round
    ours = np.array([dci(z, given, seed=seed).importance[:, 1] for seed in range(12)])
    second = np.array([seconds.boosted(z.astype(float), given[:, 1], **size, seed=seed) for seed in range(12)])
    assert ours.std(0).max() < 0.01
    error = np.sqrt((ours.var(0, ddof=1) + second.var(0, ddof=1)) / 12)
    assert (np.abs(ours.mean(0) - second.mean(0)) < 4 * error + 1e-9).all(), (ours.mean(0), second.mean(0), error)
    wrongs: list[Any] = [{"depth": 2}, {"rounds": 4}, {"rate": 0.1}]
    for wrong in wrongs:  # negative controls
        other = seconds.boosted(z.astype(float), given[:, 1], **size | wrong, seed=0)
        assert (np.abs(ours.mean(0) - other) > 4 * ours.std(0)).any(), wrong
    assert found[:2] == pytest.approx(seconds.purities(found.importance), abs=1e-9)


def test_the_entropies_of_a_matrix_equal_scipys():
    drawn = np.random.default_rng(0)
    for matrix in (drawn.random((5, 3)), drawn.random((3, 4)) ** 8):
        assert of_importance(matrix) == pytest.approx(seconds.purities(matrix), abs=1e-12)
        assert of_importance(matrix) != pytest.approx(seconds.purities(matrix.T)[::-1], abs=1e-6)
    assert of_importance(np.zeros((3, 4))) == (0, 0)
    assert of_importance(np.eye(3)) == (1, 1)


@pytest.mark.parametrize("name", [*QUICK, "disentanglement"])
def test_order_and_signs_of_dimensions_do_not_matter(name):
    score = {**QUICK, "disentanglement": lambda z, given: dci(z, given).disentanglement}[name]
    given = factors(400)
    z = blurred(given)
    turned = z[:, [3, 0, 4, 2, 1]] * [1, -1, -1, 1, -1]
    tolerance = 2e-3 if name in ("disentanglement", "explicitness") else 1e-9  # fitted
    assert score(turned, given) == pytest.approx(score(z, given), abs=tolerance)
    assert score(np.sin(5 * z), given) != pytest.approx(score(z, given), abs=0.01)  # negative control


@pytest.mark.parametrize("name", ["mig", "modularity"])
def test_a_constant_scale_does_not_matter(name):
    given = factors(1000)
    z = blurred(given)
    assert INFORMED[name](0.37 * z - 3, given) == pytest.approx(INFORMED[name](z, given), abs=1e-9)
    whole = given.astype(float)  # values on the bins' edges
    assert INFORMED[name](0.3 * whole, given) == pytest.approx(INFORMED[name](-0.7 * whole, given), abs=1e-9)
    assert INFORMED[name](z**5, given) != pytest.approx(INFORMED[name](z, given), abs=0.01)  # negative control


def test_a_repeated_dimension_lowers_what_asks_for_one_dimension_for_each_factor():
    given = factors(400)
    z = given.astype(float)
    twice = np.concatenate([z, z], 1)
    assert mig(twice, given) == pytest.approx(0, abs=1e-12)
    assert sap(twice, given) == pytest.approx(0, abs=1e-12)
    assert infoc(twice, given) < 0.6 < infoc(z, given)
    assert infom(twice, given) == pytest.approx(infom(z, given))  # which asks for one factor for each dimension


def test_constant_dimensions_count_for_nothing():
    given = factors(400)
    z = blurred(given)
    padded = np.concatenate([z, np.full((len(z), 2), 7.0)], 1)
    for score in (mig, infom, infoc, sap):
        assert score(padded, given) == pytest.approx(score(z, given), abs=1e-12), score
    assert modularity(padded, given) == pytest.approx(modularity(z, given) * 5 / 7)  # each counts as 0
    narrow = np.concatenate([z, 0.001 * noise(len(z), 1)], 1)
    assert infom(narrow, given) == pytest.approx(infom(z, given), abs=1e-12)  # an inactive dimension
    assert infom(np.concatenate([z, noise(len(z), 1)], 1), given) < infom(z, given) - 0.02  # negative control
    flat = scores(np.ones((50, 3)), factors(50))
    assert all(0 <= value <= 1 for value in flat.values()), flat


def test_a_factor_with_one_value_takes_no_part():
    given = factors(300)
    z = blurred(given)
    more = np.insert(given, 1, 5, axis=1)
    assert scores(z, more) == pytest.approx(scores(z, given), abs=1e-9)
    assert dci(z, more).importance.shape == (5, 5)
    assert not dci(z, more).importance[:, 1].any()


@pytest.mark.parametrize("num", [4, 7, 15])
def test_fewer_points_than_bins_give_finite_scores(num):
    given = factors(num, seed=3)
    found = scores(blurred(given), given)
    assert all(0 <= value <= 1 for value in found.values()), found
    # test points with values that the others lack
    test = blurred(factors(50)), factors(50)
    several = [sap(blurred(given), given, test), explicitness(blurred(given), given, test)]
    several += dci(blurred(given), given, test, seed=1)[:3]
    assert all(0 <= value <= 1 for value in several)


@pytest.mark.parametrize(
    ("z", "given", "words"),
    [
        (noise(9, 1), factors(9), "1 dimension"),
        (noise(9), factors(8), r"\(8, 4\) for codes \(9, 4\)"),
        (noise(9), factors(9).astype(float), "float64 are not whole numbers"),
        (noise(9), factors(9)[:, :1], "1 of 1 have more than one value"),
        (noise(9), np.zeros((9, 3), int), "0 of 3"),
        (np.full((9, 2), np.nan), factors(9), "18 are not finite"),
        (noise(1), factors(1), "shape"),
        (noise(9)[0], factors(9), "shape"),
    ],
)
@pytest.mark.parametrize("score", [*QUICK.values(), dci], ids=lambda score: score.__name__)
def test_what_no_score_is_defined_for_is_refused_in_one_line(score, z, given, words):
    with pytest.raises(DataError, match=words) as caught:
        score(z, given)
    assert "\n" not in str(caught.value)


def test_tensors_and_arrays_give_the_same():
    given = factors(300)
    z = blurred(given)
    assert mig(torch.tensor(z), torch.tensor(given)) == mig(z, given)
    assert mig(z, given - 5) == mig(z, 3 * given)  # names of values do not matter
