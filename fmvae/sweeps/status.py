"""Tables for the terminal with the state of each run of a sweep, read from run directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmvae.common.text import duration, one_line, short
from fmvae.config.shorthand import shortened
from fmvae.evaluation.columns import in_table_order
from fmvae.runs.directory import find_runs
from fmvae.runs.results import columns_in, flat_scalars
from fmvae.runs.timing import Timing
from fmvae.sweeps.directory import Plan, Progress, SweepDirectory, known_paces, progress
from fmvae.sweeps.outlook import Standing, outlook

SHOWN = 50  # a summary of more runs only counts the complete ones
ORDER = {
    state: place for place, state in enumerate(("running", "failed", "partial", "new", "pruned"))
}  # of the lines in a status


def summary(sweep: SweepDirectory, plans: Mapping[str, Plan], states: Sequence[Progress]) -> str:
    """Return a table of a sweep's runs. Complete runs are only counted if there are more than ``SHOWN`` runs."""
    shown = [state for state in states if state.state != "complete" or len(states) <= SHOWN]
    return "\n".join([*_heading(sweep, states), *_ends(shown, differing(plans)), ""])


def _heading(sweep: SweepDirectory, states: Sequence[Progress]) -> list[str]:
    counts = Counter(state.state for state in states)
    return ["", f"{sweep}: {', '.join(f'{number} {state}' for state, number in counts.items())}", ""]


def _ends(states: Sequence[Progress], varied: Mapping[str, str]) -> list[str]:
    """Return a line for each run: how it has ended, or who works on it."""
    rows = []
    for state in states:
        name, said = _name(state), ""
        if state.results:
            said = _terms(state.results)
        elif state.state == "failed":
            said = f"{state.error} (see {state.run}/{state.run.log.name})".lstrip()
        elif state.state == "pruned":
            said = f"{state.error.partition('; ')[0]} (to finish it: see {state.run.status.name})"
        elif state.state == "running":
            said = f"held by {one_line(state.run.holder())}"
        rows.append((name, varied.get(state.run.path.name, ""), state.state, said))
    return aligned(rows)


def _name(state: Progress) -> str:
    return one_line(state.run.path.name)


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
    if known and (told := _about(sum(known), any(map(_is_rough, states)))):
        lines.append(f"  {told} of training, one run after the other")
    if unknown := len(states) - len(known):
        lines.append(f"  {unknown} of unknown time: no similar run in {short(root)} has finished an epoch")
    return "\n".join([*lines, *_rough(states), ""])


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

    Below the line of a failed run is the reason. If all have ended, the numbers of the complete runs follow, if
    there are at most ``SHOWN`` runs. It may be called while the sweep runs.

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
    unfinished = sorted(
        (state for state in states if state.state != "complete"),
        key=lambda state: ORDER.get(state.state, len(ORDER)),
    )
    rows = [
        (_name(s), s.state, _epochs(s), _at(s), varied.get(s.run.path.name, "")) for s in unfinished
    ]  # overrides are last, as narrow terminals cut lines
    lines = _heading(sweep, states)
    for line, state in zip(aligned(rows), unfinished, strict=True):
        lines += [line, f"    {state.error}"] if state.error else [line]
    remaining = [state for state in unfinished if state.state not in ("failed", "pruned")]
    if remaining:
        lines += ["", *_rough(remaining), f"  {outlook([_standing(s, plans) for s in states], paces=paces)}"]
    elif len(states) <= SHOWN:
        ended = _ends([state for state in states if state.state == "complete"], varied)
        lines += ["", *ended] if ended and unfinished else ended
    return "\n".join([*lines, ""]), not remaining


def _standing(state: Progress, plans: Mapping[str, Plan]) -> Standing:
    """Return where a run stands. A run counts as running if a process holds it now."""
    plan, status = plans.get(state.run.path.name), state.run.read_status()
    process = f"{status.get('pid')} on {status.get('host')}" if state.state == "running" else ""
    ended = state.state in ("complete", "failed", "pruned")
    pace = plan.pace if plan else state.run.path.name
    timing = Timing.read(state.run)
    return Standing(bool(process), ended, process, state.epoch, state.epochs, pace, timing)


def _terms(results: Mapping[str, Any]) -> str:
    """Return the numbers in a run's line as text; for a classifier, its test accuracy."""
    numbers, columns = flat_scalars(results), [c for c in columns_in(results) if "status" in c.places]
    told = [
        f"{one_line(column.header)} {numbers[column.tag]:.{column.digits}f}" for column in in_table_order(columns)
    ]
    return "  ".join(told or [f"accuracy {numbers[tag]:.2f}" for tag in ("test/accuracy",) if tag in numbers])


def _epochs(state: Progress) -> str:
    return f"epoch {state.epoch} of {state.epochs}" if state.epochs else ""


def _at(state: Progress) -> str:
    """Return what a run does after training, or else the time left of that; empty if it has ended."""
    return "" if state.state in ("failed", "pruned") else state.phase or _time(state)


def _time(state: Progress) -> str:
    """Return the time left of a run's training; empty if none is left."""
    if state.seconds_left is None:
        return "unknown"
    return _about(state.seconds_left, state.busy)


def _about(seconds: float, busy: bool) -> str:
    """Return a time as text, with a ~ if it was measured on busy cores; empty for no time."""
    return f"{'~' * busy}{duration(seconds)}" if seconds else ""


def _is_rough(state: Progress) -> bool:
    return _time(state).startswith("~")


def _rough(states: Iterable[Progress]) -> list[str]:
    """Return what the ~ of a time means, in one line for all; no line if no run has such a time."""
    told = "  ~ was measured while other processes used the CPU cores, and may be shorter"
    return [told] if any(map(_is_rough, states)) else []


def differing(plans: Mapping[str, Plan]) -> dict[str, str]:
    """Return, by name of run, the overrides that not all runs share. The name may not show them."""
    if not plans:
        return {}
    shared = set.intersection(*(set(plan.overrides) for plan in plans.values()))
    return {
        name: one_line(" ".join(shortened(each) for each in plan.overrides if each not in shared))
        for name, plan in plans.items()
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [("  " + "  ".join(row)).rstrip() for row in cells]
