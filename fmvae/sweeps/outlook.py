"""How many runs of a sweep have ended, and how long the others will take, from the files that runs write.

Times are medians, of at least two epochs or runs, so that no single epoch on busy CPU cores decides.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fmvae.common.text import roughly
from fmvae.runs.directory import RunDirectory
from fmvae.runs.timing import QUIET, Pace, Timing

FEWEST = 2  # epochs; with fewer, a run's pace is taken from the other runs


class Standing(NamedTuple):
    """How far a run is.

    Attributes:
        begun: whether a process has worked on it since the sweep was started, or since any time before.
        ended: complete, failed or interrupted.
        process: that of a run in progress, as text; empty for others.
        pace: a key that is equal for runs whose epochs take about as long.
    """

    begun: bool
    ended: bool
    process: str
    epoch: int
    epochs: int
    pace: str
    timing: Timing

    @classmethod
    def of(cls, run: RunDirectory, epochs: int, pace: str, before: Mapping[str, Any] | None = None) -> Standing:
        """Return the standing of a run, without asking for its lock.

        Args:
            epochs, pace: as planned.
            before: its status when the sweep was started; while it is the same, the run has not begun.
        """
        status = run.read_status()
        epoch, epochs = status.get("epoch") or 0, status.get("epochs") or epochs
        if not status:
            return cls(False, False, "", 0, epochs, pace, Timing([], []))
        if status == before:
            epoch = 0 if status.get("state") == "complete" else epoch  # it will be trained anew
            return cls(False, False, "", epoch, epochs, pace, Timing.read(run))
        running = status.get("state") == "running"
        process = f"{status.get('pid')} on {status.get('host')}" if running else ""
        return cls(True, not running, process, epoch, epochs, pace, Timing.read(run))


class Outlook(NamedTuple):
    """What is done of a sweep, and what remains.

    Attributes:
        seconds: until all runs have ended; None if unknown.
        with_measuring: whether they include the time to measure and draw the runs that remain.
    """

    ended: int
    running: int
    total: int
    seconds: float | None
    with_measuring: bool

    def __str__(self) -> str:
        told = f"{self.ended} of {self.total} runs have ended"
        if self.running == 1:
            told = f"run {self.ended + 1} of {self.total}"
        elif self.running:
            told = f"runs {self.ended + 1} to {self.ended + self.running} of {self.total}"
        if self.seconds is None or self.ended == self.total:
            return told
        return f"{told}, about {roughly(self.seconds)} {'' if self.with_measuring else 'of training '}left"


def steady(seconds: Sequence[float], busy: Sequence[float]) -> float | None:
    """Return the time of an epoch: the lower median of those on quiet cores, or else of all; None if too few.

    One epoch of any length does not move it beyond the other epochs' times.
    """
    quiet = [each for each, share in zip(seconds, busy, strict=True) if share <= QUIET]
    chosen = quiet if len(quiet) >= FEWEST else seconds
    return statistics.median_low(chosen) if len(chosen) >= FEWEST else None


def outlook(
    standings: Sequence[Standing], *, ended_before: int = 0, paces: Mapping[str, Pace] | None = None
) -> Outlook:
    """Return what remains of a sweep.

    Runs that share a process, as those of a stack do, take turns; their epochs' times are of each run alone.

    Args:
        standings: of the runs that were not complete when the sweep was started.
        ended_before: the number of those that were.
        paces: of earlier runs by ``Standing.pace``, for runs of which no similar one has run for long enough.
    """
    ended = sum(standing.ended for standing in standings)
    running = [standing for standing in standings if standing.begun and not standing.ended]
    measuring = [each.timing.measuring for each in standings if each.ended and each.timing.measuring is not None]
    usual = statistics.median_low(measuring) if measuring else None
    pooled, known = _by_pace(standings), dict(paces or {})
    left: list[float] = []
    for standing in standings:
        if standing.ended:
            continue
        pace = steady(standing.timing.seconds, standing.timing.busy) or pooled.get(standing.pace)
        if pace is None and standing.pace in known and not known[standing.pace].busy:
            pace = known[standing.pace].seconds
        if pace is None and standing.epoch < standing.epochs:
            left = []
            break
        left.append((pace or 0.0) * max(0, standing.epochs - standing.epoch) + (usual or 0.0))
    at_once = max(1, len({standing.process for standing in running}))
    seconds = max(sum(left) / at_once, *left) if left else None
    total = ended_before + len(standings)
    return Outlook(ended_before + ended, len(running), total, seconds, usual is not None)


def _by_pace(standings: Iterable[Standing]) -> dict[str, float]:
    """Return the time of an epoch by ``Standing.pace``, from all runs together."""
    epochs: dict[str, tuple[list[float], list[float]]] = {}
    for standing in standings:
        seconds, busy = epochs.setdefault(standing.pace, ([], []))
        seconds += standing.timing.seconds
        busy += standing.timing.busy
    found = {key: steady(*both) for key, both in epochs.items()}
    return {key: pace for key, pace in found.items() if pace is not None}
