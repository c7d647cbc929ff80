"""Ties by another computation, and the front of rate and distortion by brute force."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fmvae.evaluation.columns import built_in_columns
from fmvae.report.caveats import MIN_RELIABLE
from fmvae.report.collect import Run, collect
from fmvae.report.ranking import Error, front, margin, rank, rankings, standard_error, tie
from fmvae.report.settings import Setting, settings_of
from fmvae.runs.directory import RunDirectory
from tests.report.fakes import write_run

ELBO = next(column for column in built_in_columns() if column.tag == "test/neg_elbo")
RECON = [column for column in built_in_columns() if column.tag in ("test/kl", "test/recon")]


def setting(beta: float, columns=(ELBO,), **values: list[float]) -> Setting:
    """A setting with a run for each value; ``neg_elbo`` stands for ``test/neg_elbo``."""
    tags = {f"test/{name}": numbers for name, numbers in values.items()}
    runs = [
        Run(
            RunDirectory(Path(f"run-{beta}-{i}")),
            f"run-{beta}-{i}",
            "complete",
            config={"beta.value": beta, "seed": i, "latent_dim.value": 2},
            scalars={tag: numbers[i] for tag, numbers in tags.items() if i < len(numbers)},
            columns=tuple(columns),
        )
        for i in range(max(map(len, tags.values())))
    ]
    return Setting(tuple(runs))


def test_ties_are_those_of_welchs_t():
    """scipy's Welch's test of the same numbers says so."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(200):
        one, other = (rng.normal(250 + rng.normal(), 1, rng.integers(2, 6)).tolist() for _ in range(2))
        welch = stats.ttest_ind(one, other, equal_var=False)
        t, p = abs(float(welch[0])), float(welch[1])  # type: ignore[arg-type]
        found = tie(ELBO, setting(1.0, neg_elbo=one), setting(2.0, neg_elbo=other))
        same_text = f"{np.mean(one):.2f}" == f"{np.mean(other):.2f}"
        assert found == (p >= 0.05 or same_text), (one, other, p)
        verdicts.append((found, t))
    assert 20 < sum(found for found, _ in verdicts) < 180  # both happen
    # the control: two standard errors are too few for so few seeds
    assert any(found and t > 2 for found, t in verdicts)


def test_the_standard_error_is_that_of_the_mean():
    values = [250.0, 251.0, 253.0, 250.5]
    found = standard_error(setting(1.0, neg_elbo=values), ELBO.tag)
    assert found == pytest.approx(stats.sem(values))
    assert found != pytest.approx(np.std(values, ddof=1))
    assert standard_error(setting(1.0, neg_elbo=[250.0]), ELBO.tag) is None
    one = setting(1.0, neg_elbo=[250.0], neg_elbo_se=[0.5])
    assert standard_error(one, ELBO.tag) == 0.5
    assert standard_error(setting(1.0, neg_elbo=[250.0, 252.0], neg_elbo_se=[9.0, 9.0]), ELBO.tag) == 1.0


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_settings_tie_in_95_of_100_cases(seeds):
    """By brute force. Welch's test is careful with two seeds."""
    draws = np.random.default_rng(seeds).normal(250, 1, (4000, 2, seeds))
    errors = draws.std(2, ddof=1) / math.sqrt(seeds)
    apart = abs(draws.mean(2)[:, 0] - draws.mean(2)[:, 1])
    pairs = [[Error(error, seeds - 1) for error in row] for row in errors.tolist()]
    share = np.mean([distance <= margin(pair) for distance, pair in zip(apart, pairs, strict=True)])
    assert 0.94 < share < {2: 0.99, 3: 0.98, 5: 0.97}[seeds]
    assert np.mean(apart <= 2 * np.hypot(*errors.T)) < 0.935  # control: two standard errors promise too much


@pytest.mark.parametrize(("distance", "tied"), [(0.9, True), (1.1, True), (1.2, False)])
def test_one_run_ties_within_two_errors_of_the_measure(distance, tied):
    one, other = (setting(b, neg_elbo=[250 + b * distance], neg_elbo_se=[0.4]) for b in (0, 1))
    assert (distance <= 1.96 * math.sqrt(2 * 0.4**2)) is tied
    assert tie(ELBO, one, other) is tied


def test_without_a_known_noise_there_is_no_verdict_but_equal_texts_tie():
    assert tie(ELBO, setting(1.0, neg_elbo=[250.0]), setting(2.0, neg_elbo=[251.1, 251.2])) is None
    assert tie(ELBO, setting(1.0, neg_elbo=[250.001]), setting(2.0, neg_elbo=[250.002])) is True
    one, other = setting(1.0, neg_elbo=[250.0]), setting(2.0, neg_elbo=[251.0])
    ranking = rank(ELBO, [one, other])
    assert (ranking.ties, ranking.unknown) == ([], [other])


@pytest.mark.parametrize(("rival", "tied"), [(262.6, True), (262.8, None), (237.4, True)])
def test_a_difference_within_the_one_known_noise_is_a_tie(rival, tied):
    """The noise of the difference is at least that of either mean: of two seeds here, 1 nat, 12.7 times."""
    known, alone = setting(1.0, neg_elbo=[249.0, 251.0]), setting(2.0, neg_elbo=[rival])
    assert standard_error(known, ELBO.tag) == pytest.approx(1.0)
    assert tie(ELBO, known, alone) is tied
    assert tie(ELBO, alone, known) is tied


def test_numbers_that_are_not_finite_are_never_best():
    lost, good = setting(1.0, neg_elbo=[math.nan]), setting(2.0, neg_elbo=[250.0])
    assert rank(ELBO, [lost, good]).settings == [good]
    endless = setting(3.0, neg_elbo=[-math.inf])
    assert rank(ELBO, [endless, good]).settings == [good]


def dominated(points: list[tuple[float, float]], i: int) -> bool:
    """The definition, point by point."""
    x, y = points[i]
    return any(a <= x and b <= y and (a < x or b < y) for a, b in points)


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 40))
    # few values, so that rates, distortions and whole points repeat
    points = [(float(a), float(b)) for a, b in rng.integers(0, [3, 6, 30][seed % 3], (number, 2))]
    settings = [setting(i, RECON, kl=[kl], recon=[recon]) for i, (kl, recon) in enumerate(points)]
    expected = {i for i in range(number) if not dominated(points, i)}
    found = [one.first.beta for one in front(settings)]
    assert set(found) == expected
    assert len(found) == len(expected)
    rates = [points[int(i or 0)][0] for i in found]
    assert rates == sorted(rates)
    if number > 20:  # the control: the front is neither all nor the best of one number alone
        assert len(expected) < number


def test_the_front_is_of_means_over_seeds():
    settings = [
        setting(0, RECON, kl=[1.0, 3.0], recon=[10.0, 10.0]),
        setting(1, RECON, kl=[2.5, 2.5], recon=[10.0, 10.0]),  # 2.5 > 2, though less than 3
        setting(2, RECON, kl=[9.0], recon=[5.0]),
        setting(3, RECON, kl=[math.nan], recon=[1.0]),
    ]
    assert [one.first.beta for one in front(settings)] == [0, 2]


def test_which_numbers_have_a_best_is_the_registrys(tmp_path):
    """Not those whose order is trivial: with a smaller beta, recon falls and the KL rises."""
    for beta in (0.5, 1.0):
        write_run(tmp_path, beta=beta, decomposition={"mi": 3.0, "tc": 1.0})
    settings = settings_of(collect([tmp_path]))
    assert [one.column.tag for one in rankings(settings)] == [
        "test/neg_elbo",
        "test/iwae_64",
        "fid/resnet18/generation",
    ]
    unranked = {column.tag for column in built_in_columns() if column.direction and not column.ranked}
    assert unranked == {
        *("test/recon", "test/recon_at_mean", "test/objective", "test/objective_at_mean", "decomposition/tc"),
    }
    assert MIN_RELIABLE == 5000
