"""What a sweep gains from two jobs of one thread side by side over one after another with two threads.

    python benchmarks/launchers.py [--rounds 3] [--jobs 6] [override ...]

Two sides, alternating in one run so that a noisy machine disturbs both alike; medians and their ratio:

- joblib: ``hydra/launcher=joblib``, two workers of one thread each;
- sequence: Hydra's basic launcher, every job with two threads.

Both train the same jobs, whole ``train.py -m`` commands from start to end; overrides replace the settings below.
Writes what it prints, with machine and versions, as JSON into benchmarks/results/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fmvae.config import PROJECT_ROOT
from fmvae.runs.provenance import provenance

RESULTS = Path(__file__).parent / "results"
JOB = ["trainer.epochs=3", "trainer.progress=false", "evaluation=fast", "figures=none", "device=cpu"]
SIDES = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1"],
    "sequence": ["threads=2"],
}


def seconds(*overrides: str) -> float:
    """One sweep, into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, PROJECT_ROOT / "train.py", "-m", *overrides, f"output_root={folder}"]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a sweep through joblib beside the same in sequence.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=6)
    given, overrides = parser.parse_known_args()

    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(given.rounds):
        for name, launcher in SIDES.items():
            times[name].append(seconds(f"seed=range({given.jobs})", *JOB, *launcher, *overrides))

    print(f"{given.jobs} jobs: {' '.join([*JOB, *overrides])}")
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"  {name:<9} {median[name]:6.1f} s  ({spread} over {given.rounds} rounds)")
    ratio = median["joblib"] / median["sequence"]
    print(f"  joblib / sequence  {ratio:.2f}")

    RESULTS.mkdir(exist_ok=True)
    settings = {"num_jobs": given.jobs, "overrides": [*JOB, *overrides], "sides": SIDES}
    report = {"times": times, "ratio": ratio, **settings, "provenance": provenance(torch.device("cpu"))}
    (RESULTS / "launchers.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
