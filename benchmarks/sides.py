"""What benchmarks share: sides that take turns in processes of their own, and the record of what they took."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fmvae.runs.provenance import provenance

RESULTS = Path(__file__).parent / "results"
Build = Callable[..., Callable[[], Any]]


class Side:
    """One side in a process of its own, with its own threads and settings, that does its work when asked.

    Args:
        build: makes, from the arguments, the work: a function of nothing; its time counts, ``build``'s doesn't.
    """

    def __init__(self, build: Build, *arguments: object):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # not a daemon: loaders have children
        self.process = context.Process(target=_serve, args=(theirs, build, arguments))
        self.process.start()
        theirs.close()  # so that a side that fails is an error here, not silence

    def __enter__(self) -> Side:
        self.seconds()  # warm up
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.pipe.send("end")
        self.process.join()

    def seconds(self) -> float:
        self.pipe.send("work")
        return self.pipe.recv()


def _serve(pipe: Connection, build: Build, arguments: tuple) -> None:
    work = build(*arguments)
    while pipe.recv() == "work":
        start = time.perf_counter()
        work()
        pipe.send(time.perf_counter() - start)


def take_turns(sides: Mapping[str, Callable[[], Side]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each side in each round; they alternate, so that a noisy machine disturbs all alike."""
    with ExitStack() as stack:
        begun = {name: stack.enter_context(make()) for name, make in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in begun}
        for _ in range(rounds):
            for name, side in begun.items():
                times[name].append(side.seconds())
    return times


def ratio(times: Mapping[str, list[float]], numerator: str, denominator: str) -> float:
    """The median over rounds of one side's time over another's."""
    return statistics.median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def print_times(what: str, times: Mapping[str, list[float]]) -> None:
    """A line for each side: the median, and the range."""
    print(what)
    for name, values in times.items():
        print(f"  {name:<12}{statistics.median(values):8.3f} s  ({min(values):.3f} to {max(values):.3f})")


def record(name: str, content: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Write ``results/<name>.json``: the numbers, and the machine, versions and commit that they are of."""
    RESULTS.mkdir(exist_ok=True)
    whole = {**content, "provenance": provenance(device or torch.device("cpu"), {})}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
