"""Count the page faults of a training step and of features, with freed memory kept and with glibc's default.

    python -m benchmarks.memory [--models base,conv,features] [--batches 64,128,512] [--images 3000] [--rounds 5]

Both sides train the same epochs, or compute the same features of FashionResNet18 (``features``), in processes of
their own: only one of them calls ``keep_freed_memory`` (fmvae/common/memory.py). Prints the page faults of a step
after the first epoch, or of a batch of features, and the process's largest memory.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

from benchmarks.sides import Side, ratio, record
from benchmarks.training import MODELS, Work, ours
from fmvae.common import torch_setup
from fmvae.data import FashionMNISTManager
from fmvae.evaluation.features import EXTRACTION_BATCH, ResNetFeatures, real_images

SIDES = ("kept", "default")
FEATURES, IMAGES = "features", 500


def work(side: str, model: str, batch: int, images: int) -> Work:
    if side == "default":
        torch_setup.keep_freed_memory = lambda: False  # in a process of its own
    if model != FEATURES:
        return ours(model, batch, images)
    device = torch_setup.set_up_torch({"device": "cpu", "threads": None})
    data = FashionMNISTManager(device=device)
    features = ResNetFeatures("sharp", data.num_classes, "fp32", device)
    return lambda: features(real_images(data.test, images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join([*MODELS, FEATURES]))
    parser.add_argument("--batches", default="64,128,512")
    parser.add_argument("--images", type=int, default=3000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cases = {}
    for model in given.models.split(","):
        for batch in [EXTRACTION_BATCH] if model == FEATURES else map(int, given.batches.split(",")):
            images = IMAGES if model == FEATURES else given.images
            steps = -(-images // batch)
            with ExitStack() as stack:
                sides = {n: stack.enter_context(Side(work, n, model, batch, images)) for n in SIDES}
                used = [{name: side.work() for name, side in sides.items()} for _ in range(given.rounds)]
            times = {name: [row[name].seconds for row in used] for name in SIDES}
            counts = {}
            for name in SIDES:
                faults = statistics.median(row[name].faults for row in used)
                counts |= {f"faults a step {name}": faults / steps}
                counts |= {f"peak MB {name}": max(row[name].peak for row in used) / 1e6}
            ratios = {"default / kept": ratio(times, "default", "kept")}
            name = f"{model}, batch {batch}"
            cases[name] = {"times": times, "ratios": ratios, "counts": counts}
            print(f"{name}: default / kept {ratios['default / kept']:.2f}, ", end="")
            print(", ".join(f"{what} {value:.0f}" for what, value in counts.items()), flush=True)
            record("memory", {"cases": cases})


if __name__ == "__main__":
    main()
