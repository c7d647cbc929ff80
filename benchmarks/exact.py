"""Compare the bytes of runs on a GPU: a run twice, and interrupted runs that were resumed with the run left alone.

    python -m benchmarks.exact [--models base,conv] [--epochs 15] [--images 54000] [--device cuda]

- twice: the same run again;
- boundary: killed after some epochs, and resumed from the last epoch's checkpoint;
- within: stopped by SIGTERM within an epoch, and resumed from that step.

The exit status is 1 if any file differs, or an interruption could not be tried.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks.sides import record
from fmvae.config.project import PROJECT_ROOT

LAST = "checkpoints/last.safetensors"
COMPARED = ("metrics.jsonl", "results.json", LAST, "checkpoints/best.safetensors")
STOPPED = "checkpoints/stopped.safetensors"  # of a run that was stopped within an epoch
ATTEMPTS = 4  # to stop a run within an epoch, and not while a checkpoint is written
LIMIT = 120  # seconds that a run may take to reach an epoch


class Chain:
    """Processes that train one run in a folder, one after another.

    Args:
        folder: the run's ``output_root``.
        settings: overrides for ``train.py``.
    """

    def __init__(self, folder: Path, settings: list[str]):
        self.folder, self.settings = folder, settings
        folder.mkdir()

    @property
    def run(self) -> Path:
        """The run's directory."""
        (run,) = [path.parent for path in self.folder.glob("*/config.yaml")]
        return run

    @property
    def saved(self) -> int:
        """When the last checkpoint of an epoch was written, in ns; 0 before the first."""
        found = list(self.folder.glob(f"*/{LAST}"))
        try:
            return found[0].stat().st_mtime_ns if found else 0
        except FileNotFoundError:
            return 0

    @property
    def peak(self) -> int:
        """Peak GPU memory of the process that finished last, in bytes."""
        return int((self.folder / "peak").read_text(encoding="utf-8"))

    def start(self) -> subprocess.Popen[str]:
        # in a file, as a pipe that nobody reads would block the process
        output = open(self.folder / "output", "w", encoding="utf-8")  # noqa: SIM115
        command = [sys.executable, "-m", "benchmarks.with_peak", self.folder / "peak", "train.py"]
        with output:
            return subprocess.Popen(
                [*command, *self.settings, f"output_root={self.folder}"],
                cwd=PROJECT_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    def finish(self) -> str:
        """Train to the end; return what the process printed."""
        process = self.start()
        if process.wait() != 0:
            raise RuntimeError((self.output().strip() or "no output").splitlines()[-1])
        return self.output()

    def interrupt(self, epochs: int, number: int, delay: float) -> bool:
        """Start, and send a signal ``delay`` seconds after further epochs; return whether it ended the run."""
        before = self.saved
        process, end = self.start(), time.monotonic() + LIMIT
        while process.poll() is None and epochs and time.monotonic() < end:
            time.sleep(0.001)
            if (saved := self.saved) != before:
                before, epochs = saved, epochs - 1
        time.sleep(delay)
        if process.poll() is None:
            os.kill(process.pid, number)
        return process.wait() != 0


def left_alone(chain: Chain) -> str:
    chain.finish()
    return ""


def killed(chain: Chain) -> str:
    if not chain.interrupt(3, signal.SIGKILL, 0.01):
        return "not tried: it ended before it could be killed"
    return "" if "resuming" in chain.finish() else "not tried: it began anew"


def stopped_within(chain: Chain) -> str:
    for attempt in range(ATTEMPTS):
        # another moment each time: while files are written, a stop waits for the end of the epoch
        if not chain.interrupt(2, signal.SIGTERM, 0.02 * (attempt + 1)):
            return "not tried: it ended before it could be stopped within an epoch"
        if (chain.run / STOPPED).exists():
            return "" if re.search(r"after step \d+", chain.finish()) else "not tried: it began the epoch anew"
    return "not tried: it was always stopped between epochs"


CHAINS: dict[str, Callable[[Chain], str]] = {
    "alone": left_alone,
    "twice": left_alone,
    "boundary": killed,
    "within": stopped_within,
}


def attempted(what: Callable[[Chain], str], chain: Chain) -> tuple[str, float]:
    """Return what went wrong with a chain, and the seconds that it took."""
    start = time.perf_counter()
    try:
        problem = what(chain)
    except (RuntimeError, ValueError, OSError) as error:
        problem = f"failed: {error}"
    return problem, time.perf_counter() - start


def differences(run: Path, other: Path) -> str:
    """Return a comparison of two runs' files: ``equal``, or the names of those that differ."""
    contents = [
        [path.read_bytes() if (path := folder / name).exists() else None for name in COMPARED]
        for folder in (run, other)
    ]
    found = [
        name for name, ours, theirs in zip(COMPARED, *contents, strict=True) if ours != theirs or ours is None
    ]
    return f"DIFFERENT: {', '.join(found)}" if found else "equal"


def compared(settings: list[str], workers: int) -> dict[str, dict]:
    """Run all chains, so many at a time, and compare each with the run that was left alone."""
    with tempfile.TemporaryDirectory() as folder:
        chains = {name: Chain(Path(folder, name), settings) for name in CHAINS}
        with ThreadPoolExecutor(workers) as pool:
            work = [partial(attempted, what, chains[name]) for name, what in CHAINS.items()]
            outcomes = dict(zip(CHAINS, pool.map(lambda one: one(), work), strict=True))
        reference = outcomes["alone"][0]
        checks = {"alone": reference} if reference else {}
        for name in list(CHAINS)[1:]:
            problem = outcomes[name][0] or reference
            checks[name] = problem or differences(chains[name].run, chains["alone"].run)
        return {
            "times": {name: [seconds] for name, (_, seconds) in outcomes.items()},
            "ratios": {},
            "peaks": {} if reference else {"alone": chains["alone"].peak},
            "checks": checks,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="base,beta,conv,conditional_conv")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--images", type=int, default=54_000, help="an epoch")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    # each is a process with the libraries of a GPU, which take several threads
    workers = max(1, min(len(CHAINS), (os.cpu_count() or 1) // 2))
    cases: dict[str, dict] = {}
    for model in given.models.split(","):
        settings = [f"model={model}", f"trainer.epochs={given.epochs}", f"device={given.device}", "threads=1"]
        settings += [f"data.num_train={given.images + 500}", "data.val_size=500", "data.num_test=500"]
        settings += ["evaluation=fast", "figures=none"]
        case = cases[f"{model}, {given.epochs} epochs of {given.images} images"] = compared(settings, workers)
        record("exact", {"cases": cases}, torch.device(given.device))
        print(f"{model}: {json.dumps(case['checks'])}", flush=True)
    said = [check for case in cases.values() for check in case["checks"].values()]
    print(f"{said.count('equal')} of {len(said)} comparisons are equal")
    sys.exit(said.count("equal") < len(said))


if __name__ == "__main__":
    main()
