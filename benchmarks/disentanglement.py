"""Time the scores of disentanglement on 10,000 / 5,000 points: ``python -m benchmarks.disentanglement``.

Prints the share of each score, and DCI's time beside that of 100 rounds of trees, scikit-learn's default.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from fmvae.evaluation import disentanglement as scores
from fmvae.evaluation.disentanglement import fitted

SIZES = (3, 6, 20, 16, 16)  # of sprites
NUM_TRAIN, NUM_TEST, WIDTH = 10_000, 5_000, 10


def points(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw codes that follow a factor each, with noise, and some of noise alone."""
    drawn = np.random.default_rng(seed)
    factors = np.stack([drawn.integers(size, size=num) for size in SIZES], 1)
    codes = drawn.normal(size=(num, WIDTH))
    codes[:, : len(SIZES)] += 4 * factors / np.array(SIZES)
    return codes, factors


def main() -> None:
    (codes, factors), test = points(NUM_TRAIN, 0), points(NUM_TEST, 1)
    threads = torch.get_num_threads()
    calls = {
        "mig": lambda: scores.mig(codes, factors),
        "modularity": lambda: scores.modularity(codes, factors),
        "infom": lambda: scores.infom(codes, factors),
        "infoc": lambda: scores.infoc(codes, factors),
        "sap": lambda: scores.sap(codes, factors, test),
        "explicitness": lambda: scores.explicitness(codes, factors, test),
        "dci": lambda: scores.dci(codes, factors, test, threads=threads),
    }
    seconds = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - start
    total = sum(seconds.values())
    print(f"{NUM_TRAIN:,} / {NUM_TEST:,} points, z = {WIDTH}, {threads} threads: {total:.1f} s")
    for name, spent in seconds.items():
        print(f"  {name:<14}{spent / total:>6.1%}")
    rounds = fitted.ROUNDS
    fitted.ROUNDS = 100
    start = time.perf_counter()
    scores.dci(codes, factors, test, threads=threads)
    print(f"  DCI with 100 rounds takes {(time.perf_counter() - start) / seconds['dci']:.1f} times as long")
    fitted.ROUNDS = rounds


if __name__ == "__main__":
    main()
