"""Time training on a GPU: steps captured in a CUDA graph and launched kernel by kernel, in each precision.

    python -m benchmarks.gpu [--models base,beta] [--epochs 30] [--rounds 3] [--images 54000] [--device cuda]

- fp32, tf32, bf16: epochs with validation as ``train.py`` runs them, with steps captured in a CUDA graph;
- launched fp32, ...: the same without a graph.

All sides of a model are in one process, as each process of its own would import torch and set up the GPU anew. In
each round, a captured side trains its share of the epochs, and a launched one a tenth of that. Times are of an
epoch. Peak memory is that of a side alone, from its dataset to the end of its first epoch.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator

import torch

from benchmarks.sides import print_times, ratio, record
from benchmarks.training import MODELS, trainer_of
from fmvae.evaluation.processor import has_bf16
from fmvae.training.engines.cuda_graph import CUDAGraph

BATCH = 128
MIB = 2**20


class Trained:
    """A trainer that has trained for one epoch.

    Attributes:
        peak: the most memory that its tensors took so far, in bytes.
        check: why its steps are not as asked for, or an empty text.
    """

    def __init__(self, model: str, images: int, device: str, precision: str, captured: bool):
        self.on_gpu = device != "cpu"
        before = 0
        if self.on_gpu:
            torch.cuda.init()  # there are no statistics to reset before
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        self.trainer = trainer_of(
            model, BATCH, images, f"device={device}", f"trainer.precision={precision}", "trainer.patience=null"
        )
        engine = self.trainer.engine = CUDAGraph(self.trainer, capture=self.on_gpu) if captured else None
        self.seconds(1)
        self.peak = torch.cuda.max_memory_allocated() - before if self.on_gpu else 0
        fell_back = self.on_gpu and engine is not None and not engine.capture
        self.check = "its steps could not be captured" if fell_back else ""

    def seconds(self, epochs: int) -> float:
        """Train for some more epochs; return the seconds of one."""
        start = time.perf_counter()
        self.trainer.epochs = self.trainer.epoch + epochs
        self.trainer.train()
        if self.on_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / epochs


def precisions(device: str) -> Iterator[str]:
    """Yield the precisions that a device computes in; a CPU tries bf16 even if it has to emulate it."""
    yield "fp32"
    if device != "cpu":
        yield "tf32"
    if device == "cpu" or has_bf16(torch.device(device)):
        yield "bf16"


def measured(model: str, images: int, device: str, epochs: int, rounds: int) -> dict[str, dict]:
    """Time the sides of a model; a side that fails is left out, and ``checks`` says why."""
    sides: dict[str, Trained] = {}
    checks: dict[str, str] = {}
    for precision in precisions(device):
        for name, captured in ((precision, True), (f"launched {precision}", False)):
            try:
                sides[name] = Trained(model, images, device, precision, captured)
            except Exception as error:
                checks[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue
            if sides[name].check:
                checks[name] = sides[name].check
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            share = epochs / rounds / (10 if name.startswith("launched") else 1)
            times[name].append(side.seconds(max(1, round(share))))
    pairs = [(name, "fp32") for name in sides if name != "fp32" and not name.startswith("launched")]
    pairs += [(name, name.removeprefix("launched ")) for name in sides if name.startswith("launched")]
    ratios = {f"{a} / {b}": ratio(times, a, b) for a, b in pairs if b in sides}
    return {
        "times": times,
        "ratios": ratios,
        "peaks": {name: side.peak for name, side in sides.items()},
        "checks": checks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--images", type=int, default=54_000, help="an epoch")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=30, help="of each captured side, over all rounds")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cases: dict[str, dict] = {}
    for model in given.models.split(","):
        name = f"{model}, batch {BATCH}, an epoch of {given.images} images with validation"
        found = cases[name] = measured(model, given.images, given.device, given.epochs, given.rounds)
        record("gpu", {"cases": cases}, torch.device(given.device))
        print("peak memory: " + ", ".join(f"{side} {peak / MIB:.0f} MiB" for side, peak in found["peaks"].items()))
        for side, problem in found["checks"].items():
            print(f"{side}: {problem}")
        print_times(name, found["times"])
    problems = sum(len(case["checks"]) for case in cases.values())
    print(f"{len(cases)} models measured, {problems} sides not as asked for")
    sys.exit(problems > 0)


if __name__ == "__main__":
    main()
