"""A search's study: one file in the sweep's folder, which the same command continues. See conf/hydra/sweeper."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmvae.common.command import say
from fmvae.common.text import short
from fmvae.errors import RunError
from fmvae.experiments import objective
from fmvae.experiments.search_target import direction
from fmvae.runs.directory import RunDirectory, find_runs
from fmvae.sweeps.directory import SweepDirectory, progress
from fmvae.sweeps.run import WriteReport, report
from fmvae.sweeps.status import summary

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


def storage(path: str) -> RDBStorage:
    """The database of a study, held by this process until it ends.

    Trials that another process left unfinished are asked for again, with their parameters: their runs resume.

    Raises:
        RunError: another process holds it, or it is no database.
    """
    from optuna.storages import RDBStorage
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError

    held = RunDirectory(Path(path)).held()
    held.__enter__()
    atexit.register(held.__exit__, None, None, None)
    try:
        database = RDBStorage(f"sqlite:///{path}")
    except SQLAlchemyError as error:
        problem = f"not a study's database ({str(error.__cause__ or error).splitlines()[0]})"
        raise RunError(path, problem, "move it aside; the same command begins a new study") from None
    for study in database.get_all_study_summaries():
        for trial in database.get_all_trials(study._study_id, states=(TrialState.RUNNING,)):
            database.set_trial_state(trial._trial_id, TrialState.WAITING)
    return database


def trials_left(path: str, study_name: str, total: int) -> int:
    """How many trials a study still needs until it has ``total`` that succeeded."""
    import optuna

    try:
        study = optuna.load_study(study_name, f"sqlite:///{path}")
    except (KeyError, OSError):
        return total
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return max(total - len(done), 0)


def conclude(
    folder: Path, config: Mapping[str, Any], write_report: WriteReport, better: str | None = None
) -> None:
    """Write the report on the runs in a search's folder, say where each stands, and which is best.

    Args:
        config: the search's, which names the objective.
        better: ``minimize`` or ``maximize``; None asks the objective's column.
    """
    report(SweepDirectory(folder), write_report)
    states = [progress(run) for run in find_runs(folder)]
    say(summary(SweepDirectory(folder), {}, states))
    values: dict[Path, float] = {}
    for state in states:
        if state.results:
            with suppress(RunError):  # finished earlier, and that was not measured
                values[state.run.path] = objective(config, state.results)
    if values:
        best = (max if (better or direction(config)) == "maximize" else min)(values, key=values.__getitem__)
        say(f"  best {config['objective']}: {values[best]:.4f}, {short(best)}\n")
