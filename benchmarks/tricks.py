"""Time speed optimisations against the same code without them, to decide whether to keep each.

    python -m benchmarks.tricks [--images 10000] [--epochs 12] [--rounds 5]

- denormal numbers: ``torch.set_flush_denormal`` (fmvae/common/torch_setup.py), after some epochs of the baseline.
  By then, Adam's averages for pixels that are always black have decayed to denormal numbers;
- constants: ``load_constants`` (fmvae/common/torch_setup.py), for an epoch of the baseline;
- cross-entropy: torch's own function for a run alone, and for a stack the ``autograd.Function`` for its bits
  (fmvae/objectives/likelihoods.py); without, the other of the two.

``benchmarks.startup`` times the import of torch's compiler; convolutions and label maps have their own benchmarks.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.stacked import as_stack
from benchmarks.training import Work, ours
from fmvae.common import torch_setup
from fmvae.objectives import Bernoulli, likelihoods


def always_with_function(*case: object) -> Work:
    """Return an epoch of a run alone with the likelihood for stacks."""
    Bernoulli._nll = likelihoods._StackedCrossEntropy.apply  # in a process of its own
    return ours(*case)  # type: ignore[arg-type]


def never_with_function(*case: object) -> Work:
    """Return an epoch of a stack with the likelihood for a run alone."""
    Bernoulli.stacked = lambda self: self  # type: ignore[method-assign] - in a process of its own
    return as_stack(*case)


def without_constants(*case: object) -> Work:
    torch_setup.load_constants = lambda: None  # in a process of its own
    return ours(*case)  # type: ignore[arg-type]


def after(epochs: int, flush: bool, *case: object) -> Work:
    """Return an epoch of the baseline, after training for ``epochs`` epochs."""
    if not flush:
        torch.set_flush_denormal = lambda mode: False  # in a process of its own
    epoch = ours(*case)  # type: ignore[arg-type]
    for _ in range(epochs):
        epoch()
    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="an epoch")
    parser.add_argument("--epochs", type=int, default=12, help="before denormal numbers are timed")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    base, stack = ("base", 128, given.images), ("base", 6, given.images, "cpu")
    pairs = {
        f"denormal numbers, after {given.epochs} epochs of base": (
            partial(Side, after, given.epochs, True, *base),
            partial(Side, after, given.epochs, False, *base),
        ),
        "constants, an epoch of base": (partial(Side, ours, *base), partial(Side, without_constants, *base)),
        "cross-entropy, an epoch of base": (
            partial(Side, ours, *base),
            partial(Side, always_with_function, *base),
        ),
        "cross-entropy, an epoch of 6 stacked base": (
            partial(Side, as_stack, *stack),
            partial(Side, never_with_function, *stack),
        ),
    }
    cases = {}
    for name, (with_it, without) in pairs.items():
        times = take_turns({"with": with_it, "without": without}, given.rounds)
        print_times(name, times)
        ratios = {"without / with": ratio(times, "without", "with")}
        print(f"  without / with  {ratios['without / with']:.2f}")
        cases[name] = {"times": times, "ratios": ratios}
    record("tricks", {"cases": cases})


if __name__ == "__main__":
    main()
