"""Notice that other processes use this process's CPU cores, and let its waiting threads sleep while they do.

Between two parallel operations, OpenMP's threads spin for some milliseconds in order to start at once. If there
are more such threads than free cores, they take the cores from the threads that they wait for: a training of two
threads was seen to take ten times as long beside others as with one thread. Threads that sleep at once are no
slower there than one thread, but on quiet cores they take up to 1.7 times as long as threads that spin. So they
spin on quiet cores and sleep on busy ones (``python -m benchmarks.contention``). The number of threads stays the
same, and so does every result.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import torch

log = logging.getLogger("fmvae")

PERIOD = 0.25  # seconds between two looks
BUSY = 0.1  # cores are busy if the threads wait for one for more than this share of the time
ASLEEP = 5.0  # seconds for which threads sleep; then they spin again, to see whether the cores are still busy
WORTH_A_LINE = 2.0  # seconds of waiting after which the log mentions it
MOST_SLEEPERS = 8
CHUNK = 2**16  # elements, more than torch gives to one thread
CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # variables by which users choose how threads wait
TASKS = Path("/proc/self/task")


def waited() -> dict[str, float] | None:
    """Return, for each thread of this process, the seconds that it was ready to run but had no core.

    None where the system does not tell; Linux does.
    """
    found = {}
    try:
        for task in TASKS.iterdir():
            try:
                found[task.name] = int((task / "schedstat").read_bytes().split()[1]) / 1e9
            except (FileNotFoundError, ProcessLookupError):  # the thread has ended
                continue
    except (OSError, ValueError, IndexError):
        return None
    return found or None


class Sleepers:
    """Threads that keep OpenMP's waiting threads from spinning for long, until ``end`` is called.

    libgomp's threads spin only briefly if it has more threads than there are cores, even if most of them are idle
    (GOMP_SPINCOUNT in its manual). Each sleeper holds a team of idle threads. Other OpenMP libraries ignore them.

    Args:
        threads: number of torch's threads.
        cores: number of cores that this process may use.
    """

    def __init__(self, threads: int, cores: int):
        self.threads, self.ended = threads, threading.Event()
        # libgomp counts the first thread of the process once, and of each team the other threads
        number = (cores - 1) // (threads - 1) if threads > 1 else 0
        self.number = number if number <= MOST_SLEEPERS else 0  # few threads find free cores among many
        for _ in range(self.number):
            threading.Thread(target=self._sleep, name="fmvae-sleeper", daemon=True).start()

    def _sleep(self) -> None:
        torch.zeros(self.threads * CHUNK).add_(1)  # makes the team
        self.ended.wait()

    def end(self) -> None:
        self.ended.set()


class Watch:
    """A thread that looks every ``PERIOD`` seconds whether the cores are busy with other processes.

    Attributes:
        seconds: how long it has watched.
        busy_seconds: for how much of that time the cores were busy, or the threads slept as they had been busy.
        process: the id of the process; threads do not survive a fork.
    """

    def __init__(self) -> None:
        self.seconds = self.busy_seconds = 0.0
        self.process = os.getpid()
        self.sleepers: Sleepers | None = None
        self._before = waited() or {}
        self._waited_seconds, self._asleep_since, self._mentioned = 0.0, 0.0, False
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="fmvae-watch", daemon=True).start()

    def _run(self) -> None:
        then = time.monotonic()
        while not self._ended.wait(PERIOD):
            now, found = time.monotonic(), waited()
            if found is None:
                break
            waiting = sum(seconds - self._before.get(name, seconds) for name, seconds in found.items())
            self._before = found
            self.saw(waiting, now - then, torch.get_num_threads())
            then = now

    def saw(self, waiting: float, passed: float, threads: int) -> None:
        """Take in that the process's threads waited for a core for ``waiting`` of the last ``passed`` seconds.

        Args:
            waiting: summed over the threads.
            threads: number of torch's threads.
        """
        self.seconds += passed
        busy = waiting / passed / threads > BUSY
        self._waited_seconds += passed * busy
        if busy and self.sleepers is None and not any(name in os.environ for name in CHOSEN):
            self.sleepers, self._asleep_since = Sleepers(threads, len(os.sched_getaffinity(0))), self.seconds
        # while threads sleep, waiting tells little: waking takes time on quiet cores, too
        if busy or self.sleepers is not None:
            self.busy_seconds += passed
        if self.sleepers is not None and self.seconds - self._asleep_since >= ASLEEP:
            self.sleepers.end()
            self.sleepers = None
        if threads > 1 and self._waited_seconds > WORTH_A_LINE and not self._mentioned:
            self._mentioned = True
            log.warning(
                "other processes are using the CPU cores of this one, so it takes longer than it would alone; "
                "threads=1 leaves cores to them"
            )

    def end(self) -> None:
        self._ended.set()
        if self.sleepers is not None:
            self.sleepers.end()


_watch: Watch | None = None


def watch() -> Watch | None:
    """Return the watch of this process, started at the first call; None where the system does not tell."""
    global _watch
    if _watch is None or _watch.process != os.getpid():
        _watch = Watch() if waited() is not None else None
    return _watch


class BusyShare:
    """The share of the time since its last reading that the cores were busy, in [0, 1]; 0 where nobody tells."""

    def __init__(self) -> None:
        self._read = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        found = watch()
        return (found.seconds, found.busy_seconds) if found else (0.0, 0.0)

    def read(self) -> float:
        (seconds, busy), self._read = self._read, self._now()
        passed = self._read[0] - seconds
        return (self._read[1] - busy) / passed if passed > 0 else 0.0
