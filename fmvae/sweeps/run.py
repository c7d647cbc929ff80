"""Run all runs of a sweep. A run that fails does not stop the others. Does not depend on Hydra."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fmvae.common.command import say
from fmvae.common.phases import phase
from fmvae.common.text import short
from fmvae.errors import FmvaeError, HeldError
from fmvae.runs.files import make_directory
from fmvae.sweeps.directory import Plan, SweepDirectory, known_paces, progress
from fmvae.sweeps.status import summary
from fmvae.sweeps.watching import Sight, watched

Launch = Callable[[Sequence[Sequence[str]], int], object]
WriteReport = Callable[[Sequence[Path]], Path]  # writes the report on the runs in folders; returns its page
ATTEMPTS = 3  # if so many jobs in turn fail to start, the launcher is at fault and not a job
PATIENCE = 10.0  # seconds that a failed launcher may need to end its workers
KILLED = "its process ended without an error message: killed, or out of memory"
log = logging.getLogger("fmvae")


def run_sweep(
    sweep: SweepDirectory,
    plans: Mapping[str, Plan],
    launch: Launch,
    write_report: WriteReport,
    restart: bool = False,
    *,
    in_process: bool = False,
) -> None:
    """Launch the runs that are not complete, then write the report and print the state of every run.

    Args:
        plans: the runs by name.
        launch: runs jobs. Its arguments are the overrides of each job, and the number of the first job. It may
            raise.
        write_report: is called with the sweep's folder when all runs have ended.
        restart: launch complete runs, too.
        in_process: the launcher starts no processes, so that the sweep may have a bar on the terminal.

    Raises:
        FmvaeError: a run failed, or the launcher started none.
    """
    make_directory(sweep.path)
    sweep.add(plans)
    states = {name: progress(sweep.run(name), plan, restart=restart) for name, plan in plans.items()}
    waiting = [name for name in plans if states[name].state != "complete"]
    waiting.sort(key=lambda name: states[name].state == "failed")  # runs that failed before come last
    if len(waiting) < len(plans):
        log.info("%s: %d of %d runs are complete", sweep, len(plans) - len(waiting), len(plans))
    if waiting:
        sight = Sight(sweep, plans, waiting, known_paces(sweep.path.resolve().parent))
        with watched(sight, bar=in_process):
            _launch_all(sweep, plans, waiting, launch)
    if waiting or _report_is_old(sweep, plans):
        report(sweep, write_report)
    else:
        say(f"\nreport: {short(_report(sweep))}")
    tell(sweep, plans)


def _launch_all(sweep: SweepDirectory, plans: Mapping[str, Plan], waiting: list[str], launch: Launch) -> None:
    """Launch these runs. If the launcher fails, launch the remaining runs again.

    A single job can make a launcher fail. It can end the jobs that run beside it (joblib ends all workers when one
    is killed), or keep any job from starting. To find this job, runs are launched one at a time.

    Raises:
        Exception: the launcher's own, if it can't start any job.
    """
    first, anything_began = 0, False
    ended: list[str] = []  # runs that were killed when the launcher failed
    silent: list[str] = []  # runs that did not start even alone

    def attempt(names: Sequence[str]) -> tuple[Exception | None, set[str]]:
        """Launch runs; return the launcher's exception, or None, and the runs that started."""
        nonlocal first, anything_began
        before = {name: sweep.run(name).read_status() for name in names}
        problem = None
        try:
            launch([plans[name].overrides for name in names], first)
        except Exception as error:  # the launcher's: a job's error does not get here
            problem = error
        first += len(names)
        gone = note_killed(sweep, names, PATIENCE if problem else 0)
        ended.extend(gone if problem else ())
        began = {name for name in names if sweep.run(name).read_status() != before[name]}
        anything_began |= bool(began)
        return problem, began

    while waiting:
        problem, began = attempt(waiting)
        if problem is None:
            break
        if began:
            log.warning("the launcher stopped (%s)", problem)
        else:
            alone = waiting[0]
            if len(waiting) > 1:
                problem, began = attempt([alone])
            if problem and not began:
                silent.append(alone)
            if not anything_began and (len(silent) == ATTEMPTS or waiting == [alone]):
                raise problem or FmvaeError(sweep, "no run began", "see the launcher's own output")
            began = {alone}
        waiting = [name for name in waiting if name not in began]
    for name in silent:
        with suppress(HeldError), sweep.run(name).held():
            make_directory(sweep.run(name).path)
            sweep.run(name).write_status("failed", error=KILLED, epoch=0)
    for name in tuple(ended) if len(ended) + len(silent) > 1 else ():
        log.info("%s was running when another job may have been killed; running it again, alone", sweep.run(name))
        attempt([name])


def _report(sweep: SweepDirectory) -> Path:
    return sweep.path / "report" / "index.html"


def _report_is_old(sweep: SweepDirectory, plans: Mapping[str, Plan]) -> bool:
    """Return whether there is no report, or a run was measured after it was written."""
    try:
        written = _report(sweep).stat().st_mtime
        return any(sweep.run(name).results.stat().st_mtime > written for name in plans)
    except OSError:
        return True


def report(sweep: SweepDirectory, write_report: WriteReport) -> None:
    """Write the report on all runs in the folder. If it can't be written, log a warning."""
    try:
        with phase("report"):
            page = write_report([sweep.path])
        say(f"\nreport: {short(page)}")
    except (FmvaeError, OSError) as error:
        log.warning("no report: %s", error)


def note_killed(sweep: SweepDirectory, names: Sequence[str], patience: float = 0) -> list[str]:
    """Mark the runs whose process was killed as failed, and return them.

    Wait ``patience`` seconds at most for runs that are still held by a process.
    """
    gone: list[str] = []
    until = time.monotonic() + patience
    while True:
        gone += [name for name in names if note_if_killed(sweep, name)]
        running = [name for name in names if sweep.run(name).read_status().get("state") == "running"]
        if not running or time.monotonic() >= until:
            return gone
        time.sleep(0.1)


def note_if_killed(sweep: SweepDirectory, name: str) -> bool:
    """Return whether a run's process was killed: its status says ``running``, but no process holds it.

    The status of such a run is set to ``failed``.
    """
    run = sweep.run(name)
    if run.read_status().get("state") != "running":
        return False
    try:
        with run.held():
            status = run.read_status()
            if status.get("state") != "running":
                return False
            run.write_status("failed", error=KILLED, epoch=status.get("epoch", 0))
            return True
    except HeldError:
        return False


def tell(sweep: SweepDirectory, plans: Mapping[str, Plan]) -> None:
    """Print the state of every run.

    Raises:
        FmvaeError: a run failed.
    """
    states = [progress(sweep.run(name), plan) for name, plan in plans.items()]
    say(summary(sweep, plans, states))
    failed = sum(state.state not in ("complete", "running") for state in states)
    if failed:
        problem = f"{failed} of {len(states)} runs failed"
        raise FmvaeError(sweep, problem, "see the lines above; repeat the command to try them again")
