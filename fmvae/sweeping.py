"""Bringing every run of a sweep to its end, whatever happens to the others; knows nothing of Hydra."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fmvae.common.command import say
from fmvae.errors import FmvaeError, HeldError
from fmvae.measurement import find_runs
from fmvae.runs.files import make_directory
from fmvae.runs.sweep import Plan, Progress, SweepDirectory, known_paces, progress
from fmvae.text import duration, short

Launch = Callable[[Sequence[Sequence[str]], int], object]
SHOWN = 50  # runs that a summary has lines for; more complete ones are counted
ATTEMPTS = 3  # jobs that a launcher may fail to begin, before it is the launcher
ORDER = {state: place for place, state in enumerate(("running", "failed", "partial", "new"))}  # of a status
TERMS = {"−ELBO": "neg_elbo", "objective": "objective", "accuracy": "accuracy"}  # of test results, in a summary
PATIENCE = 10.0  # seconds in which a launcher that died may still be ending its workers
KILLED = "its process ended without a word: killed, or out of memory"
log = logging.getLogger("fmvae")


def run_sweep(sweep: SweepDirectory, plans: Mapping[str, Plan], launch: Launch, restart: bool = False) -> None:
    """Launch what is not complete, and say at the end where every run stands.

    Args:
        plans: the runs by name.
        launch: runs jobs, given as the overrides of each, numbered from its second argument; may raise.
        restart: launch what is complete, too.

    Raises:
        FmvaeError: a run failed, or the launcher began none.
    """
    make_directory(sweep.path)
    sweep.add(plans)
    states = {name: progress(sweep.run(name), plan, restart=restart) for name, plan in plans.items()}
    waiting = [name for name in plans if states[name].state != "complete"]
    waiting.sort(key=lambda name: states[name].state == "failed")  # what never ran comes first
    if len(waiting) < len(plans):
        log.info("%s: %d of %d runs are complete", sweep, len(plans) - len(waiting), len(plans))
    if waiting:
        _launch_all(sweep, plans, waiting, launch)
    if waiting or _report_is_old(sweep, plans):
        write_report(sweep)
    else:
        say(f"\nreport: {short(_report(sweep))}")
    tell(sweep, plans)


def _launch_all(sweep: SweepDirectory, plans: Mapping[str, Plan], waiting: list[str], launch: Launch) -> None:
    """Launch these runs, and again those that a launcher which died with one of them did not bring to an end.

    One job is to blame: for those that ended with it, as joblib ends all workers when one is killed, or for none
    having begun. Which one shows when they are launched one at a time.

    Raises:
        Exception: the launcher's own, which begins no job at all.
    """
    first, anything_began = 0, False
    ended: list[str] = []  # with the launcher
    silent: list[str] = []  # did not begin, though alone

    def attempt(names: Sequence[str]) -> tuple[Exception | None, set[str]]:
        """The launcher's exception, and which of the runs began."""
        nonlocal first, anything_began
        before = {name: sweep.run(name).read_status() for name in names}
        problem = None
        try:
            launch([plans[name].overrides for name in names], first)
        except Exception as error:  # of the launcher: what jobs raise stays with them
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
        log.info("%s was running when another job may have been killed: again, alone", sweep.run(name))
        attempt([name])


def _report(sweep: SweepDirectory) -> Path:
    return sweep.path / "report" / "index.html"


def _report_is_old(sweep: SweepDirectory, plans: Mapping[str, Plan]) -> bool:
    """Whether there is none, or a run was measured after it was written."""
    try:
        written = _report(sweep).stat().st_mtime
        return any(sweep.run(name).results.stat().st_mtime > written for name in plans)
    except OSError:
        return True


def write_report(sweep: SweepDirectory) -> None:
    """The page on all runs of the folder. What keeps it from being written is said, and spoils no run."""
    from fmvae.report.sweep import write_report as page_of  # brings matplotlib

    try:
        say(f"\nreport: {short(page_of([sweep.path]))}")
    except (FmvaeError, OSError) as error:
        log.warning("no report: %s", error)


def note_killed(sweep: SweepDirectory, names: Sequence[str], patience: float = 0) -> list[str]:
    """Those of the runs that lost their process; so many seconds are given to those that are held still."""
    gone: list[str] = []
    until = time.monotonic() + patience
    while True:
        gone += [name for name in names if note_if_killed(sweep, name)]
        running = [name for name in names if sweep.run(name).read_status().get("state") == "running"]
        if not running or time.monotonic() >= until:
            return gone
        time.sleep(0.1)


def note_if_killed(sweep: SweepDirectory, name: str) -> bool:
    """Whether a run that says it is running, though nobody holds it, lost its process; its status then says so."""
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
    """Say where every run stands.

    Raises:
        FmvaeError: a run failed.
    """
    states = [progress(sweep.run(name), plan) for name, plan in plans.items()]
    say(summary(sweep, plans, states))
    failed = sum(state.state not in ("complete", "running") for state in states)
    if failed:
        problem = f"{failed} of {len(states)} runs failed"
        raise FmvaeError(sweep, problem, "see their lines above; the same command tries them again")


def summary(sweep: SweepDirectory, plans: Mapping[str, Plan], states: Sequence[Progress]) -> str:
    """A sweep as a table for the terminal: what is not complete always, complete runs if they are not too many."""
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    shown = [state for state in states if state.state != "complete" or len(states) <= SHOWN]
    rows, varied = [], differing(plans)
    for state in shown:
        name, said = state.run.path.name, ""
        if state.results:
            test = state.results["test"]
            said = "  ".join(f"{term} {test[key]:.2f}" for term, key in TERMS.items() if key in test)
        elif state.state == "failed":
            said = f"{state.error} (see {state.run}/{state.run.log.name})"
        elif state.state == "running":
            said = f"held by {state.run.holder()}"
        rows.append((name, varied.get(name, ""), state.state, said))
    return "\n".join(["", f"{sweep}: {told}", "", *aligned(rows), ""])


def forecast(sweep: SweepDirectory, plans: Mapping[str, Plan], root: Path, restart: bool = False) -> str:
    """What a sweep would do, as a table: each run, where it stands, and the time that its training will take.

    Args:
        root: the folder of sweeps and runs whose times are known.
        restart: what is complete would be trained anew.
    """
    paces, varied = known_paces(root), differing(plans)
    states = [progress(sweep.run(name), plan, paces, restart) for name, plan in plans.items()]
    rows = [(s.run.path.name, varied[s.run.path.name], s.state, _epochs(s), _time(s)) for s in states]
    lines = ["", f"{sweep}: {len(states)} run{'s' * (len(states) != 1)}", "", *aligned(rows), ""]
    known = [state.seconds_left for state in states if state.seconds_left is not None]
    if known:
        lines.append(f"  {duration(sum(known))} of training, one run after the other")
    if unknown := len(states) - len(known):
        lines.append(f"  {unknown} of unknown time: none like them has finished an epoch in {short(root)}")
    return "\n".join([*lines, ""])


def forecast_run(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The same of a single run."""
    root = Path(config["output_root"])
    plan = dict([Plan.of(config, overrides, "")])
    return forecast(SweepDirectory(root / (config["sweep_name"] or "")), plan, root, config["restart"])


def status(folder: Path) -> str:
    """Where a sweep stands, as a table: for another terminal, while it runs. Complete runs are counted.

    Raises:
        FmvaeError: the folder holds no runs, and none were asked of it.
    """
    sweep = SweepDirectory(folder)
    plans = sweep.planned()
    runs = [sweep.run(name) for name in plans]
    if not plans or any(folder.glob("*/config.yaml")):  # some may have been put here by another command
        runs += [run for run in find_runs(folder) if run.path.name not in plans]
    paces, varied = known_paces(folder.resolve().parent), differing(plans)
    states = [progress(run, plans.get(run.path.name), paces) for run in runs]
    rows = [
        (
            s.run.path.name,
            varied.get(s.run.path.name, ""),
            s.state,
            _epochs(s),
            s.error if s.state == "failed" else _time(s),
        )
        for s in sorted(states, key=lambda s: ORDER.get(s.state, len(ORDER)))
        if s.state != "complete"
    ]
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    lines = ["", f"{sweep}: {told}", "", *aligned(rows)]
    left = [state.seconds_left for state in states if state.state not in ("complete", "failed")]
    if left and None not in left:
        at_once = max(1, counts["running"])
        total = sum(seconds for seconds in left if seconds is not None) / at_once
        lines.append(f"\n  about {duration(total)} of training left, {at_once} at a time")
    return "\n".join([*lines, ""])


def _epochs(state: Progress) -> str:
    return f"epoch {state.epoch} of {state.epochs}" if state.epochs else ""


def _time(state: Progress) -> str:
    if state.seconds_left is None:
        return "unknown"
    return "" if state.state == "complete" else duration(state.seconds_left)


def differing(plans: Mapping[str, Plan]) -> dict[str, str]:
    """By run, the overrides that not all runs share: what its name may not show."""
    if not plans:
        return {}
    shared = set.intersection(*(set(plan.overrides) for plan in plans.values()))
    return {
        name: " ".join(override for override in plan.overrides if override not in shared)
        for name, plan in plans.items()
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [("  " + "  ".join(row)).rstrip() for row in cells]
