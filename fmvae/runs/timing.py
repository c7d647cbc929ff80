"""timing.json: the seconds of each epoch and of measuring, and the time of an epoch on quiet CPU cores."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes

MOST_SECONDS = 1e9  # a longer time for an epoch is not credible
LAST_EPOCHS = 5  # a run's pace is the median of its last epochs
QUIET = 0.2  # an epoch counts as one on quiet cores if others used them for at most this share of it


class Pace(NamedTuple):
    """Seconds per epoch; ``busy`` if other processes used the CPU cores in all epochs that it was measured on."""

    seconds: float
    busy: bool


class Timing(NamedTuple):
    """The epochs of a run: the seconds of each, and the share in which other processes used the CPU cores.

    Attributes:
        measuring: the seconds that measuring and drawing took at the run's end; None before, and if a part of it
            was done by an earlier process.
    """

    seconds: list[float]
    busy: list[float]
    measuring: float | None = None

    @classmethod
    def read(cls, run: RunDirectory) -> Timing:
        """Return what timing.json says; without epochs if it is missing or damaged."""
        try:
            record = json.loads(run.timing.read_bytes())
            seconds = _numbers(record["epoch_seconds"])
            busy = _numbers(record.get("busy_share", []))
            measuring = _numbers([record[key] for key in ("measuring_seconds",) if key in record])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls([], [])
        # epochs of earlier versions have no share
        shares = [*busy, *[0.0] * (len(seconds) - len(busy))][: len(seconds)]
        return cls(seconds, shares, *measuring)

    def first(self, epochs: int) -> Timing:
        return Timing(self.seconds[:epochs], self.busy[:epochs])

    def add(self, seconds: float, busy: float) -> None:
        self.seconds.append(round(seconds, 3))
        self.busy.append(round(busy, 2))

    def write(self, run: RunDirectory) -> None:
        record: dict[str, Any] = {"epoch_seconds": self.seconds, "busy_share": self.busy}
        if self.measuring is not None:
            record["measuring_seconds"] = round(self.measuring, 1)
        write_bytes(run.timing, (json.dumps(record) + "\n").encode())

    def pace(self) -> Pace | None:
        """Return the median of the last epochs on quiet cores, or else of the last epochs; None without epochs."""
        quiet = [seconds for seconds, busy in zip(self.seconds, self.busy, strict=True) if busy <= QUIET]
        if not self.seconds:
            return None
        pace = statistics.median((quiet or self.seconds)[-LAST_EPOCHS:])
        return Pace(pace, not quiet) if 0 <= pace < MOST_SECONDS and math.isfinite(pace) else None


def _numbers(values: object) -> list[float]:
    """Return a list of finite numbers as floats; ValueError if it is none."""
    if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
        raise ValueError("not a list of numbers")
    if not all(map(math.isfinite, numbers := [float(value) for value in values])):
        raise ValueError("not finite")
    return numbers


def typical(paces: Sequence[Pace]) -> Pace:
    """Return the median of paces on quiet cores, or else of all; ``paces`` is not empty."""
    quiet = [pace.seconds for pace in paces if not pace.busy]
    return Pace(statistics.median(quiet or [pace.seconds for pace in paces]), not quiet)
