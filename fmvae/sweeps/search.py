"""The study of a search with Optuna: one file in the sweep's folder. See conf/hydra/sweeper/optuna.yaml.

To continue a search, repeat its command.
"""

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
    """Open the database of a study, and hold a lock on it until this process ends.

    Trials that an earlier process left unfinished are queued again with their parameters, and their runs resume.

    Raises:
        HeldError: another process holds the lock.
        RunError: the file is not a database.
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
        raise RunError(path, problem, "move it away, and repeat the command to begin a new study") from None
    for study in database.get_all_study_summaries():
        for trial in database.get_all_trials(study._study_id, states=(TrialState.RUNNING,)):
            database.set_trial_state(trial._trial_id, TrialState.WAITING)
    return database


def trials_left(path: str, study_name: str, total: int) -> int:
    """Return how many trials a study still needs until ``total`` of them have succeeded."""
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
    """Write the report on the runs in a search's folder, and print the state of each run and the best one.

    Args:
        config: the search's config, which names the objective.
        better: ``minimize`` or ``maximize``; None takes the direction of the objective's column.
    """
    report(SweepDirectory(folder), write_report)
    states = [progress(run) for run in find_runs(folder)]
    say(summary(SweepDirectory(folder), {}, states))
    values: dict[Path, float] = {}
    for state in states:
        if state.results:
            with suppress(RunError):  # an earlier run may lack the objective
                values[state.run.path] = objective(config, state.results)
    if values:
        best = (max if (better or direction(config)) == "maximize" else min)(values, key=values.__getitem__)
        say(f"  best {config['objective']}: {values[best]:.4f}, {short(best)}\n")
