"""Time epochs of BetaVAE with convolutions as matrix products (``fmvae.models.convolution``) and with torch's.

    python -m benchmarks.convolutions [--batches 64,512] [--images 6000] [--rounds 5]

Both sides take turns in one run; prints medians and their ratio.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import Work, trainer_of, with_torchs_layers


def epochs(batch: int, images: int, torchs_own: bool) -> Work:
    trainer = trainer_of("beta", batch, images)
    if torchs_own:
        with_torchs_layers(trainer.model)

    def epoch() -> None:
        trainer.epoch += 1
        trainer._train_epoch(trainer.epoch)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="64,512")
    parser.add_argument("--images", type=int, default=6000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cases = {}
    for batch in map(int, given.batches.split(",")):
        sides = {
            "ours": partial(Side, epochs, batch, given.images, False),
            "torch": partial(Side, epochs, batch, given.images, True),
        }
        times = take_turns(sides, given.rounds)
        cases[f"beta, batch {batch}"] = {"times": times, "ratios": {"ours / torch": ratio(times, "ours", "torch")}}
        print_times(f"BetaVAE, batch {batch}, {torch.get_num_threads()} threads", times)
        print(f"  ours / torch  {cases[f'beta, batch {batch}']['ratios']['ours / torch']:.2f}")
    record("convolutions", {"cases": cases})


if __name__ == "__main__":
    main()
