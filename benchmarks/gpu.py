"""Time training on a GPU: steps captured in a CUDA graph, steps launched kernel by kernel, and a whole study.

    python -m benchmarks.gpu [--device cuda] [--epochs 30] [--rounds 3] [--study vae_study]

- captured: epochs of BaseVAE with validation, as ``train.py`` runs them;
- launched: the same without a graph;
- study: the runs of a named sweep without FID and figures, stacked and in sequence, including start-up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import trainer_of
from fmvae.config.project import PROJECT_ROOT
from fmvae.training.engines.cuda_graph import CUDAGraph

IMAGES = 54_000


def whole_training(model: str, device: str, epochs: int, precision: str, captured: bool) -> Callable[[], None]:
    settings = (f"device={device}", f"trainer.epochs={epochs}", f"trainer.precision={precision}")
    trainer = trainer_of(model, 128, IMAGES, *settings)
    trainer.engine = CUDAGraph(trainer, capture=device != "cpu") if captured else None

    def train() -> None:
        trainer.epoch, trainer.history = 0, []
        trainer.train()
        if device != "cpu":
            torch.cuda.synchronize()

    return train


def study(name: str, device: str, launcher: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, PROJECT_ROOT / "train.py", f"sweep={name}", f"hydra/launcher={launcher}"]
        settings = ["evaluation=fast", "figures=none", f"device={device}", f"output_root={folder}"]
        start = time.perf_counter()
        subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--study", default="vae_study")
    given = parser.parse_args()
    cases = {}
    precisions = ("fp32", "bf16") if given.device == "cpu" else ("fp32", "tf32", "bf16")
    for model in ("base", "beta", "conditional_conv"):
        case = (model, given.device, given.epochs)
        sides = {p: partial(Side, whole_training, *case, p, True) for p in precisions}
        sides["launched"] = partial(Side, whole_training, *case, "fp32", False)
        times = take_turns(sides, given.rounds)
        name = f"{model}, batch 128, {given.epochs} epochs with validation"
        print_times(name, times)
        ratios = {f"{other} / fp32": ratio(times, other, "fp32") for other in sides if other != "fp32"}
        cases[name] = {"times": times, "ratios": ratios}
        record("gpu", {"cases": cases}, torch.device(given.device))
    if given.study:
        times = {launcher: [study(given.study, given.device, launcher)] for launcher in ("stacked", "basic")}
        print_times(given.study, times)
        cases[given.study] = {"times": times, "ratios": {"stacked / basic": ratio(times, "stacked", "basic")}}
        record("gpu", {"cases": cases}, torch.device(given.device))


if __name__ == "__main__":
    main()
