"""Helpers of benchmarks: the sides of a comparison take turns in separate processes; times are recorded."""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from benchmarks.results_folder import RESULTS
from fmvae.evaluation.processor import has_bf16
from fmvae.runs.files import write_bytes
from fmvae.runs.provenance import provenance

Build = Callable[..., Callable[[], Any]]


class Used(NamedTuple):
    """What one call of a side's work used.

    Attributes:
        faults: page faults of the process, 4 KiB of new memory each.
        peak: the largest memory of the process until then, in bytes.
    """

    seconds: float
    faults: int
    peak: int


class Side:
    """One side of a comparison, in a separate process with its own threads and settings; works on request.

    Args:
        build: called with the arguments; returns the work, a function without arguments. Only calls of this
            function are timed. If it returns a number, this is taken for its seconds.
    """

    def __init__(self, build: Build, *arguments: object):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # not a daemon, as data loaders start child processes
        self.process = context.Process(target=_serve, args=(theirs, build, arguments))
        self.process.start()
        theirs.close()  # so that a failing side raises an error here instead of blocking

    def __enter__(self) -> Side:
        self.seconds()  # warm up
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.pipe.send("end")
        self.process.join()

    def seconds(self) -> float:
        return self.work().seconds

    def work(self) -> Used:
        self.pipe.send("work")
        return self.pipe.recv()

    def peak_memory(self) -> int:
        self.pipe.send("peak memory")
        return self.pipe.recv()


def _serve(pipe: Connection, build: Build, arguments: tuple) -> None:
    work = build(*arguments)
    while (asked := pipe.recv()) != "end":
        if asked == "peak memory":
            pipe.send(peak_memory())
            continue
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        told = work()
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        faults = after.ru_minflt - before.ru_minflt
        pipe.send(Used(told if isinstance(told, float) else seconds, faults, after.ru_maxrss * 1024))


def peak_memory() -> int:
    """Return the most GPU memory that this process's tensors have taken at a time, in bytes; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0


def take_turns(
    sides: Mapping[str, Callable[[], Side]], rounds: int, peaks: dict[str, int] | None = None
) -> dict[str, list[float]]:
    """Return the seconds of each side in each round; sides take turns, so that noise affects all alike.

    Args:
        peaks: takes each side's ``peak_memory``.
    """
    with ExitStack() as stack:
        begun = {name: stack.enter_context(make()) for name, make in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in begun}
        for _ in range(rounds):
            for name, side in begun.items():
                times[name].append(side.seconds())
        if peaks is not None:
            peaks |= {name: side.peak_memory() for name, side in begun.items()}
    return times


def ratio(times: Mapping[str, list[float]], numerator: str, denominator: str) -> float:
    """Return the median over rounds of the ratio of two sides' times."""
    return statistics.median(a / b for a, b in zip(times[numerator], times[denominator], strict=True))


def print_times(what: str, times: Mapping[str, list[float]]) -> None:
    """Print a line for each side with the median and the range."""
    print(what)
    for name, values in times.items():
        print(f"  {name:<12}{statistics.median(values):8.3f} s  ({min(values):.3f} to {max(values):.3f})")


def machine(device: torch.device) -> str:
    """Return the type of machine that times belong to: a GPU's name, or a CPU's instruction sets."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    sets = torch.backends.cpu.get_cpu_capability().replace("AVX512", "AVX-512")
    return f"{sets} with bfloat16 units" if has_bf16(device) else sets


def record(name: str, content: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Write ``results/<name>.json``: the numbers, with the machine, versions and commit."""
    device = device or torch.device("cpu")
    whole = {**content, "machine": machine(device), "provenance": provenance(device, {})}
    write_bytes(RESULTS / f"{name}.json", (json.dumps(whole, indent=2) + "\n").encode())
