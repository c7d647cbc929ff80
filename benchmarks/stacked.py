"""Time an epoch of several runs, trained as a stack or one after another.

python -m benchmarks.stacked [--models base,beta] [--runs 6] [--images 10000] [--device cpu] [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import trainer_of
from fmvae.errors import NumericsError
from fmvae.training.engines.stack import Stack
from fmvae.training.vae import Epoch

BATCH = {"beta": 64}


def trainers(model: str, runs: int, images: int, device: str) -> list[Any]:
    batch = BATCH.get(model, 128)
    return [
        trainer_of(model, batch, images, f"seed={seed}", f"beta={1 + seed % 4}", f"device={device}")
        for seed in range(runs)
    ]


def synchronized(work: Callable[[], None], device: str) -> Callable[[], None]:
    def whole() -> None:
        work()
        if device != "cpu":
            torch.cuda.synchronize()

    return whole


def in_sequence(*case: Any) -> Callable[[], None]:
    every = trainers(*case)

    def epoch() -> None:
        for trainer in every:
            trainer.end_epoch(trainer._train_epoch(trainer.epoch + 1))

    return synchronized(epoch, case[-1])


def as_stack(*case: Any) -> Callable[[], None]:
    stack = Stack(trainers(*case))

    def epoch() -> None:
        stack.load()
        epochs = [Epoch(trainer, trainer.epoch + 1) for trainer in stack.trainers]
        for steps in zip(*epochs, strict=True):
            for own, step, numbers in zip(epochs, steps, stack.step(steps), strict=True):
                assert not isinstance(numbers, NumericsError)
                own.took(numbers, len(step.batch.x))
        stack.unload()
        for trainer, own in zip(stack.trainers, epochs, strict=True):
            trainer.end_epoch(own.row())

    return synchronized(epoch, case[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="base,beta")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--images", type=int, default=10_000, help="an epoch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    suffix = "" if given.device == "cpu" else "_gpu"
    cases = {}
    for model in given.models.split(","):
        case = (model, given.runs, given.images, given.device)
        sides = {"stacked": partial(Side, as_stack, *case), "in sequence": partial(Side, in_sequence, *case)}
        peaks: dict[str, int] = {}
        times = take_turns(sides, given.rounds, peaks)
        name = f"{given.runs} runs of {model}, {given.device.split(':')[0]}"
        print_times(name, times)
        ratios = {"stacked / in sequence": ratio(times, "stacked", "in sequence")}
        cases[name] = {"times": times, "ratios": ratios, "peaks": peaks}
        print(f"  stacked / in sequence  {ratios['stacked / in sequence']:.2f}", flush=True)
        record(f"stacked{suffix}", {"cases": cases}, torch.device(given.device))


if __name__ == "__main__":
    main()
