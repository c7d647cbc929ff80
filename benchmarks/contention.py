"""Time a training beside other trainings on the same CPU cores.

    python -m benchmarks.contention [--others 0,1,2,8] [--models base] [--images 5000] [--rounds 5]

Sides, which take turns beside the same others:

- ours: as ``train.py`` sets it up, with torch's number of threads (fmvae/common/contention.py);
- spinning: the same without the watch, so that threads wait as OpenMP's default has them;
- sleeping: without the watch, with ``OMP_WAIT_POLICY=PASSIVE``;
- one: ``threads=1``.

The others are plain loops with torch's own settings, as people run them, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.sides import Side, print_times, ratio, record
from benchmarks.training import Work, in_memory, ours
from fmvae.common import contention

SIDES = ("ours", "spinning", "sleeping", "one")
ADAPT = 1.0  # seconds beside the others before a side is timed
TIMED = 5.5  # seconds for which ``ours`` is timed at least: its threads sleep for some seconds and then try again


def epoch(side: str, *case: Any) -> Work:
    if side != "ours":
        contention.watch = lambda: None  # in a process of its own
    trained = ours(*case, *(["threads=1"] if side == "one" else []))

    def timed() -> float:
        """Train for a while, so that the watch sees the others; return the seconds of an epoch after that."""
        start = time.perf_counter()
        while time.perf_counter() < start + ADAPT:
            trained()
        start, epochs = time.perf_counter(), 0
        while epochs == 0 or (side == "ours" and time.perf_counter() < start + TIMED):
            trained()
            epochs += 1
        return (time.perf_counter() - start) / epochs

    return timed


def other(ready: Any, go: Any, *case: Any) -> None:
    work = in_memory(*case)
    work()
    ready.release()
    go.wait()
    while True:
        work()


def started(side: str, *case: Any) -> Side:
    """Start a side; OpenMP reads its policy when torch is loaded, so it must be in the environment before."""
    if side == "sleeping":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        return Side(epoch, side, *case)
    finally:
        os.environ.pop("OMP_WAIT_POLICY", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", default="0,1,2,8")
    parser.add_argument("--models", default="base")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=5000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cases, context = {}, multiprocessing.get_context("spawn")
    for model in given.models.split(","):
        case = (model, given.batch, given.images)
        for number in map(int, given.others.split(",")):
            ready, go = context.Semaphore(0), context.Event()
            others = [context.Process(target=other, args=(ready, go, *case), daemon=True) for _ in range(number)]
            try:
                with ExitStack() as stack:
                    sides = {name: stack.enter_context(started(name, *case)) for name in SIDES}
                    for process in others:
                        process.start()
                    for _ in others:
                        assert ready.acquire(timeout=120), "another training did not begin"
                    go.set()
                    times: dict[str, list[float]] = {name: [] for name in SIDES}
                    for _ in range(given.rounds):
                        for name, side in sides.items():
                            times[name].append(side.seconds())
            finally:
                for process in others:
                    if process.is_alive():
                        process.kill()
                        process.join()
            name = f"{model}, batch {given.batch}, beside {number} others"
            print_times(name, times)
            ratios = {f"{side} / one": ratio(times, side, "one") for side in SIDES if side != "one"}
            print("  " + ", ".join(f"{pair} {value:.2f}" for pair, value in ratios.items()), flush=True)
            cases[name] = {"times": times, "ratios": ratios}
            record("contention", {"cases": cases})


if __name__ == "__main__":
    main()
