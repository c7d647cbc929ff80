"""Time the scores of disentanglement on 10,000 / 5,000 points: ``python -m benchmarks.disentanglement``.

Prints and records the processor seconds of each score, of all of them, and DCI's beside those of 100 rounds of
trees, scikit-learn's default. With ``--no-usual`` the 100 rounds, five times as long, are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.sides import print_times, ratio, record
from fmvae.evaluation import disentanglement as scores
from fmvae.evaluation.disentanglement import fitted

SIZES = (3, 6, 20, 16, 16)  # of sprites
NUM_TRAIN, NUM_TEST, WIDTH = 10_000, 5_000, 10
USUAL = 100  # rounds


def points(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw codes that follow a factor each, with noise, and some of noise alone."""
    drawn = np.random.default_rng(seed)
    factors = np.stack([drawn.integers(size, size=num) for size in SIZES], 1)
    codes = drawn.normal(size=(num, WIDTH))
    codes[:, : len(SIZES)] += 4 * factors / np.array(SIZES)
    return codes, factors


def seconds(call: Callable[[], object]) -> float:
    """Return the processor seconds of a call, of all threads: other work on the machine adds little to them."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--no-usual", action="store_true")
    given = parser.parse_args()
    (codes, factors), test = points(NUM_TRAIN, 0), points(NUM_TEST, 1)
    threads = torch.get_num_threads()

    def usual() -> None:
        ours, fitted.ROUNDS = fitted.ROUNDS, USUAL
        try:
            scores.dci(codes, factors, test, threads=threads)
        finally:
            fitted.ROUNDS = ours

    calls: dict[str, Callable[[], object]] = {
        "mig": lambda: scores.mig(codes, factors),
        "modularity": lambda: scores.modularity(codes, factors),
        "infom": lambda: scores.infom(codes, factors),
        "infoc": lambda: scores.infoc(codes, factors),
        "sap": lambda: scores.sap(codes, factors, test),
        "explicitness": lambda: scores.explicitness(codes, factors, test),
        "dci": lambda: scores.dci(codes, factors, test, threads=threads),
    }
    taken = [{name: seconds(call) for name, call in calls.items()} for _ in range(given.rounds)]
    times = {name: [row[name] for row in taken] for name in calls} | {"all": [sum(row.values()) for row in taken]}
    ratios = {"dci / all": ratio(times, "dci", "all")}
    if not given.no_usual:
        times[f"dci, {USUAL} rounds"] = [seconds(usual) for _ in range(given.rounds)]
        ratios["100 rounds / ours"] = ratio(times, f"dci, {USUAL} rounds", "dci")
    case = f"{NUM_TRAIN:,} / {NUM_TEST:,} points, z = {WIDTH}, processor seconds"
    print_times(case, times)
    print("  ".join(f"{name}: {value:.2f}" for name, value in ratios.items()))
    record("disentanglement", {"cases": {case: {"times": times, "ratios": ratios}}})


if __name__ == "__main__":
    main()
