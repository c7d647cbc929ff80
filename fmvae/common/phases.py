"""Say which part of the work is going on, and how far it is: a bar on a terminal, lines with times in a log.

Whatever takes more than a few seconds, other than training itself, runs inside a ``phase``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fmvae.common import streams

SHORT = 1.0  # seconds; a minor phase that takes less has no line in the log
log = logging.getLogger("fmvae")


class Phase:
    """A phase in progress.

    Attributes:
        what: its name on a terminal.
    """

    def __init__(self, what: str, total: int | None, done: int, style: dict[str, Any]):
        self.what = what
        self._bar = streams.new_bar(desc=streams.fitted(what), total=total, initial=done, **style)

    def now(self, part: str) -> None:
        """Name the part that begins."""
        self._bar.set_description_str(streams.fitted(f"{self.what}: {part}"))

    def advance(self, number: int = 1) -> None:
        """Count units of ``total`` that are done."""
        self._bar.update(number)

    def close(self) -> None:
        self._bar.close()


@contextmanager
def phase(
    what: str,
    total: int | None = None,
    *,
    done: int = 0,
    detail: str = "",
    minor: bool = False,
    counted: bool = False,
    bar: bool = True,
) -> Iterator[Phase]:
    """Show a phase while the block runs, and log its time when it has ended without an error.

    Args:
        what: a few words; about 30 signs fit into a narrow terminal.
        total: how many units of work there are, if known; the block calls ``advance`` for each.
        done: units that an earlier process has done.
        detail: what the log's line adds to ``what``.
        minor: leave the line out of the log if the phase is short.
        counted: show how many units are done, and no time left, as they take different times.
        bar: False only logs the time, of a part of another phase.
    """
    begun = time.perf_counter()
    style: dict[str, Any] = {"bar_format": streams.COUNTED} if counted else {}
    current = Phase(what, total, done, style if bar else {"hidden": True})
    try:
        yield current
    finally:
        current.close()
    seconds = time.perf_counter() - begun
    if not minor or seconds >= SHORT:
        # a terminal has shown the bar instead
        log.info("  %s%s: %.1f s", what, detail, seconds, extra={streams.HAD_A_BAR: True})
