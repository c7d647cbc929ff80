"""Which scores of disentanglement are above their levels, in sentences made by rules. No input or output."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fmvae.evaluation.columns import Column
from fmvae.report.comparison import columns_of
from fmvae.report.levels import LEVELS, level, told
from fmvae.report.naming import Names, few
from fmvae.report.ranking import Error, error_of, margin
from fmvae.report.settings import Setting, Statistic

BLOCK = "disentanglement"


def scores_of(settings: Sequence[Setting]) -> list[Column]:
    """Return the columns of the table that are scores of disentanglement and that a setting has."""
    return [column for column in columns_of(settings) if column.counted == BLOCK]


def is_above(setting: Setting, column: Column, floor: Statistic) -> bool:
    """Return whether a setting's mean is above a level by more than the ``margin`` of their difference.

    An unknown standard error counts as that of the other side, and as 0 if neither is known.
    """
    statistic = setting.statistic(column.tag)
    assert statistic is not None
    own = error_of(setting, column.tag)
    of_level = None if floor.sd is None else Error(floor.sd / math.sqrt(floor.n), floor.n - 1)
    errors = [error for error in (own, of_level) if error is not None]
    return statistic.mean - floor.mean > margin((errors * 2)[:2])


def by_model(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Return settings of one data by model and z: those of a group share levels."""
    models: dict[tuple[str, int | None], list[Setting]] = {}
    for setting in settings:
        models.setdefault((setting.first.model, setting.first.latent_dim), []).append(setting)
    return list(models.values())


def tells(column: Column, settings: Sequence[Setting]) -> bool:
    """Return whether a number says which of the settings, of one data, is best.

    A score that no setting has above its level with shuffled factors does not.
    """
    verdicts = [
        is_above(setting, column, floor)
        for same in by_model(settings)
        if (floor := level(same, column, "chance"))
        for setting in same
        if setting.statistic(column.tag)
    ]
    return any(verdicts) or not verdicts


def not_above(settings: Sequence[Setting], names: Names) -> list[tuple[str, str]]:
    """Return sentences, as lead and rest, that say which scores are above each level, for settings of one data."""
    said = []
    models = by_model(settings)
    for which, name in LEVELS.items():
        above, below = [], []
        for column in scores_of(settings):
            failed, compared, floors = [], 0, []
            for same in models:
                having = [setting for setting in same if setting.statistic(column.tag)]
                if (floor := level(having, column, which)) is None:
                    continue
                floors.append(told(column, floor, of_mean=True))
                compared += len(having)
                failed += [setting for setting in having if not is_above(setting, column, floor)]
            if not compared:
                continue
            here = f"{column.header} ({' or '.join(dict.fromkeys(floors))})"
            if not failed:
                above.append(here)
            elif len(failed) == compared:
                below.append(f"{here} in no setting")
            else:
                which_ones = names.some(failed)
                below.append(f"{here} in all but {len(failed)} of {compared} settings ({which_ones})")
        told_above = [f"{few(above, len(above))} in every setting"] if above else []
        if parts := [*told_above, *below]:
            said.append((f"Above {name}:", f" {'; '.join(parts)}."))
    return said
