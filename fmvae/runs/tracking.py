"""Hand what a run reports to the user's tracker, beside TensorBoard: in a thread, and never at the run's expense.

``Recorder`` and ``Album`` decide what is reported; a ``Tracker`` only takes it.
"""

from __future__ import annotations

import contextvars
import json
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fmvae.common import locks
from fmvae.errors import Pruned, Terminated
from fmvae.runs.files import make_directory, write_bytes

FILE = "tracker.json"  # in the directory of a run or sweep: what the tracker calls it, and the last epoch sent
PATIENCE = 30.0  # seconds that the end of a run waits for one call of its tracker, at most
LONGEST_WAIT = 180.0  # seconds that it waits in all, while the tracker makes progress
LONGEST = 200  # signs of an error in the warning
MOST_WAITING = 10_000  # reports that wait for a tracker which does not answer
State = Literal["running", "complete", "interrupted", "failed"]
Setting = bool | float | str
log = logging.getLogger("fmvae")


@dataclass(frozen=True)
class Tracked:
    """A run, or the folder of a sweep, as a tracker sees it.

    Attributes:
        name: of the run or sweep.
        path: its directory.
        home: the folder of runs and sweeps, for files of the tracker's own.
        settings: every setting that can change a trained bit, flat; empty for a sweep.
        sweep: the name of the sweep that the run belongs to; None without one.
        id: what ``begin`` returned for it earlier, to go on there; None at first.
        parent: what ``begin`` returned for its sweep; None without one.
    """

    name: str
    path: Path
    home: Path
    settings: Mapping[str, Setting]
    sweep: str | None = None
    id: str | None = None
    parent: str | None = None


class Tracker(ABC):
    """Where a run is reported to. Its methods are called in one thread, in order, and may raise anything.

    An error costs a warning: the tracker is then not called again for this run, which is trained as if nothing
    had happened. A method that hangs is left alone at the end of the run.
    """

    @property
    def place(self) -> str:
        """Return a name for where runs are kept, as a server. In another place, a run has another id."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def prepare(self) -> None:  # noqa: B027 (optional, as are all but begin and scalars)
        """Import what takes long."""

    @abstractmethod
    def begin(self, run: Tracked) -> str:
        """Begin a run, or go on with the one that is called ``run.id``; return what it is called."""

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers by tag at ``step``, the epoch: those of an epoch, or the final ones of the best."""

    def picture(self, name: str, png: bytes, step: int) -> None:  # noqa: B027
        """Take a figure that was drawn during training, at ``step``, the epoch."""

    def file(self, path: Path, name: str) -> None:  # noqa: B027
        """Take a file: final figures, results.json, a page. ``name`` is relative, as ``figures/samples.png``."""

    def end(self, state: State) -> None:  # noqa: B027
        """End the run for now. ``running``: other processes go on with it."""


class Reporter:
    """A run's connection to its tracker. Its methods return at once; a thread calls the tracker.

    Args:
        make: makes a tracker, also a second one, for the run's sweep.
        run: without ids, which are read from the directories of the run and of its sweep, and kept there.
    """

    def __init__(self, make: Callable[[], Tracker], run: Tracked):
        self.run, self._make = run, make
        self.tracker = make()
        self.failed = False
        self._progress = time.monotonic()
        self._sent = 0
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        context = contextvars.copy_context()  # warnings go into this run's log
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="tracker", daemon=True)
        self._put(self._begin)

    # --- what is reported: by Recorder and Album -----------------------------------------------------------------

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        """Report the numbers of an epoch; no-op if the tracker has them from before the run was resumed."""

        def send() -> None:
            if step > self._sent:
                self.tracker.scalars(values, step)
                self._sent = step
                self._keep()

        self._put(send)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Report the final numbers of the checkpoint of epoch ``step``."""
        self._put(lambda: self.tracker.scalars(values, step))

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Report a figure drawn in training; no-op for epochs from before the run was resumed."""
        self._put(lambda: self.tracker.picture(name, png, step) if step >= self._sent else None)

    def file(self, path: Path) -> None:
        """Report a file in the run's directory."""
        self._put(lambda: self.tracker.file(path, path.relative_to(self.run.path).as_posix()))

    # --- the thread ----------------------------------------------------------------------------------------------

    def close(self, state: State, patience: float = PATIENCE) -> None:
        """End the run in its tracker; wait for what is not sent yet, ``patience`` seconds at most for one call."""
        self._put(lambda: self.tracker.end(state))
        self._put(None)
        if not self._thread.is_alive():
            return
        self._progress = begun = time.monotonic()
        while self._thread.is_alive() and not self.failed:
            self._thread.join(0.05)
            if time.monotonic() > min(self._progress + patience, begun + LONGEST_WAIT):
                self._give_up(f"no answer for {time.monotonic() - self._progress:.1f} s")

    def _put(self, call: Callable[[], None] | None) -> None:
        if self.failed:
            return
        if not self._thread.is_alive() and not self._thread.ident:
            self._thread.start()
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            self._give_up(f"{MOST_WAITING} reports wait for its answer")

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            if self.failed:
                return
            try:
                call()
                self._progress = time.monotonic()
            except BaseException as error:  # SystemExit as well, of a library
                if not self.failed:
                    self._give_up(f"{type(error).__name__}: {error}")
                return

    def _give_up(self, why: str) -> None:
        self.failed = True
        where, told = self.tracker.place, " ".join(why.split())[:LONGEST]
        log.warning(
            "%s: the tracker %s failed, and gets nothing more (%s); the run goes on", self.run.name, where, told
        )

    def _begin(self) -> None:
        run = self.run
        self.tracker.prepare()
        self._progress = time.monotonic()
        with _one_at_a_time(run.home):
            if run.sweep:
                run = replace(run, parent=self._parent(run))
                self._progress = time.monotonic()
            known = _kept(run.path).get(self.tracker.place, {})
            found = self.tracker.begin(replace(run, id=known.get("id")))
        self._id, self._sent = found, known.get("epoch", 0) if found == known.get("id") else 0
        self._keep()

    def _parent(self, run: Tracked) -> str:
        """Return what the run's sweep is called; begin it if it is not known."""
        sweep = replace(run, name=str(run.sweep), path=run.path.parent, settings={}, sweep=None)
        known = _kept(sweep.path).get(self.tracker.place, {}).get("id")
        if known:
            return known
        tracker = self._make()
        tracker.prepare()
        found = tracker.begin(sweep)
        _keep(sweep.path, self.tracker.place, {"id": found})
        tracker.end("running")
        return found

    def _keep(self) -> None:
        _keep(self.run.path, self.tracker.place, {"id": self._id, "epoch": self._sent})


@contextmanager
def reporting(make: Callable[[], Tracker] | None, run: Tracked) -> Iterator[Reporter | None]:
    """Yield the reporter of a run, and close it with the state in which the block ends; None without a tracker."""
    if make is None:
        yield None
        return
    reporter = Reporter(make, run)
    state: State = "failed"
    try:
        yield reporter
        state = "complete"
    except (KeyboardInterrupt, Terminated, Pruned):
        state = "interrupted"
        raise
    finally:
        reporter.close(state)


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Let one process or thread begin at a time: a sweep begins once, and a local store is made once."""
    folder = home / ".locks"
    make_directory(folder)
    with locks.held(folder / "tracker.lock", "leave out tracker=", PATIENCE) as lock:
        if lock is None:
            raise TimeoutError("another run waits for the tracker")
        yield


def _kept(folder: Path) -> dict[str, Any]:
    """Return what is kept of a run or sweep, by the tracker's place; nothing if the file is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / FILE).read_bytes())
        if isinstance(found, dict):
            return {place: entry for place, entry in found.items() if isinstance(entry, dict)}
    return {}


def _keep(folder: Path, place: str, entry: Mapping[str, Any]) -> None:
    known = _kept(folder)
    if known.get(place) != entry:
        write_bytes(folder / FILE, (json.dumps({**known, place: entry}, indent=2) + "\n").encode())


def now() -> int:
    """Return the time in milliseconds."""
    return int(time.time() * 1000)
