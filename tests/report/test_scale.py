"""A report on thousands of runs stays a page that a browser opens, and takes no longer than a coffee."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fmvae.report import sweep
from fmvae.report.collect import Run, collect
from fmvae.report.settings import differing, kind, telling
from tests.report.fakes import FACTOR, INFO, TC, write_run

RUNS = 5000
MOST_SECONDS, MOST_BYTES = 60, 10_000_000


KINDS = [{}, *({f"loss.{key}": value for key, value in loss.items()} for loss in (TC, FACTOR, INFO))]


def many(folder: Path, of: str) -> list[Run]:
    """Runs of one setting (``seeds``) or of as many settings; the numbers are another for each.

    ``settings`` are those of 50 z and 100 beta, ``losses`` those of 25 z, 50 beta and four losses, of which two
    have five values of a number of their own.
    """
    write_run(folder, decomposition={"mi": 3.0, "tc": 1.0}, blocks={"checkpoint": {"epoch": 30}})
    (one,) = collect([folder])
    runs = []
    for i in range(RUNS):
        own = {"seed": i}
        if of == "settings":
            own = {"beta.value": 0.1 + i % 100, "latent_dim.value": 2 + i // 100}
        elif of == "losses":
            own = {"beta.value": 0.1 + i // 4 % 50, "latent_dim.value": 2 + i // 200, **KINDS[i % 4]}
            own |= {"loss.gamma": 1.0 + i % 5} if "loss.gamma" in own else {}
        numbers = {tag: value + (i * 7919 % RUNS) / RUNS for tag, value in one.scalars.items()}
        runs.append(replace(one, name=f"{one.name}{i}", config={**one.config, **own}, scalars=numbers))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("of", ["seeds", "settings", "losses"])
def test_five_thousand_runs_in_a_minute_and_ten_megabytes(tmp_path, monkeypatch, of):
    """By the time of this process, which other work on the machine does not count into; reading is not timed."""
    runs = many(tmp_path, of)
    monkeypatch.setattr(sweep, "collect", lambda folders: runs)
    start = time.process_time()
    page = sweep.write_report([tmp_path])
    seconds = time.process_time() - start
    print(f"{of}: {seconds:.1f} s, {page.stat().st_size:,} bytes")
    assert seconds < MOST_SECONDS
    assert page.stat().st_size < MOST_BYTES
    assert (page.parent / "table.csv").read_text().count("\n") == RUNS + 1  # nothing is left out of the data
    text = page.read_text()
    if of != "seeds":  # and the page says which points it draws
        assert re.search(r"600 of the [0-9,]+ points, evenly spaced|too large to point at", text)
        assert re.search(r"\((60 of [0-9]+ curves)\)", text) or of == "settings"
    assert text.count("<tr>") > RUNS * (1 if of == "seeds" else 2)


class Counted(dict):
    """A config that counts how often a value of it is asked for."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        Counted.asked += 1
        return super().get(key, default)


def test_keys_are_compared_once_for_each_run_and_not_once_for_each_group(tmp_path, monkeypatch):
    """What grows with groups times keys times runs took most of a report's time."""
    monkeypatch.setattr("tests.report.test_scale.RUNS", 200)
    runs = [replace(run, config=Counted(run.config)) for run in many(tmp_path, "losses")]
    num_values = sum(len(run.config) for run in runs)
    Counted.asked = 0
    told = telling(runs)
    assert told.keys == ["loss._name_", "loss.gamma"]
    assert Counted.asked < 3 * num_values
    # control: all keys of all runs for each group
    Counted.asked = 0
    for group in {key.partition(".")[0] for key in runs[0].config}:
        for word in {kind(run, group) for run in runs}:
            differing([run.config for run in runs if kind(run, group) == word])
    assert Counted.asked > 3 * num_values
