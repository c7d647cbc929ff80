"""``python -m tests.faults.campaign`` (``make test-crash``): all trials, and the table in docs/reliability.md."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from fmvae.common.text import duration
from fmvae.runs.files import write_bytes
from fmvae.runs.provenance import git_state
from tests.cli.process import ROOT
from tests.faults.power import LOSSES
from tests.faults.trials import CASES, Bench, Outcome
from tests.faults.warmed import Warmed

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- trials: written by make test-crash -->", "<!-- end of trials -->"
COLUMNS = ("trials", "ended by it", "partial or lost files", "more than one line said", "different bits")
WORDS = {"ENOSPC": "the disk is full", "EIO": "the disk fails"}


Trial = Callable[[Bench], Outcome | None]


def trials(calls: int, number: int, chance: random.Random) -> Iterator[tuple[str, Trial]]:
    """What is to happen, and how: ``number`` kills at random moments and as many at the calls on the disk.

    Args:
        calls: how many a run makes. What else can happen to one is tried at a tenth as many, evenly spread.
    """
    for case in CASES:
        for _ in range(number // len(CASES)):
            moments = [chance.uniform(0, 1) for _ in range(chance.randint(1, 3))]
            yield f"SIGKILL at random moments, {case}", lambda b, c=case, m=moments: b.kill(c, m)
    few = max(number // 10, 4)
    for at in spread(calls, number):
        yield "SIGKILL at the n-th call on the disk", lambda b, n=at: b.fail("base", n, "kill")
    for how, words in WORDS.items():
        for persistent in (False, True):
            for at in spread(calls, few):
                what = f"{words} ({how}) at the n-th call, {'and stays so' if persistent else 'once'}"
                yield what, lambda b, n=at, h=how, p=persistent: b.fail("base", n, h, p)
    for loss in LOSSES:
        for end in spread(calls, few):
            what, own = f"power cut after n calls, of what was not synced: {loss}", random.Random(chance.random())
            yield what, lambda b, n=end, w=loss, o=own: b.cut("base", n, w, o)
    for number_, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "SIGHUP")):
        for times in (1, 2):
            for _ in range(few // 2):
                moment, case = chance.uniform(0.1, 1), chance.choice(list(CASES))
                what = f"{name}, {'once' if times == 1 else 'twice in a row'}"
                yield what, lambda b, c=case, m=moment, s=[number_] * times: b.stop(c, m, s)


def spread(last: int, number: int) -> list[int]:
    """So many whole numbers from 1 to ``last``, evenly; each once."""
    return sorted({1 + round(i * (last - 1) / max(number - 1, 1)) for i in range(number)})


def table(outcomes: dict[str, list[Outcome]]) -> str:
    rows = []
    for what, found in outcomes.items():
        counts = (
            len(found),
            sum(outcome.status != 0 for outcome in found),
            sum(bool(outcome.broken) for outcome in found),
            sum(bool(outcome.said) for outcome in found),
            sum(bool(outcome.differences) for outcome in found),
        )
        rows.append(f"| {what} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join([f"| what happens | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS), *rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="kills at random moments; the others go with them")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time, each with one thread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    folder, began = Path(tempfile.mkdtemp(prefix="fmvae-trials-")), time.monotonic()
    benches: Queue[Bench] = Queue()
    for name in map(str, range(given.jobs)):
        benches.put(Bench(folder / name, Warmed()))
    calls = len(benches.queue[0].journal("base")[1])

    def happen(trial: Trial) -> Outcome | None:
        bench = benches.get()
        try:
            return trial(bench)
        finally:
            benches.put(bench)

    outcomes: dict[str, list[Outcome]] = {}
    bad = 0
    names, all_trials = zip(*trials(calls, given.trials, random.Random(given.seed)), strict=True)
    pool = ThreadPoolExecutor(given.jobs)  # each waits for processes
    for what, outcome in zip(names, pool.map(happen, all_trials), strict=True):
        if outcome is None:  # the run made fewer calls this time
            continue
        outcomes.setdefault(what, []).append(outcome)
        if not outcome.good:
            bad += 1
            print(f"{what}: {outcome}", flush=True)
    text, total = table(outcomes), sum(map(len, outcomes.values()))
    took = duration(time.monotonic() - began)
    print(f"{text}\n\n{total} trials, {bad} with a difference, in {took} (seed {given.seed})")
    if given.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        commit = str(git_state()["commit"])[:8]
        told = f"{total} trials in {took}, at commit {commit}, seed {given.seed}: {bad} with a difference."
        write_bytes(PAGE, f"{before}{BEGIN}\n{text}\n\n{told}\n{END}{rest.partition(END)[2]}".encode())
    while not benches.empty():
        benches.get().warmed.close()
    if not bad:
        shutil.rmtree(folder)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
