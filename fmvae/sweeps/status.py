"""Tables for the terminal with the state of each run of a sweep, read from run directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmvae.common.text import duration, short
from fmvae.config.shorthand import shortened
from fmvae.evaluation.columns import in_table_order
from fmvae.runs.directory import find_runs
from fmvae.runs.results import columns_in, flat_scalars
from fmvae.runs.timing import Timing
from fmvae.sweeps.directory import Plan, Progress, SweepDirectory, known_paces, progress
from fmvae.sweeps.outlook import Standing, outlook

SHOWN = 50  # a summary of more runs only counts the complete ones
ORDER = {
    state: place for place, state in enumerate(("running", "failed", "partial", "new"))
}  # of the lines in a status


def summary(sweep: SweepDirectory, plans: Mapping[str, Plan], states: Sequence[Progress]) -> str:
    """Return a table of a sweep's runs. Complete runs are only counted if there are more than ``SHOWN`` runs."""
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    shown = [state for state in states if state.state != "complete" or len(states) <= SHOWN]
    rows, varied = [], differing(plans)
    for state in shown:
        name, said = state.run.path.name, ""
        if state.results:
            said = _terms(state.results)
        elif state.state == "failed":
            said = f"{state.error} (see {state.run}/{state.run.log.name})"
        elif state.state == "running":
            said = f"held by {state.run.holder()}"
        rows.append((name, varied.get(name, ""), state.state, said))
    return "\n".join(["", f"{sweep}: {told}", "", *aligned(rows), ""])


def forecast(sweep: SweepDirectory, plans: Mapping[str, Plan], root: Path, restart: bool = False) -> str:
    """Return a table of what a sweep would do: each run, its state, and the expected time of its training.

    Args:
        root: the folder of sweeps and runs from which times are estimated.
        restart: complete runs would be trained anew.
    """
    paces, varied = known_paces(root), differing(plans)
    states = [progress(sweep.run(name), plan, paces, restart) for name, plan in plans.items()]
    rows = [(s.run.path.name, s.state, _epochs(s), _time(s), varied[s.run.path.name]) for s in states]
    lines = ["", f"{sweep}: {len(states)} run{'s' * (len(states) != 1)}", "", *aligned(rows), ""]
    known = [state.seconds_left for state in states if state.seconds_left is not None]
    if known:
        lines.append(f"  {duration(sum(known))} of training, one run after the other")
    if unknown := len(states) - len(known):
        lines.append(f"  {unknown} of unknown time: no similar run in {short(root)} has finished an epoch")
    return "\n".join([*lines, ""])


def forecast_run(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return the forecast for a single run."""
    root = Path(config["output_root"])
    plan = dict([Plan.of(config, overrides, "")])
    return forecast(SweepDirectory(root / (config["sweep_name"] or "")), plan, root, config["restart"])


def status(folder: Path) -> str:
    """Return a table of the runs of a sweep that are not complete; see ``look``."""
    return look(folder)[0]


def look(folder: Path) -> tuple[str, bool]:
    """Return a table of the runs of a sweep that are not complete, and whether all runs have ended.

    It may be called while the sweep runs.

    Raises:
        FmvaeError: the folder holds no runs, and none are planned in it.
    """
    sweep = SweepDirectory(folder)
    plans = sweep.planned()
    runs = [sweep.run(name) for name in plans]
    if not plans or any(folder.glob("*/config.yaml")):  # another command may have added runs
        runs += [run for run in find_runs(folder) if run.path.name not in plans]
    paces, varied = known_paces(folder.resolve().parent), differing(plans)
    states = [progress(run, plans.get(run.path.name), paces) for run in runs]
    rows = [
        (
            s.run.path.name,
            s.state,
            _epochs(s),
            s.error if s.state == "failed" else _time(s),
            varied.get(s.run.path.name, ""),  # last, as narrow terminals cut lines
        )
        for s in sorted(states, key=lambda s: ORDER.get(s.state, len(ORDER)))
        if s.state != "complete"
    ]
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    lines = ["", f"{sweep}: {told}", "", *aligned(rows)]
    remaining = [state for state in states if state.state not in ("complete", "failed")]
    if remaining:
        lines.append(f"\n  {outlook([_standing(s, plans) for s in states], paces=paces)}")
    return "\n".join([*lines, ""]), not remaining


def _standing(state: Progress, plans: Mapping[str, Plan]) -> Standing:
    """Return where a run stands. A run counts as running if a process holds it now."""
    plan, status = plans.get(state.run.path.name), state.run.read_status()
    process = f"{status.get('pid')} on {status.get('host')}" if state.state == "running" else ""
    ended = state.state in ("complete", "failed")
    pace = plan.pace if plan else state.run.path.name
    timing = Timing.read(state.run)
    return Standing(bool(process), ended, process, state.epoch, state.epochs, pace, timing)


def _terms(results: Mapping[str, Any]) -> str:
    """Return the numbers in a run's line as text; for a classifier, its test accuracy."""
    numbers, columns = flat_scalars(results), [c for c in columns_in(results) if "status" in c.places]
    told = [f"{column.header} {numbers[column.tag]:.{column.digits}f}" for column in in_table_order(columns)]
    return "  ".join(told or [f"accuracy {numbers[tag]:.2f}" for tag in ("test/accuracy",) if tag in numbers])


def _epochs(state: Progress) -> str:
    return f"epoch {state.epoch} of {state.epochs}" if state.epochs else ""


def _time(state: Progress) -> str:
    if state.seconds_left is None:
        return "unknown"
    told = "" if state.state == "complete" else duration(state.seconds_left)
    return f"{told} (measured on busy CPU cores)" if told and state.busy else told


def differing(plans: Mapping[str, Plan]) -> dict[str, str]:
    """Return, by name of run, the overrides that not all runs share. The name may not show them."""
    if not plans:
        return {}
    shared = set.intersection(*(set(plan.overrides) for plan in plans.values()))
    return {
        name: " ".join(shortened(override) for override in plan.overrides if override not in shared)
        for name, plan in plans.items()
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [("  " + "  ".join(row)).rstrip() for row in cells]
