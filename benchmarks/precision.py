"""Time an epoch of every model with ``trainer.precision=bf16``, relative to float32.

    python -m benchmarks.precision [--models base,conv] [--batch 128] [--images 4000] [--rounds 5]

Passes through the model are computed in bfloat16; losses, weights and the optimizer stay in float32. What a model
gains depends on the share of products and convolutions in its step, and on their size.
"""

from __future__ import annotations

import argparse
from functools import partial

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import MODELS, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=4000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cases = {}
    for model in given.models.split(","):
        case = (model, given.batch, given.images)
        sides = {p: partial(Side, ours, *case, f"trainer.precision={p}") for p in ("fp32", "bf16")}
        times = take_turns(sides, given.rounds)
        name = f"{model}, batch {given.batch}"
        print_times(name, times)
        cases[name] = {"times": times, "ratios": {"fp32 / bf16": ratio(times, "fp32", "bf16")}}
        print(f"  fp32 / bf16  {cases[name]['ratios']['fp32 / bf16']:.2f}", flush=True)
        record("precision", {"cases": cases})


if __name__ == "__main__":
    main()
