"""A report on thousands of runs stays a page that a browser opens, and takes no longer than a coffee."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fmvae.report import sweep
from fmvae.report.collect import Run, collect
from tests.report.fakes import write_run

RUNS = 5000
MOST_SECONDS, MOST_BYTES = 60, 10_000_000


def many(folder: Path, of_seeds: bool) -> list[Run]:
    """Runs of one setting, or of as many settings, of 50 z and 100 beta; the numbers are another for each."""
    write_run(folder, decomposition={"mi": 3.0, "tc": 1.0}, blocks={"checkpoint": {"epoch": 30}})
    (one,) = collect([folder])
    runs = []
    for i in range(RUNS):
        own = {"seed": i} if of_seeds else {"beta.value": 0.1 + i % 100, "latent_dim.value": 2 + i // 100}
        numbers = {tag: value + (i * 7919 % RUNS) / RUNS for tag, value in one.scalars.items()}
        runs.append(replace(one, name=f"{one.name}{i}", config={**one.config, **own}, scalars=numbers))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("of_seeds", [True, False])
def test_five_thousand_runs_in_a_minute_and_ten_megabytes(tmp_path, monkeypatch, of_seeds):
    """By the time of this process, which other work on the machine does not count into; reading is not timed."""
    runs = many(tmp_path, of_seeds)
    monkeypatch.setattr(sweep, "collect", lambda folders: runs)
    start = time.process_time()
    page = sweep.write_report([tmp_path])
    seconds = time.process_time() - start
    print(f"{seconds:.1f} s, {page.stat().st_size:,} bytes")
    assert seconds < MOST_SECONDS
    assert page.stat().st_size < MOST_BYTES
    assert page.read_text().count("<tr>") > RUNS * (1 if of_seeds else 2)
