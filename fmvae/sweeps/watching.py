"""Say while a sweep runs which run it is at, and about how long it will take."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fmvae.common import streams
from fmvae.common.command import say
from fmvae.runs.timing import Pace
from fmvae.sweeps.directory import Plan, SweepDirectory
from fmvae.sweeps.outlook import Outlook, Standing, outlook
from fmvae.sweeps.status import look

PERIOD = 2.0  # seconds between two looks
SHARE = 0.02  # of the time, at most, that looking may take; it counts with thousands of runs
REDRAWN = 5.0  # seconds between two tables of ``status --watch``
TO_TOP, CLEAR_BELOW = "\x1b[H", "\x1b[J"


class Sight:
    """Looks at the runs of a sweep again and again; what has ended is not read a second time.

    Args:
        waiting: the names of the runs to be launched.
        paces: of earlier runs.
    """

    def __init__(
        self,
        sweep: SweepDirectory,
        plans: Mapping[str, Plan],
        waiting: Sequence[str],
        paces: Mapping[str, Pace],
    ):
        self.plans, self.paces = plans, paces
        self.runs = {name: sweep.run(name) for name in waiting}
        self.before = {name: run.read_status() for name, run in self.runs.items()}
        self._ended: dict[str, Standing] = {}

    def now(self) -> Outlook:
        standings = []
        for name, run in self.runs.items():
            standing = self._ended.get(name)
            if standing is None:
                plan = self.plans[name]
                standing = Standing.of(run, plan.epochs, plan.pace, self.before[name])
                if standing.ended:
                    self._ended[name] = standing
            standings.append(standing)
        return outlook(standings, ended_before=len(self.plans) - len(standings), paces=self.paces)


@contextmanager
def watched(sight: Sight, *, bar: bool) -> Iterator[None]:
    """Say inside, from a thread, where the sweep is: in a bar, or in a line whenever a run has begun or ended.

    Args:
        bar: whether a bar may be shown: if the runs are in this process, as others would write into it.
    """
    ended = threading.Event()
    show = _in_a_bar if bar and streams.bars_shown() else _in_lines
    thread = threading.Thread(target=_watch, args=(sight, show(sight), ended), name="fmvae-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(sight: Sight, show: Callable[[Outlook | None], None], ended: threading.Event) -> None:
    pause = PERIOD
    while not ended.wait(pause):
        begun = time.perf_counter()
        show(sight.now())
        pause = max(PERIOD, (time.perf_counter() - begun) / SHARE)
    show(None)


def _in_lines(sight: Sight) -> Callable[[Outlook | None], None]:
    told = None

    def show(now: Outlook | None) -> None:
        nonlocal told
        if now is None or not now.running:
            return
        stage = (now.ended, now.running, now.seconds is None)
        if stage != told:
            told = stage
            say(now)

    return show


def _in_a_bar(sight: Sight) -> Callable[[Outlook | None], None]:
    bar = streams.new_bar(lasting=True, desc="sweep", total=len(sight.plans), bar_format=streams.NUMBERED)

    def show(now: Outlook | None) -> None:
        if now is None:
            bar.close()
            return
        bar.set_description_str(streams.fitted(str(now), streams.AROUND_NUMBERED), refresh=False)
        bar.n = now.ended
        bar.refresh()

    return show


def watch_status(folder: Path, every: float = REDRAWN) -> None:
    """Print the status of a sweep again and again until all its runs have ended, or Ctrl-C.

    On a terminal, each table replaces the one before, cut to the height of the terminal. Elsewhere, a table is
    printed whenever it has changed, without escape codes.

    Raises:
        FmvaeError: the folder holds no runs, and none are planned in it.
    """
    printed, terminal = "", streams.is_terminal(sys.stdout)
    try:
        while True:
            begun = time.perf_counter()
            table, ended = look(folder)
            if table != printed:
                say(on_screen(table) if terminal else table)
                printed = table
            if ended:
                return
            time.sleep(max(every, (time.perf_counter() - begun) / SHARE))
    except KeyboardInterrupt:
        return


def on_screen(table: str) -> str:
    """Return a table that replaces what a terminal shows; long lines end in …, those without room are counted."""
    size = streams.size(sys.stdout)
    lines = table.split("\n")
    room = max(2, size.lines - 2)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"  ... and {len(lines) - room + 1} more lines: make the window higher"]
    cut = (streams.cut_line(line, size.columns) for line in lines)
    return TO_TOP + "\n".join(f"{line}\x1b[K" for line in cut) + CLEAR_BELOW
