"""Notice that other processes use this process's CPU cores, and let its waiting threads sleep while they do.

Between two parallel operations, OpenMP's threads spin for some milliseconds in order to start at once. If there
are more such threads than free cores, they take the cores from the threads that they wait for. Threads that sleep
at once do not, but start later on quiet cores. So they spin on quiet cores and sleep on busy ones
(``python -m benchmarks.contention``). The number of threads stays the same, and so does every result.
"""

from __future__ import annotations

import atexit
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
WORTH_A_LINE = 2  # times that busy cores are found after which the log mentions them
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
        self._threads = [
            threading.Thread(target=self._sleep, name="fmvae-sleeper", daemon=True) for _ in range(self.number)
        ]
        for thread in self._threads:
            thread.start()

    def _sleep(self) -> None:
        torch.zeros(self.threads * CHUNK).add_(1)  # makes the team
        self.ended.wait()

    def end(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()


class Watch:
    """A thread that looks every ``PERIOD`` seconds whether the cores are busy with other processes.

    With more threads than cores, the process waits for itself, and the cores never count as busy.

    Attributes:
        threads: number of torch's threads. It is set from outside, as a thread does not see it change.
        told: for how many seconds it has watched, and for how many of them the cores were busy, or the threads
            slept because the cores had been busy.
        process: the id of the process; threads do not survive a fork.
    """

    def __init__(self) -> None:
        self.threads, self.process = torch.get_num_threads(), os.getpid()
        self.told = (0.0, 0.0)
        self.sleepers: Sleepers | None = None
        self._busy_looks, self._asleep_since = 0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fmvae-watch", daemon=True)
        self._thread.start()
        # a thread that is in one of torch's operations when the interpreter ends aborts the process
        atexit.register(self.end)

    def _run(self) -> None:
        before, then = waited() or {}, time.monotonic()
        while not self._ended.wait(PERIOD):
            now, found = time.monotonic(), waited()
            if found is None:
                break
            waiting = sum(seconds - before.get(name, seconds) for name, seconds in found.items())
            self.saw(waiting, now - then)
            before, then = found, now

    def saw(self, waiting: float, passed: float) -> None:
        """Take in that the process's threads waited for a core for ``waiting`` of the last ``passed`` seconds.

        Args:
            waiting: summed over the threads.
        """
        seconds, busy_seconds = self.told
        seconds, cores = seconds + passed, len(os.sched_getaffinity(0))
        asleep = self.sleepers is not None  # waiting tells little then: waking takes time on quiet cores, too
        busy = not asleep and self.threads <= cores and waiting / passed / self.threads > BUSY
        if busy and not any(name in os.environ for name in CHOSEN):
            self.sleepers, self._asleep_since = Sleepers(self.threads, cores), seconds
        elif self.sleepers is not None and seconds - self._asleep_since >= ASLEEP:
            self.sleepers.end()
            self.sleepers = None
        self._busy_looks += busy
        if busy and self._busy_looks == WORTH_A_LINE and self.threads > 1:
            log.warning(
                "other processes are using the CPU cores of this one, so it takes longer than it would alone; "
                "threads=1 leaves cores to them"
            )
        self.told = seconds, busy_seconds + passed * (busy or asleep)  # at once, as another thread reads it

    def end(self) -> None:
        """End all threads, and wait for them; in a fork, which has none of them, do nothing."""
        if self.process == os.getpid():
            self._ended.set()
            self._thread.join()
            if self.sleepers is not None:
                self.sleepers.end()


_watch: Watch | None = None


def watch() -> Watch | None:
    """Return the watch of this process, started at the first call; None where the system does not tell.

    Call it again when the number of threads has changed.
    """
    global _watch
    if _watch is None or _watch.process != os.getpid():
        _watch = Watch() if waited() is not None else None
    if _watch is not None:
        _watch.threads = torch.get_num_threads()
    return _watch


class BusyShare:
    """The share of the time since its last reading that the cores were busy, in [0, 1].

    It is the one before if the watch has not looked since, and 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self._told, self._share = self._now(), 0.0

    @staticmethod
    def _now() -> tuple[float, float]:
        found = watch()
        return found.told if found else (0.0, 0.0)

    def read(self) -> float:
        (seconds, busy), self._told = self._told, self._now()
        if (passed := self._told[0] - seconds) > 0:
            self._share = (self._told[1] - busy) / passed
        return self._share
