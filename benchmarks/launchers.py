"""Time a sweep of six jobs with each local launcher, relative to one job after another.

    python -m benchmarks.launchers [--rounds 3] [--jobs 6] [override ...]

Three sides take turns in one run, so that noise affects all alike; prints medians and their ratios:

- joblib: ``hydra/launcher=joblib``, two workers of one thread each;
- stacked: ``hydra/launcher=stacked``, one process with two threads;
- sequence: Hydra's basic launcher, every job with two threads.

All train the same jobs with complete ``train.py -m`` commands; overrides replace the settings below.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.sides import print_times, ratio, record
from fmvae.config.project import PROJECT_ROOT

JOB = ["trainer.epochs=3", "trainer.progress=false", "evaluation=fast", "figures=none", "device=cpu"]
SIDES = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1"],
    "stacked": ["hydra/launcher=stacked", "threads=2"],
    "sequence": ["threads=2"],
}


def seconds(*overrides: str) -> float:
    """Time one sweep in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, PROJECT_ROOT / "train.py", "-m", *overrides, f"output_root={folder}"]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=6)
    given, overrides = parser.parse_known_args()

    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(given.rounds):
        for name, launcher in SIDES.items():
            times[name].append(seconds(f"seed=range({given.jobs})", *JOB, *launcher, *overrides))
    print_times(f"{given.jobs} jobs: {' '.join([*JOB, *overrides])}", times)
    ratios = {f"{name} / sequence": ratio(times, name, "sequence") for name in SIDES if name != "sequence"}
    case = {"times": times, "ratios": ratios, "overrides": [*JOB, *overrides], "sides": SIDES}
    record("launchers", {"cases": {f"{given.jobs} jobs of 3 epochs": case}})


if __name__ == "__main__":
    main()
