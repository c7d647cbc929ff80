"""The scores of data that render any combination of factors: FactorVAE's and beta-VAE's. Both in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fmvae.errors import DataError
from fmvae.evaluation.disentanglement.points import Numbers, as_codes

CodesOf = Callable[[Tensor], Numbers]
COLLAPSED = 0.05  # a dimension whose codes have a smaller standard deviation takes no part in FactorVAE's score
NUM_SCALE = 10_000  # points for the dimensions' variances


def factor_vae_score(
    codes_of: CodesOf,
    factor_sizes: Sequence[int],
    generator: torch.Generator,
    *,
    num_train: int = 400,
    num_test: int = 400,
    group_size: int = 64,
    num_scale: int = NUM_SCALE,
) -> float:
    """Return the score of Kim & Mnih 2018 (section 4): one factor is fixed; which dimension varies least?

    In each group of images one factor is fixed, the others are random. The dimension with the smallest variance,
    divided by its variance over all data, votes for the factor. A dimension's prediction is the factor that it
    voted for most often among the first ``num_train`` groups; the score is the share of ``num_test`` other groups
    that are predicted. Chance: 1 / (number of factors).

    Args:
        codes_of: returns the codes (N, D) of the images with given factors, int64 (N, K).
        factor_sizes: the number of values of each factor, (K,). Factors with one value are never fixed.
        generator: on the CPU; gives the factors.
        num_scale: images for the variances over all data. Dimensions with a standard deviation below 0.05 are
            left out; if none is left, the score is chance.

    Raises:
        DataError: fewer than two factors vary, or a code is not finite.
    """
    varied = _varied(factor_sizes)
    whole = as_codes(codes_of(_drawn(factor_sizes, num_scale, generator))).var(0, ddof=1)
    active = np.sqrt(whole) >= COLLAPSED
    if not active.any():
        return 1 / len(varied)
    ballots = [
        (int((codes.var(0, ddof=1) / whole[active]).argmin()), fixed)
        for codes, fixed in (
            (as_codes(codes_of(factors))[:, active], fixed)
            for factors, fixed in _groups(factor_sizes, varied, num_train + num_test, group_size, generator)
        )
    ]
    votes = np.zeros((int(active.sum()), len(factor_sizes)), dtype=int)
    for dimension, fixed in ballots[:num_train]:
        votes[dimension, fixed] += 1
    predicted = votes.argmax(1)
    return float(np.mean([predicted[dimension] == fixed for dimension, fixed in ballots[num_train:]]))


def beta_vae_score(
    codes_of: CodesOf,
    factor_sizes: Sequence[int],
    generator: torch.Generator,
    *,
    num_train: int = 400,
    num_test: int = 400,
    group_size: int = 64,
) -> float:
    """Return the score of Higgins et al. 2017 (section 3): one factor is shared by pairs; which one?

    A group holds ``group_size`` pairs of images that share the value of one factor, the same for the group; all
    else is random. A linear classifier (multinomial logistic regression on standardised inputs) predicts the
    factor from the mean over pairs of the absolute difference of codes, (D,). The score is its accuracy on
    ``num_test`` groups. Chance: 1 / (number of factors).

    Args and errors: as for :func:`factor_vae_score`.
    """
    from sklearn.linear_model import LogisticRegression

    varied, inputs, labels = _varied(factor_sizes), [], []
    for _ in range(num_train + num_test):
        fixed = varied[int(torch.randint(len(varied), (), generator=generator))]
        first, second = (_drawn(factor_sizes, group_size, generator) for _ in range(2))
        second[:, fixed] = first[:, fixed]
        codes = as_codes(codes_of(torch.cat([first, second])))
        inputs.append(np.abs(codes[:group_size] - codes[group_size:]).mean(0))
        labels.append(fixed)
    x, y = np.stack(inputs), np.array(labels)
    if len(np.unique(y[:num_train])) < 2:
        return float((y[num_train:] == y[0]).mean())
    scale = x[:num_train].std(0)
    x = (x - x[:num_train].mean(0)) / np.where(scale > 0, scale, 1)
    model = LogisticRegression(max_iter=1000).fit(x[:num_train], y[:num_train])
    return float((model.predict(x[num_train:]) == y[num_train:]).mean())


def _varied(factor_sizes: Sequence[int]) -> list[int]:
    varied = [index for index, size in enumerate(factor_sizes) if size > 1]
    if len(varied) < 2:
        problem = f"{len(varied)} of {len(factor_sizes)} have more than one value"
        raise DataError("factors", problem, "give two that vary: the score tells them apart")
    return varied


def _drawn(factor_sizes: Sequence[int], num: int, generator: torch.Generator) -> Tensor:
    """Draw factors (num, K), each uniform over its values."""
    return torch.stack([torch.randint(size, (num,), generator=generator) for size in factor_sizes], 1)


def _groups(
    factor_sizes: Sequence[int], varied: Sequence[int], num: int, group_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, int]]:
    """Yield factors (group_size, K) of groups, with the index of the factor that is the same in all of a group."""
    for _ in range(num):
        fixed = varied[int(torch.randint(len(varied), (), generator=generator))]
        factors = _drawn(factor_sizes, group_size, generator)
        factors[:, fixed] = factors[0, fixed]
        yield factors, fixed
