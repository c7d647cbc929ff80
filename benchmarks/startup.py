"""Time from the command to the first training step, relative to a process with only the usual imports.

    python -m benchmarks.startup [--rounds 5]

- ours: ``train.py``, on real data, until its optimizer has taken its first step;
- compiler: the same, without deferring the import of torch's compiler, which ``torch.optim`` imports;
- resumed: the same for a run that was killed in its second epoch;
- usual: Python importing torch, torchvision's dataset and transforms, and TensorBoard's writer, and nothing else;
- word: tab completion of a word on the command line.

Complete processes take turns in one run, with a warm disk cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.sides import print_times, ratio, record
from fmvae.config.project import PROJECT_ROOT

FIRST_STEP = """
import os, runpy, sys
epoch = int(sys.argv.pop(1))
def first_step(self, *_, **__):
    if self.epoch == epoch:
        os._exit(0)
import fmvae.training.loop
fmvae.training.loop.Trainer._end_step = first_step
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""
COMPILER = "import fmvae.common.torch_setup as s; s.without_compiler = lambda: None\n"
USUAL = """
import torch, torchvision.datasets, torchvision.transforms
from torch.utils.tensorboard import SummaryWriter
"""


def seconds(arguments: list[str], environment: dict[str, str] | None = None) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    word = {"COMP_LINE": "python train.py model=", "COMP_POINT": "22"}
    with tempfile.TemporaryDirectory() as folder:
        of_resumed = f"output_root={folder}/resumed"
        seconds(["-c", FIRST_STEP, "1", of_resumed])
        sides = {
            "ours": lambda: seconds(["-c", FIRST_STEP, "0", f"output_root={folder}", "restart=true"]),
            "compiler": lambda: seconds(
                ["-c", COMPILER + FIRST_STEP, "0", f"output_root={folder}", "restart=true"]
            ),
            "resumed": lambda: seconds(["-c", FIRST_STEP, "1", of_resumed]),
            "usual": lambda: seconds(["-c", USUAL]),
            "word": lambda: seconds(["train.py", "-sc", "query=bash"], word),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                times[name].append(side())
    print_times("From the command to the first step", times)
    ratios = {
        "ours / usual": ratio(times, "ours", "usual"),
        "compiler / ours": ratio(times, "compiler", "ours"),
        "resumed / ours": ratio(times, "resumed", "ours"),
    }
    record("startup", {"cases": {"start-up": {"times": times, "ratios": ratios}}})


if __name__ == "__main__":
    main()
