"""The scores of data that render on demand: truths, chance, second implementations, bad input."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from fmvae import rng
from fmvae.errors import DataError
from fmvae.evaluation.disentanglement import beta_vae_score, factor_vae_score
from tests.evaluation.disentanglement.codes import rotated

SIZES = (3, 5, 4, 6)
SMALL = {"num_train": 120, "num_test": 120, "group_size": 32}
SCORES = [factor_vae_score, beta_vae_score]


def generator() -> torch.Generator:
    return rng.stream(0, "evaluation")


def perfect(factors: torch.Tensor) -> torch.Tensor:
    return factors.double() / torch.tensor(SIZES)


def noise(factors: torch.Tensor) -> torch.Tensor:
    return torch.randn(len(factors), 4, generator=torch.Generator().manual_seed(len(factors)))


class Partly:
    """Codes with so much noise, or turned so far, that scores are neither 1 nor chance."""

    def __init__(self, width: float, turned: bool = False):
        self.drawn, self.width, self.turned = np.random.default_rng(1), width, turned

    def __call__(self, factors: torch.Tensor) -> np.ndarray:
        z = factors.numpy() / np.array(SIZES)
        z = rotated(z) if self.turned else z
        return z + self.width * self.drawn.normal(size=z.shape)


def second_factor_vae(codes_of, num: int, group: int) -> float:
    """Kim & Mnih's score, with a table of votes from one sample and its accuracy on another."""
    drawn = np.random.default_rng(7)

    def factors(many: int) -> torch.Tensor:
        return torch.tensor(np.c_[tuple(drawn.integers(size, size=many) for size in SIZES)])

    scale = np.asarray(codes_of(factors(5000))).std(0)

    def voted() -> list[tuple[int, int]]:
        found = []
        for turn in range(num):
            fixed = turn % len(SIZES)
            given = factors(group)
            given[:, fixed] = int(drawn.integers(SIZES[fixed]))
            z = np.asarray(codes_of(given)) / scale
            found.append((min(range(4), key=lambda d: np.var(z[:, d])), fixed))
        return found

    first, second = voted(), voted()
    table = {d: max(range(4), key=lambda k: first.count((d, k))) for d in range(4)}
    return sum(table[d] == k for d, k in second) / num


def second_beta_vae(codes_of, num: int, group: int) -> float:
    """Higgins et al.'s score, with another linear classifier."""
    drawn, rows, labels = np.random.default_rng(7), [], []
    for turn in range(2 * num):
        fixed = turn % len(SIZES)
        first, second = (
            np.c_[tuple(drawn.integers(size, size=group) for size in SIZES)].astype(int) for _ in range(2)
        )
        second[:, fixed] = first[:, fixed]
        z, other = (np.asarray(codes_of(torch.tensor(part))) for part in (first, second))
        rows.append(abs(z - other).mean(0))
        labels.append(fixed)
    x = (rows - np.mean(rows, 0)) / np.std(rows, 0)
    return RidgeClassifier(alpha=1e-3).fit(x[:num], labels[:num]).score(x[num:], labels[num:])


@pytest.mark.parametrize("score", SCORES)
def test_a_code_that_equals_the_factors_scores_1_and_noise_chance(score):
    assert score(perfect, SIZES, generator(), **SMALL) > 0.97
    assert score(noise, SIZES, generator(), **SMALL) == pytest.approx(1 / 4, abs=0.13)


@pytest.mark.parametrize(
    ("score", "second", "width"),
    [(factor_vae_score, second_factor_vae, 0.6), (beta_vae_score, second_beta_vae, 0.6)],
)
def test_they_equal_a_second_implementation_within_their_spread(score, second, width):
    num = 300
    ours = score(Partly(width), SIZES, generator(), num_train=num, num_test=num, group_size=16)
    expected = second(Partly(width), num, 16)
    error = np.sqrt(2 * expected * (1 - expected) / num)
    assert 0.3 < expected < 0.97
    assert abs(ours - expected) < 4 * error + 0.02, (ours, expected, error)
    larger = second(Partly(width), num, 128)  # negative control: other groups have another score
    assert larger - ours > 3 * error, (larger, ours)


@pytest.mark.parametrize("score", SCORES)
def test_they_repeat_and_follow_their_generator(score):
    first = score(Partly(0.5), SIZES, generator(), **SMALL)
    assert score(Partly(0.5), SIZES, generator(), **SMALL) == first
    others = {score(Partly(0.5), SIZES, rng.stream(seed, "evaluation"), **SMALL) for seed in range(4)}
    assert len(others) > 1


def test_order_signs_and_scale_do_not_matter():
    def turned(factors: torch.Tensor) -> torch.Tensor:
        return 3 * perfect(factors)[:, [2, 0, 3, 1]] * torch.tensor([1, -1, -1, 1])

    for score in SCORES:
        first = score(perfect, SIZES, generator(), **SMALL)
        assert score(turned, SIZES, generator(), **SMALL) == pytest.approx(first, abs=0.01)


def test_a_collapsed_dimension_takes_no_part_in_factor_vaes_score():
    def collapsed(factors: torch.Tensor) -> torch.Tensor:
        return torch.cat([perfect(factors), 0.01 * noise(factors)[:, :1]], 1)

    def constant(factors: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(factors), 3)

    first = factor_vae_score(perfect, SIZES, generator(), **SMALL)
    assert factor_vae_score(collapsed, SIZES, generator(), **SMALL) == first
    assert factor_vae_score(constant, SIZES, generator(), **SMALL) == 1 / 4
    assert beta_vae_score(constant, SIZES, generator(), **SMALL) == pytest.approx(1 / 4, abs=0.13)


@pytest.mark.parametrize("score", SCORES)
def test_factors_with_one_value_are_never_fixed_and_two_must_vary(score):
    seen = []

    def codes(factors: torch.Tensor) -> torch.Tensor:
        seen.append(factors)
        return factors.double()

    assert score(codes, (1, 4, 5), generator(), **SMALL) > 0.95
    assert torch.cat(seen).amax(0).tolist() == [0, 3, 4]
    with pytest.raises(DataError, match=r"^factors: 1 of 3 have more than one value"):
        score(codes, (1, 4, 1), generator(), **SMALL)
    with pytest.raises(DataError, match="not finite"):
        score(lambda factors: torch.full((len(factors), 2), torch.nan), SIZES, generator(), **SMALL)
