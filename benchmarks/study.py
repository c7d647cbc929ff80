"""Time a whole sweep without FID and figures, start-up included: as stacks, and one run after another.

python -m benchmarks.study [--experiments baseline,conv_z10] [--seeds 3] [--epochs 6] [--device cuda]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.sides import print_times, ratio, record
from fmvae.config.project import PROJECT_ROOT

EXPERIMENTS = "baseline,wide_latent,conv_z10,conditional_z2,beta_vae"
LAUNCHERS = ("stacked", "basic")


def study(launcher: str, *settings: str) -> tuple[float, int]:
    """Run the sweep ``vae_study`` with these settings; return the seconds and the peak GPU memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder, "peak")
        command = [sys.executable, "-m", "benchmarks.with_peak", peak, "train.py", "sweep=vae_study"]
        fixed = [f"hydra/launcher={launcher}", f"output_root={folder}/outputs", "evaluation=fast", "figures=none"]
        start = time.perf_counter()
        subprocess.run([*command, *fixed, *settings], cwd=PROJECT_ROOT, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start, int(peak.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", default=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, help="an epoch; all if not given")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    settings = [f"experiment={given.experiments}", f"seed=range({given.seeds})", f"device={given.device}"]
    settings += [f"trainer.epochs={given.epochs}"]
    if given.images:
        settings += [f"data.num_train={given.images + 200}", "data.val_size=200", "data.num_test=200"]
    runs = given.seeds * len(given.experiments.split(","))
    name = f"{runs} runs of {given.experiments.replace(',', ', ')}, {given.epochs} epochs each"
    times: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for launcher in LAUNCHERS:
        seconds, peaks[launcher] = study(launcher, *settings)
        times[launcher] = [seconds]
        ratios = {"stacked / basic": ratio(times, *LAUNCHERS)} if len(times) == len(LAUNCHERS) else {}
        case = {"times": times, "ratios": ratios, "peaks": peaks}
        record("study", {"cases": {name: case}}, torch.device(given.device))
        print(f"{launcher}: {seconds:.1f} s", flush=True)
    print_times(name, times)


if __name__ == "__main__":
    main()
