"""A search: choose runs by the results of those before, launch them, and keep a record. Does not depend on Hydra.

To continue a search, repeat its command. The record (search.json) is what the report shows; it needs no Optuna.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fmvae.common.command import say
from fmvae.common.text import short
from fmvae.config.stored import to_yaml
from fmvae.errors import Pruned, RunError
from fmvae.experiments.search_target import directions, names_of, objectives
from fmvae.runs.directory import find_runs
from fmvae.runs.files import write_bytes
from fmvae.sweeps.directory import SweepDirectory, progress
from fmvae.sweeps.record import Record, Trial, surpassed, write_study
from fmvae.sweeps.run import WriteReport, report
from fmvae.sweeps.status import summary
from fmvae.sweeps.study import JOB, RUN, Study

BEST = "optimization_results.yaml"  # named as Hydra's own sweepers name it
Outcome = Sequence[float] | Exception  # the values of a trial's objectives, or why it has none
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Outcome]]
log = logging.getLogger("fmvae")


class Limits(NamedTuple):
    """How long a search goes on.

    Args:
        total: trials in all, over all repetitions of the command; those that fail don't count. None: no limit.
        trials: of this command, None for all that are left until ``total``.
        at_a_time: trials that are chosen together, for launchers that run several.
        failing: share of these that may fail; if more do, the search ends.
    """

    total: int | None
    trials: int | None
    at_a_time: int
    failing: float

    def left(self, study: Study) -> int:
        done = len(study.of_state("COMPLETE", "PRUNED"))
        most = math.inf if self.total is None else max(self.total - done, 0)
        return int(min(most, math.inf if self.trials is None else self.trials))


def run_search(
    study: Study,
    folder: Path,
    fixed: Sequence[str],
    names: Sequence[str],
    limits: Limits,
    launch: Launch,
    name_of: Callable[[Sequence[str]], str],
) -> None:
    """Launch trials until the limits are reached.

    Args:
        folder: of the search; the record and the best values are written into it.
        fixed: overrides of all trials.
        names: of the objectives.
        launch: runs jobs; its arguments are the overrides of each job, and the number of the first job.
        name_of: returns the name of the run of a job's overrides; empty if they can't be composed.

    Raises:
        RunError: too many trials failed at a time.
    """
    left, launched = limits.left(study), 0
    while left > 0:
        trials = study.ask(min(left, limits.at_a_time))
        jobs = []
        for number, trial in enumerate(trials, launched):
            jobs.append([*(f"{key}={value}" for key, value in trial.params.items()), *fixed])
            trial.set_user_attr(JOB, number)
            trial.set_user_attr(RUN, name_of(jobs[-1]))
        outcomes = launch(jobs, launched)
        failed = [
            outcome
            for trial, outcome in zip(trials, outcomes, strict=True)
            if _settle(study, trial, outcome, len(names)) == "FAIL"
        ]
        _write_record(study, folder, names)
        if len(failed) > limits.failing * len(trials):
            problem = f"{len(failed)} of {len(trials)} trials failed, the last with: {failed[-1]}"
            way_out = "correct it and repeat the command, or allow more with hydra.sweeper.max_failure_rate=1"
            raise RunError(short(folder), problem, way_out)
        left, launched = left - len(trials), launched + len(trials)
    _write_record(study, folder, names, importances=True)


def _settle(study: Study, trial: Any, outcome: Outcome, number: int) -> str:
    """Tell the study what became of a trial; return its state."""
    if isinstance(outcome, Pruned):
        state, values = "PRUNED", None
    elif isinstance(outcome, Exception) or len(outcome) != number or not all(map(math.isfinite, outcome)):
        state, values = "FAIL", None
    else:
        state, values = "COMPLETE", outcome
    study.tell(trial, values, state)
    return state


def _write_record(study: Study, folder: Path, names: Sequence[str], *, importances: bool = False) -> None:
    """Write search.json, and the best values of the study. Importances take seconds, so they are for the end."""
    trials = (
        Trial(
            trial.number,
            trial.state.name.lower(),
            trial.user_attrs.get(RUN, ""),
            trial.params,
            tuple(trial.values or ()) if trial.state.name == "COMPLETE" else (),
        )
        for trial in study.optuna.get_trials(deepcopy=False)
    )
    record = Record(
        tuple(names),
        tuple(each.name.lower() for each in study.optuna.directions),
        str(study.sampler["_target_"]).rpartition(".")[2],
        tuple(trials),
        tuple(trial.number for trial in _best(study)),
        tuple(study.importances(place) for place in range(len(names)) if importances),
    )
    write_study(folder, study.optuna.study_name, record)
    best = [{"params": trial.params, "values": trial.values} for trial in _best(study)]
    if len(names) > 1:
        told: dict[str, Any] = {"name": "optuna", "solutions": best}
    elif best:
        told = {"name": "optuna", "best_params": best[0]["params"], "best_value": best[0]["values"][0]}
    else:
        return
    write_bytes(folder / BEST, to_yaml(told).encode())


def _best(study: Study) -> list[Any]:
    """Return the best trial; of several objectives, the Pareto front; none if no trial is complete."""
    return study.optuna.best_trials if study.of_state("COMPLETE") else []


def conclude(
    folder: Path, config: Mapping[str, Any], write_report: WriteReport, better: Sequence[str] | None = None
) -> None:
    """Write the report on the runs in a search's folder, and print the state of each run and the best one.

    Of several objectives, the runs are printed that no other run surpasses in all of them.

    Args:
        config: the search's config, which names the objectives.
        better: ``minimize`` or ``maximize`` of each objective; None takes the direction of its column.
    """
    report(SweepDirectory(folder), write_report)
    states = [progress(run) for run in find_runs(folder)]
    say(summary(SweepDirectory(folder), {}, states))
    values: dict[Path, tuple[float, ...]] = {}
    for state in states:
        if state.results:
            with suppress(RunError):  # an earlier run may lack the objective
                values[state.run.path] = objectives(config, state.results)
    names = names_of(config)
    signs = [-1 if each == "maximize" else 1 for each in better or directions(config)]
    costs = {
        path: [sign * value for sign, value in zip(signs, found, strict=True)] for path, found in values.items()
    }
    front = [path for path in values if not surpassed(costs[path], [*costs.values()])]
    front.sort(key=costs.__getitem__)
    for path in front if len(names) > 1 else front[:1]:
        told = ", ".join(f"{name}: {value:.4f}" for name, value in zip(names, values[path], strict=True))
        say(f"  {'Pareto front' if len(names) > 1 else 'best'} {told}, {short(path)}")
    say("" if front else "  no trial is complete\n")
