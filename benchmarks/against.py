"""Time training and composing in this checkout against another checkout, such as that of the commit before.

    git worktree add /path/to/before <commit>
    python -m benchmarks.against /path/to/before [--rounds 7] [--only "base 128"]

Each side is a process that runs in its own checkout; the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmvae.config.project import PROJECT_ROOT

CASES: dict[str, list[Any]] = {
    **{f"base {batch}": ["epoch", "base", batch, 10_000] for batch in (64, 128, 512)},
    **{f"{model} 128": ["epoch", model, 128, 10_000] for model in ("beta", "conditional")},
    **{f"{model} 128": ["epoch", model, 128, 4_000] for model in ("conv", "conditional_conv")},
    "6 stacked base": ["stack", "base", 6, 10_000, "cpu"],
    "6 stacked beta": ["stack", "beta", 6, 4_000, "cpu"],
    "3 configs composed": ["compose"],
}
SIDE = """
import json, sys, time
sys.path.insert(0, ".")
kind, *case = json.loads(sys.argv[1])
if kind == "epoch":
    from benchmarks.training import ours as build
elif kind == "stack":
    from benchmarks.stacked import as_stack as build
else:
    from fmvae.config import compose
    def build():
        return lambda: [compose(["model=conv", "latent_dim=10"]) for _ in range(3)]
work = build(*case)
work()
for _ in sys.stdin:
    start = time.perf_counter()
    work()
    print("seconds", time.perf_counter() - start, flush=True)
"""


def begun(checkout: Path, case: list[Any]) -> subprocess.Popen[str]:
    """Start a side in a checkout; it warms up while the other one does."""
    command = [sys.executable, "-c", SIDE, json.dumps(case)]
    return subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def seconds(side: subprocess.Popen[str]) -> float:
    """Have a side do its work once."""
    assert side.stdin
    assert side.stdout
    side.stdin.write("\n")
    side.stdin.flush()
    for line in side.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise SystemExit("a side ended; see its error above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", choices=CASES, help="a case; may be given several times")
    given = parser.parse_args()
    for name in given.only or CASES:
        before, here = begun(given.before, CASES[name]), begun(PROJECT_ROOT, CASES[name])
        for side in (before, here):  # once, so that both have warmed up
            seconds(side)
        times = [(seconds(before), seconds(here)) for _ in range(given.rounds)]
        for side in (before, here):
            side.communicate()
        ratio = statistics.median(new / old for old, new in times)
        old, new = (statistics.median(values) for values in zip(*times, strict=True))
        print(f"{name:<22} before {old:.3f} s, here {new:.3f} s, here / before {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
