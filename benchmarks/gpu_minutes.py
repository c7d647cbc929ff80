"""Test and measure on a GPU whatever fits into ten minutes, the most important part first.

    python -m benchmarks.gpu_minutes [--minutes 10] [--parts tests,exact] [--results folder] [--device cpu]

Each part is a process with a share of the time; what a part leaves over goes to those after it. A part that
exceeds its share is ended, and the next one begins. Every part writes what it has measured as it goes
(``<benchmark>.json``), and its output to ``<part>.log``, so that a run that is cut off leaves the rest.

``--device cpu`` tries the parts out on a CPU with tiny sizes; its numbers mean nothing, and go to a folder apart.
This module imports no package, so that it reports whatever is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NamedTuple

from benchmarks.results_folder import RESULTS, VARIABLE

ROOT = Path(__file__).resolve().parents[1]
RESERVE = 10.0  # seconds of the whole, to end the last part and to print the summary
GRACE = 5.0  # seconds that a part has between being asked to end and being killed
ECHOED = 40  # lines of each part's log that are printed


class Part(NamedTuple):
    """A part of the ten minutes.

    Args:
        seconds: of ten minutes; the shares of parts are in proportion to these.
        command: the arguments of python.
        tiny: further arguments for a trial on a CPU.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    tiny: tuple[str, ...] = ()


def gpu_tests() -> list[str]:
    """Return the test files with tests marked ``gpu``: importing all others takes longer than these tests."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file) for file in files if "@pytest.mark.gpu\n" in file.read_text(encoding="utf-8")]


CPU = ("--device", "cpu")
PARTS = (
    Part("tests", 50, ("-m", "pytest", "-m", "gpu", "-rs", "-p", "no:cacheprovider", *gpu_tests())),
    Part(
        "exact",
        80,
        ("-m", "benchmarks.exact"),
        (*CPU, "--models", "base", "--images", "6000", "--epochs", "9"),
    ),
    Part(
        "training",
        150,
        ("-m", "benchmarks.gpu"),
        (*CPU, "--models", "base,conditional", "--images", "300", "--epochs", "2", "--rounds", "1"),
    ),
    Part(
        "stacked",
        90,
        (
            *("-m", "benchmarks.stacked", "--device", "cuda", "--models", "base,conv", "--runs", "32"),
            *("--images", "13500", "--rounds", "2"),
        ),
        (*CPU, "--models", "base", "--runs", "2", "--images", "300", "--rounds", "1"),
    ),
    Part(
        "features",
        40,
        ("-m", "benchmarks.features", "--device", "cuda", "--images", "10000", "--batches", "100", "500"),
        (*CPU, "--images", "20", "--batches", "20", "--repeats", "1"),
    ),
    Part(  # last, as it can use whatever the others leave over
        "study",
        180,
        ("-m", "benchmarks.study"),
        (*CPU, "--experiments", "baseline", "--seeds", "2", "--epochs", "1", "--images", "300"),
    ),
)


class Outcome(NamedTuple):
    """How a part ended, and the last line that it printed."""

    state: str
    seconds: float
    last_line: str


def environment(results: Path, scratch: Path) -> dict[str, str]:
    """Return the environment of a part; without a writable home, the caches of libraries go to ``scratch``."""
    found = {**os.environ, VARIABLE: str(results), "PYTHONUNBUFFERED": "1"}
    if not os.access(Path.home(), os.W_OK):
        # packages may be installed in the home directory
        found |= {"HOME": str(scratch), "PYTHONUSERBASE": site.getuserbase()}
    return found


def signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all processes that it started: ask, wait, kill."""
    if process.poll() is None:
        signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def run(part: Part, seconds: float, log: Path, variables: Mapping[str, str]) -> Outcome:
    """Run a part for at most ``seconds``; its output goes to ``log``."""
    start = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own
        )
        try:
            status = process.wait(seconds)
            state = "done" if status == 0 else f"failed, status {status}"
        except subprocess.TimeoutExpired:
            state = f"ended after its {seconds:.0f} s"
        finally:
            end(process)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    print(*lines[-ECHOED:], sep="\n", flush=True)
    return Outcome(state, time.monotonic() - start, lines[-1].strip() if lines else "")


def save(results: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Write ``gpu_minutes.json``, the outcomes so far."""
    temporary = results / ".gpu_minutes.tmp"
    temporary.write_text(
        json.dumps({name: outcome._asdict() for name, outcome in outcomes.items()}, indent=2) + "\n"
    )
    temporary.replace(results / "gpu_minutes.json")


def run_parts(parts: Sequence[Part], minutes: float, results: Path) -> dict[str, Outcome]:
    """Run the parts one after another, each with its share of the time that is left; return how they ended."""
    results.mkdir(parents=True, exist_ok=True)
    outcomes = {part.name: Outcome("not begun", 0.0, "") for part in parts}
    deadline = time.monotonic() + minutes * 60 - min(RESERVE, minutes * 6)
    with TemporaryDirectory() as scratch:
        variables = environment(results, Path(scratch))
        for i, part in enumerate(parts):
            left = deadline - time.monotonic()
            share = left * part.seconds / sum(later.seconds for later in parts[i:])
            if share <= 0:
                break
            print(f"\n--- {part.name}, at most {share:.0f} s", flush=True)
            outcomes[part.name] = Outcome("cut off", 0.0, "")
            save(results, outcomes)
            outcomes[part.name] = run(part, share, results / f"{part.name}.log", variables)
            save(results, outcomes)
    return outcomes


def summary(outcomes: Mapping[str, Outcome]) -> str:
    lines = [f"{'part':<10}{'seconds':>8}  outcome"]
    lines += [
        f"{name:<10}{outcome.seconds:8.1f}  {outcome.state}{f': {outcome.last_line}' if outcome.last_line else ''}"
        for name, outcome in outcomes.items()
    ]
    return "\n".join(lines)


def _terminate(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)  # ends the part that is running, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--parts", default=",".join(names), help="in this order")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--results", type=Path, help="a folder for the results; benchmarks/results if not given")
    given = parser.parse_args()
    if unknown := set(given.parts.split(",")) - set(names):
        parser.error(f"--parts: {', '.join(sorted(unknown))}: give some of {', '.join(names)}")
    if not given.minutes > 0:
        parser.error(f"--minutes: {given.minutes:g}: give a positive number")
    if len(set(given.parts.split(","))) < len(given.parts.split(",")):
        parser.error(f"--parts: {given.parts}: give each part once")
    signal.signal(signal.SIGTERM, _terminate)
    parts = [part for name in given.parts.split(",") for part in PARTS if part.name == name]
    if given.device == "cpu":
        parts = [part._replace(command=(*part.command, *part.tiny)) for part in parts]
    results = given.results or (RESULTS / "dry_run" if given.device == "cpu" else RESULTS)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--results: {results}: {error.strerror}: give another folder")
    outcomes = run_parts(parts, given.minutes, results.resolve())
    print(f"\n{summary(outcomes)}\n\nThe numbers are in {results}.")
    sys.exit(any(outcome.state != "done" for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
