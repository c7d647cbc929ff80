"""Which settings are best by a number, which of them tie, and the front of rate and distortion. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fmvae.evaluation.columns import Column
from fmvae.report.comparable import unlike
from fmvae.report.comparison import columns_of, text
from fmvae.report.settings import Setting

SHARE = 0.95  # a difference within the interval that has so many of the differences of equal settings is a tie
RATE, DISTORTION = "test/kl", "test/recon"


class Ranking(NamedTuple):
    """The settings that have a number, best mean first.

    Args:
        ties: those after the first whose difference to it is within noise.
        unknown: those of which that is not known, as the noise of one of the two is not.
        refused: why the settings do not compare; empty if they do. Then the order means nothing.
    """

    column: Column
    settings: list[Setting]
    ties: list[Setting]
    unknown: list[Setting]
    refused: str = ""

    @property
    def best(self) -> Setting:
        return self.settings[0]


def rankings(settings: Sequence[Setting]) -> list[Ranking]:
    """Return a ranking for each column of the table that has a best, in the order of the table."""
    return [rank(column, settings) for column in columns_of(settings) if column.has_best]


def rank(column: Column, settings: Sequence[Setting]) -> Ranking:
    """Rank the settings by their means of a column. Equal means keep the order of the settings."""
    sign = -1 if column.direction == "higher" else 1
    having = [setting for setting in settings if _mean(setting, column.tag) is not None]
    ordered = sorted(having, key=lambda setting: sign * (_mean(setting, column.tag) or 0.0))
    if refused := unlike(column, having):
        return Ranking(column, ordered, [], [], refused)
    best, *others = ordered
    verdicts = [(setting, tie(column, best, setting)) for setting in others]
    ties, unknown = ([setting for setting, tied in verdicts if tied is said] for said in (True, None))
    return Ranking(column, ordered, ties, unknown)


def tie(column: Column, one: Setting, other: Setting) -> bool | None:
    """Return whether two settings tie: the difference of their means is within its :func:`margin`.

    Means that a table prints alike tie, too. If only one of the two standard errors is known, that of the
    difference is at least as large: a difference within it is a tie, and of a larger one nothing is known (None).
    """
    means = [_mean(setting, column.tag) for setting in (one, other)]
    assert means[0] is not None
    assert means[1] is not None
    if text(column, means[0]) == text(column, means[1]):
        return True
    errors = [error_of(setting, column.tag) for setting in (one, other)]
    within = abs(means[0] - means[1]) <= margin([error for error in errors if error is not None])
    return within or (None if None in errors else False)


class Error(NamedTuple):
    """The standard error of a mean, and its degrees of freedom: infinite if it is not of a few seeds."""

    value: float
    freedom: float = math.inf


def margin(errors: Sequence[Error]) -> float:
    """Return how far apart two means with these standard errors are in ``SHARE`` of all cases, if nothing differs.

    It is the quantile of Student's t, with the degrees of freedom of Welch and Satterthwaite, times the standard
    error of the difference: 1.96 times for known errors, 2.8 for three seeds each, 4.3 for two.
    """
    from scipy.special import ndtri, stdtrit

    total = math.hypot(*(error.value for error in errors))
    spent = sum(error.value**4 / error.freedom for error in errors)
    upper = (1 + SHARE) / 2
    return total * float(stdtrit(total**4 / spent, upper) if spent else ndtri(upper))


def error_of(setting: Setting, tag: str) -> Error | None:
    """Return the standard error of a setting's mean with its degrees of freedom; None if it is not known."""
    value, statistic = standard_error(setting, tag), setting.statistic(tag)
    if value is None or statistic is None:
        return None
    return Error(value) if statistic.sd is None else Error(value, statistic.n - 1)


def standard_error(setting: Setting, tag: str) -> float | None:
    """Return the standard error of a setting's mean over seeds; of one run, that of its measure if it has one."""
    statistic = setting.statistic(tag)
    if statistic is None:
        return None
    if statistic.sd is not None:
        return statistic.sd / math.sqrt(statistic.n)
    error = next((run.scalars.get(f"{tag}_se") for run in setting.runs if tag in run.scalars), None)
    return error if error is None or math.isfinite(error) else None


def _mean(setting: Setting, tag: str) -> float | None:
    statistic = setting.statistic(tag)
    return statistic.mean if statistic and math.isfinite(statistic.mean) else None


def front(settings: Sequence[Setting]) -> list[Setting]:
    """Return the Pareto front of rate (KL) and distortion (recon), from the lowest rate on.

    A setting is on it if no other has both means at most as large, and one of them smaller. It is empty if the
    settings' nats do not compare.
    """
    found = [
        (rate, distortion, setting)
        for setting in settings
        if (rate := _mean(setting, RATE)) is not None and (distortion := _mean(setting, DISTORTION)) is not None
    ]
    columns = [column for column in columns_of(settings) if column.tag in (RATE, DISTORTION)]
    if any(unlike(column, [setting for *_, setting in found]) for column in columns):
        return []
    kept: list[tuple[float, float, Setting]] = []
    for point in sorted(found, key=lambda one: one[:2]):
        if not kept or point[1] < kept[-1][1] or point[:2] == kept[-1][:2]:
            kept.append(point)
    return [setting for *_, setting in kept]
