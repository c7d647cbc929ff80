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
from fmvae.common.text import one_line, short
from fmvae.config.stored import to_yaml
from fmvae.errors import (
    ConfigError,
    FmvaeError,
    HeldError,
    Pruned,
    RunError,
    UnmeasuredError,
    may_pass,
    of_the_machine,
)
from fmvae.runs.directory import find_runs
from fmvae.runs.files import write_bytes
from fmvae.sweeps.directory import SweepDirectory, progress
from fmvae.sweeps.record import Record, Trial, chosen, read_studies, write_study
from fmvae.sweeps.run import WriteReport, report
from fmvae.sweeps.status import summary
from fmvae.sweeps.study import JOB, RUN, Study

BEST = "optimization_results.yaml"  # named as Hydra's own sweepers name it
Outcome = Sequence[float] | Exception  # the values of a trial's objectives, or why it has none
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Outcome]]
log = logging.getLogger("fmvae")


class Prepared(NamedTuple):
    """The job of a trial: its overrides, the name of its run, and all that its value depends on, by dotted key."""

    overrides: Sequence[str]
    run: str
    settings: Mapping[str, Any]


Prepare = Callable[[Mapping[str, Any]], Prepared]


class Limits(NamedTuple):
    """How long a search goes on.

    Args:
        total: trials in all, over all repetitions of the command; those that fail don't count. None: no limit.
        trials: of this command, None for all that are left until ``total``; one of the two is given.
        at_a_time: trials that are chosen together, for launchers that run several.
        failing: share of these that may fail; if more do, the search ends.
    """

    total: int | None
    trials: int | None
    at_a_time: int
    failing: float

    def left(self, study: Study) -> int:
        done = len(study.of_state("COMPLETE", "PRUNED"))
        limits = [self.trials] if self.total is None else [self.trials, max(self.total - done, 0)]
        return min(limit for limit in limits if limit is not None)


def run_search(
    study: Study, folder: Path, names: Sequence[str], limits: Limits, launch: Launch, prepare: Prepare
) -> RunError | None:
    """Launch trials until the limits are reached; return why the search ended early or in vain, or None.

    Args:
        folder: of the search; the record and the best values are written into it.
        names: of the objectives.
        launch: runs jobs; its arguments are the overrides of each job, and the number of the first job.
        prepare: returns the job of a trial with these values; raises FmvaeError if its config is wrong.

    Raises:
        FmvaeError: the launcher stopped, or no trial could have a value.
    """
    left, launched, succeeded, failures = limits.left(study), 0, 0, []
    while left > 0:
        trials = study.ask(min(left, limits.at_a_time))
        states, postponed = [], None
        for trial, outcome in _run(study, trials, launched, launch, prepare):
            states.append(_settle(study, trial, outcome, len(names)))
            failures += [outcome] if states[-1] == "FAIL" else []
            if states[-1] == "WAITING":
                postponed = postponed or _postponed(outcome)
        if postponed:
            with suppress(OSError):  # of a full disk, which is said already; the study has it all
                _write_record(study, folder, names)
            return postponed
        left, launched = left - len(trials), launched + len(trials)
        succeeded += len(trials) - states.count("FAIL")
        _write_record(study, folder, names)
        if states.count("FAIL") > limits.failing * len(trials):
            problem = f"{states.count('FAIL')} of {len(trials)} trials failed, the last with: {_said(failures)}"
            way_out = "correct it and repeat the command, or allow more with hydra.sweeper.max_failure_rate=1"
            return RunError(short(folder), problem, way_out)
    _write_record(study, folder, names, importances=True)
    if launched and not succeeded:
        problem = f"none of {launched} trials is complete, the last failed with: {_said(failures)}"
        return RunError(short(folder), problem, "correct it, and repeat the command")
    return None


def _postponed(outcome: Outcome) -> RunError:
    """Return why a trial has no value yet, so that it is the first of the next command."""
    if isinstance(outcome, HeldError):  # of a process that an interrupted search left behind
        return RunError(outcome.subject, outcome.problem, "repeat the command when it has ended")
    assert isinstance(outcome, Exception)
    error = outcome if isinstance(outcome, FmvaeError) else of_the_machine(outcome)
    assert error
    return RunError(
        error.subject, error.problem, f"{error.way_out}, and repeat the command to continue the search"
    )


def _said(failures: Sequence[Outcome]) -> str:
    last = failures[-1]
    return one_line(str(last)) if isinstance(last, Exception) else f"{list(last)} is no value"


def _run(
    study: Study, trials: Sequence[Any], launched: int, launch: Launch, prepare: Prepare
) -> list[tuple[Any, Outcome]]:
    """Run a job for each different run of the trials, and return what became of each trial."""
    outcomes: dict[int, Outcome] = {}
    jobs: dict[str, Prepared] = {}
    runs: dict[int, str] = {}
    for trial in trials:
        try:
            job = prepare(trial.params)
        except FmvaeError as error:
            log.error("fmvae: error: %s", error)
            outcomes[trial.number] = error
            continue
        study.begin(trial.params, job.settings)
        trial.set_user_attr(RUN, job.run)
        trial.set_user_attr(JOB, -1 if job.run in jobs else launched + len(jobs))
        runs[trial.number], jobs[job.run] = job.run, jobs.get(job.run, job)
    if jobs:
        try:
            ended = launch([job.overrides for job in jobs.values()], launched)
        except FmvaeError:
            raise
        except Exception as error:  # of a launcher, whose worker was killed
            problem = f"the launcher stopped ({one_line(str(error)) or type(error).__name__})"
            raise RunError("hydra.launcher", problem, "repeat the command to continue the search") from error
        by_run = dict(zip(jobs, ended, strict=True))
        outcomes |= {number: by_run[run] for number, run in runs.items()}
    return [(trial, outcomes[trial.number]) for trial in trials]


def _settle(study: Study, trial: Any, outcome: Outcome, number: int) -> str:
    """Tell the study what became of a trial; return its state."""
    if isinstance(outcome, HeldError | UnmeasuredError) or (isinstance(outcome, OSError) and may_pass(outcome)):
        study.put_back(trial)
        return "WAITING"
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
        tuple(study.importances(place) for place in range(len(names))) if importances else (),
    )
    name = study.optuna.study_name
    if not importances and (before := read_studies(folder).get(name)):
        record = record._replace(importances=before.importances)
    write_study(folder, name, record)
    best = [{"params": trial.params, "values": trial.values} for trial in _best(study)]
    if len(names) > 1:
        told: dict[str, Any] = {"name": "optuna", "study": name, "solutions": best}
    elif best:
        told = {"name": "optuna", "study": name, "best_params": best[0]["params"]}
        told["best_value"] = best[0]["values"][0]
    else:
        return
    write_bytes(folder / BEST, to_yaml(told).encode())


def _best(study: Study) -> list[Any]:
    """Return the best trial; of several objectives, the Pareto front; none if no trial is complete."""
    return study.optuna.best_trials if study.of_state("COMPLETE") else []


def conclude(folder: Path, record: Record | None, write_report: WriteReport) -> None:
    """Write the report on the runs in a folder, and print the state of each run and the best of the search.

    Of several objectives, those are printed that no other trial surpasses in all of them.
    """
    try:
        runs = find_runs(folder)
    except ConfigError:  # no trial has begun one
        runs = []
    if runs:
        report(SweepDirectory(folder), write_report)
        say(summary(SweepDirectory(folder), {}, [progress(run) for run in runs]))
    best = {trial.run: trial for trial in record.trials if trial.number in record.front} if record else {}
    for trial in sorted(best.values(), key=lambda trial: trial.values):
        assert record is not None
        kind = "Pareto front" if len(record.objectives) > 1 else "best"
        told = ", ".join(f"{name}: {v:.4f}" for name, v in zip(record.objectives, trial.values, strict=True))
        say(f"  {kind} {told} with {', '.join(chosen(trial))}, {short(folder / trial.run)}")
    say("" if best else "  no trial is complete\n")
