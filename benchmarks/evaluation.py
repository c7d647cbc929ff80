"""Time a run's measures and figures, relative to an epoch of training; and our FID formula, relative to SciPy's.

    python -m benchmarks.evaluation [--rounds 3] [override ...]

The model is hardly trained, which does not affect times. ``benchmarks.features`` times FashionResNet18.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks.sides import print_times, ratio, record
from fmvae.common.torch_setup import set_up_torch
from fmvae.config import compose
from fmvae.evaluation import calculate_fid
from fmvae.experiments.vae import VAEExperiment
from fmvae.runs.recorder import render
from fmvae.visualization import result_animations, result_figures

DIM, NUM = 512, 2000  # dimensions and number of features for FID


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def draw(experiment: VAEExperiment) -> None:
    parts, settings = experiment.parts, experiment.config["figures"]
    visualizer = parts.visualizer.at_epoch(1)
    for _, figure in result_figures(visualizer, parts.data, experiment.trainer.history, settings):
        render(figure)
    for _ in result_animations(visualizer, parts.data, settings):
        pass


def textbook(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the Fréchet distance with SciPy's matrix square root, as most implementations do."""
    root: Any = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    means = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return means + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given, overrides = parser.parse_known_args()
    config = compose(["device=cpu", "evaluation.fid.features=[pixels]", "evaluation.cache=null", *overrides])
    experiment = VAEExperiment(config, set_up_torch(config))
    trainer, evaluator = experiment.trainer, experiment.parts.evaluator

    def epoch() -> None:
        trainer.end_epoch(trainer._train_epoch(trainer.epoch + 1))

    epoch()
    sides: dict[str, Callable[[], object]] = {"an epoch": epoch, "figures": lambda: draw(experiment)}
    sides |= {name: lambda name=name: evaluator.compute(name) for name in evaluator.plan()}
    draw(experiment)  # imports matplotlib
    times: dict[str, list[float]] = {
        name: [seconds(side) for _ in range(given.rounds)] for name, side in sides.items()
    }
    print_times("Measures and figures", times)
    whole = {
        "times": times,
        "ratios": {f"{name} / an epoch": ratio(times, name, "an epoch") for name in [*sides][1:]},
    }

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(NUM, DIM)) @ rng.normal(size=(DIM, DIM)) for _ in range(2))
    algebra: dict[str, list[float]] = {"ours": [], "SciPy": []}
    assert np.isclose(calculate_fid(a, b), textbook(a, b), rtol=1e-6)
    for _ in range(given.rounds):
        algebra["ours"].append(seconds(lambda: calculate_fid(a, b)))
        algebra["SciPy"].append(seconds(lambda: textbook(a, b)))
    print_times(f"FID of {NUM:,} features of {DIM} dimensions", algebra)
    fid = {"times": algebra, "ratios": {"ours / SciPy": ratio(algebra, "ours", "SciPy")}}
    record("evaluation", {"cases": {"a run of the baseline": whole, f"FID, {NUM:,} x {DIM}": fid}})


if __name__ == "__main__":
    main()
