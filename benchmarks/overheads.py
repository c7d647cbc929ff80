"""Time the observers of a run (logs, checkpoints, TensorBoard) as a share of training time.

    python -m benchmarks.overheads [--epochs 6] [override ...]

It runs training as ``train.py`` does, and times the methods of the trainer and of its observers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.sides import print_times, ratio, record
from fmvae.config import compose
from fmvae.experiments.lifecycle import attempt
from fmvae.training import Trainer


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent[-1] += time.perf_counter() - start

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    given, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"trainer.epochs={given.epochs}", "evaluation=fast", "figures=none", f"output_root={folder}"]
        config = compose([*settings, *overrides])
        spent: dict[str, list[float]] = defaultdict(list)
        with attempt(config) as (_, trainer):
            assert isinstance(trainer, Trainer)
            for observer in trainer.observers:
                for name in ("on_step", "on_epoch_end"):
                    setattr(observer, name, timed(getattr(observer, name), spent["watching"]))
            trainer.begin()
            while not trainer.finished:
                spent["watching"].append(0.0)
                start = time.perf_counter()
                trainer.end_epoch(trainer._train_epoch(trainer.epoch + 1))
                spent["training"].append(time.perf_counter() - start - spent["watching"][-1])
    times = {name: values[1:] for name, values in spent.items()}  # the first epoch warms up
    print_times("An epoch", times)
    ratios = {"watching / training": ratio(times, "watching", "training")}
    print(f"  watching / training  {ratios['watching / training']:.3f}")
    record(
        "overheads",
        {"cases": {"an epoch": {"times": times, "ratios": ratios}}, "threads": torch.get_num_threads()},
    )


if __name__ == "__main__":
    main()
