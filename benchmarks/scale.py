"""Time the report, the status and a repeated command for a sweep of thousands of complete runs.

    python benchmarks/scale.py [--runs 5000]

The runs are copies of one small real run, with the names and digests of other seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fmvae.config.composing import composed_by
from fmvae.config.project import PROJECT_ROOT
from fmvae.config.stored import read_config, to_yaml
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record, write_record
from fmvae.runs.provenance import git_state, processor_name
from fmvae.sweeps.directory import Plan, SweepDirectory

SMALL = ["data=fashion_mnist_small", "trainer.epochs=1", "evaluation=fast"]
COPIED = ("metrics.jsonl", "status.json", "timing.json")


def fixed(outputs: Path) -> list[str]:
    """Return the command-line overrides that all runs of the sweep share."""
    return [*SMALL, f"output_root={outputs}", "sweep_name=scale"]


def make(outputs: Path, num: int) -> None:
    """Create a sweep of ``num`` complete runs."""
    subprocess.run([sys.executable, "train.py", *fixed(outputs), "seed=0"], check=True, capture_output=True)
    sweep = SweepDirectory(outputs / "scale")
    (first,) = (RunDirectory(path.parent) for path in sweep.path.glob("*/config.yaml"))
    results = read_record(first.results)
    samples = (first.figures / "samples.png").read_bytes()
    config = read_config(first.config)
    composed, plans = composed_by("train", "hydra.mode=MULTIRUN"), {}
    for seed in range(num):
        config["seed"] = seed
        overrides = [f"seed={seed}", *fixed(outputs)]
        name, plan = Plan.of(config, overrides, composed)
        plans[name] = plan
        run = sweep.run(name)
        run.figures.mkdir(parents=True, exist_ok=True)
        run.config.write_text(to_yaml(config))
        (run.figures / "samples.png").write_bytes(samples)
        for file in COPIED:
            (run.path / file).write_bytes((first.path / file).read_bytes())
        test = {**results["test"], "neg_elbo": results["test"]["neg_elbo"] + seed / num}
        write_record(run.results, {**results, "run": name, "config_sha256": plan.config_sha256, "test": test})
    sweep.add(plans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        make(outputs, given.runs)
        commands = {
            "report": ["-m", "fmvae.report", str(outputs / "scale")],
            "status": ["-m", "fmvae.report", "status", str(outputs / "scale")],
            "again": ["train.py", "-m", f"seed=range(0,{given.runs})", *fixed(outputs)],
        }
        seconds = {}
        for name, command in commands.items():
            start = time.perf_counter()
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=PROJECT_ROOT)
            seconds[name] = time.perf_counter() - start
            assert done.returncode == 0, done.stderr
            assert name != "again" or "training " not in done.stdout, done.stdout
            print(f"  {name:<8}{seconds[name]:6.1f} s")
    record = {"runs": given.runs, "seconds": seconds, "processor": processor_name(torch.device("cpu"))}
    record |= {"git": git_state(), "python": platform.python_version()}
    target = Path(__file__).parent / "results"
    target.mkdir(exist_ok=True)
    (target / "scale.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
