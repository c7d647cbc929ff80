"""What ``status`` shows: short lines that fit a terminal, no text of others as it is, and what runs are doing."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fmvae.common import streams
from fmvae.common.text import one_line
from fmvae.config.project import PROJECT_ROOT
from fmvae.report.collect import collect
from fmvae.runs.directory import MEASURING, RunDirectory
from fmvae.runs.files import write_record
from fmvae.runs.timing import Timing
from fmvae.sweeps import status as module
from fmvae.sweeps.directory import Plan, SweepDirectory, progress
from fmvae.sweeps.status import forecast, status, summary
from tests.report.fakes import edit_status, write_run

NAMES = [f"base-b1-z2-s{seed}-0000000{seed}" for seed in range(8)]
PLANS = {name: Plan((f"seed={seed}",), f"0000000{seed}" * 8, "a", 3, "here") for seed, name in enumerate(NAMES)}
LONG = "epoch 1, step 2: recon is nan; " * 12
NASTY = "a\nb\r\x1b[2J\x07\x9bc\u202ed\ud800"


@pytest.fixture
def sweep(tmp_path) -> SweepDirectory:
    """Eight planned runs, of which none has begun."""
    directory = SweepDirectory(tmp_path / "study")
    directory.path.mkdir()
    directory.add(PLANS)
    return directory


def begin(sweep: SweepDirectory, name: str, state: Any, busy: float = 0.0, **details: Any) -> RunDirectory:
    run = sweep.run(name)
    run.path.mkdir(exist_ok=True)
    details = {"epoch": 1, "epochs": 3} | details
    Timing([30.0] * details["epoch"], [busy] * details["epoch"]).write(run)
    run.write_status(state, **details)
    return run


def finish(sweep: SweepDirectory, name: str) -> None:
    run = begin(sweep, name, "complete", epoch=3)
    test = {"neg_elbo": 250.0, "objective": 251.0}
    write_record(run.results, {"config_sha256": PLANS[name].config_sha256, "test": test})


def line_of(name: str, table: str) -> str:
    (line,) = [line for line in table.splitlines() if line.startswith(f"  {name}")]
    return line


def test_an_error_is_below_its_run_and_makes_no_other_line_longer(sweep):
    for name in NAMES[1:]:
        begin(sweep, name, "interrupted")
    begin(sweep, NAMES[0], "failed", error="short")
    before = status(sweep.path)
    begin(sweep, NAMES[0], "failed", error=LONG)
    after = status(sweep.path)
    assert before.replace("    short\n", "") == after.replace(f"    {LONG.strip()}\n", "")
    assert max(len(line) for line in before.splitlines() if line.startswith("  ")) < 80
    lines = after.splitlines()
    assert lines[lines.index(line_of(NAMES[0], after)) + 1] == f"    {LONG.strip()}"
    padded = module.aligned([(LONG, "a"), ("b", "c")])  # the control: as a cell before others, it pads them
    assert len(padded[1]) > len(LONG)


def test_no_text_of_others_reaches_the_terminal_as_it_is(sweep):
    name, other = NAMES[:2]
    write_record(
        sweep.manifest,
        {"runs": {n: {**vars(PLANS[n]), "overrides": [f"model={NASTY}{n}"]} for n in (name, other)}},
    )
    begin(sweep, name, "failed", error=NASTY)
    begin(sweep, other, "running")
    stray = sweep.path / "a\x1b[2Jb-00000009"
    stray.mkdir()
    (stray / "config.yaml").write_text("seed: 3")
    states = [progress(sweep.run(each), PLANS[each]) for each in (name, other)]
    with sweep.run(other).held():
        (sweep.path / ".locks" / f"{other}.lock").write_text(NASTY, encoding="utf-8", errors="surrogatepass")
        held = progress(sweep.run(other), PLANS[other])
        said = [status(sweep.path), summary(sweep, sweep.planned(), [states[0], held])]
    said.append(forecast(sweep, sweep.planned(), sweep.path.parent))
    for table in said:
        assert all(line.isprintable() for line in table.split("\n"))
        assert one_line(NASTY) in table
        assert line_of(name, table)
    assert "a?[2Jb-00000009" in said[0]
    write_run(sweep.path, seed=3)
    assert all(run.reason.isprintable() for run in collect([sweep.path]))
    assert not NASTY.isprintable()  # the control: there was something to replace


def test_one_line_keeps_what_is_readable():
    assert one_line(NASTY) == "a b ?[2J??cd?"
    for text in ("recon is nan", "für ≥ 3 GB", "日本語", "−ELBO σ β"):
        assert one_line(text) == text


@pytest.mark.parametrize("error", [None, "", 0])
def test_an_error_that_is_none_says_nothing(error, sweep):
    for name in NAMES:
        finish(sweep, name)
    begin(sweep, NAMES[0], "failed", error=error)
    table = status(sweep.path)
    assert "None" not in table
    assert "1 failed, 7 complete" in table
    assert table.splitlines()[4] == ""  # nothing below the run's line
    edit_status(sweep.run(NAMES[0]).path, error="None of it fits")  # the control
    assert status(sweep.path).splitlines()[4] == "    None of it fits"


def test_times_on_busy_cores_are_explained_once(sweep):
    for name in NAMES[:3]:
        begin(sweep, name, "interrupted", busy=0.9)
    begin(sweep, NAMES[3], "interrupted", busy=0.0)
    begin(sweep, NAMES[4], "interrupted", busy=0.9, epoch=3)
    table = status(sweep.path)
    assert table.count("~1 min 00 s") == 3
    quiet, ended = (" ".join(line_of(name, table).split()[1:]) for name in NAMES[3:5])
    assert quiet == "partial epoch 1 of 3 1 min 00 s seed=3"
    assert ended == "partial epoch 3 of 3 seed=4"  # no time is left
    assert table.count("other processes used the CPU cores") == 1
    assert all(len(line) <= 80 for line in table.splitlines() if line.startswith("  "))
    assert forecast(sweep, PLANS, sweep.path.parent).count("other processes used the CPU cores") == 1
    for name in NAMES[:3]:
        begin(sweep, name, "interrupted")
    assert "~" not in status(sweep.path)  # the control: nothing to explain
    assert "CPU cores" not in status(sweep.path)


def test_a_finished_sweep_shows_the_numbers_of_its_summary(sweep, monkeypatch):
    for name in NAMES:
        finish(sweep, name)
    states = [progress(sweep.run(name), plan) for name, plan in PLANS.items()]
    assert status(sweep.path).strip() == summary(sweep, PLANS, states).strip()
    assert status(sweep.path).count("−ELBO 250.00  objective 251.00") == 8
    begin(sweep, NAMES[0], "failed", error="no space left")
    assert "no space left" in status(sweep.path)
    assert status(sweep.path).count("−ELBO 250.00") == 7
    begin(sweep, NAMES[0], "interrupted")  # the control: it has not ended
    assert "−ELBO" not in status(sweep.path)
    finish(sweep, NAMES[0])
    monkeypatch.setattr(module, "SHOWN", 7)
    assert "−ELBO" not in status(sweep.path)
    assert "8 complete" in status(sweep.path)


def test_a_run_that_is_measured_says_so_while_a_process_holds_it(sweep):
    run = begin(sweep, NAMES[0], "running", epoch=3, phase=MEASURING)
    stopped_early = begin(sweep, NAMES[1], "running", epoch=2, phase=MEASURING)
    training = begin(sweep, NAMES[2], "running", epoch=2)
    foreign = begin(sweep, NAMES[3], "running", epoch=2, phase="\x1b[2J")
    with run.held(), stopped_early.held(), training.held(), foreign.held():
        table = status(sweep.path)
    assert line_of(NAMES[0], table).split()[1:] == ["running", "epoch", "3", "of", "3", MEASURING, "seed=0"]
    assert line_of(NAMES[1], table).split()[-2:] == [MEASURING, "seed=1"]
    for name in NAMES[2:4]:
        assert line_of(name, table).split()[-3:] == ["30", "s", f"seed={name[12]}"]
    assert MEASURING not in status(sweep.path)  # the control: no process holds them


SCRIPT = ["-m", "fmvae.report", "status"]


def shown(folder: Path, columns: int) -> list[str]:
    """Return the lines that the command shows on a terminal of this width."""
    parent, child = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", "24"], stdin=child, check=True)
    process = subprocess.Popen(
        [sys.executable, *SCRIPT, str(folder)], cwd=PROJECT_ROOT, stdout=child, stderr=child
    )
    os.close(child)
    text = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            break
        text += part
    os.close(parent)
    assert process.wait(60) == 0
    return text.decode().splitlines()


def test_a_terminal_gets_lines_of_its_width_and_a_pipe_whole_ones(sweep):
    for name in NAMES:
        begin(sweep, name, "failed", error=LONG)
    lines = shown(sweep.path, 60)
    assert max(map(len, lines)) == 60
    assert sum(line.endswith("…") for line in lines) >= 8
    assert len(lines) < 25
    done = subprocess.run(
        [sys.executable, *SCRIPT, str(sweep.path)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    assert "…" not in done.stdout  # the control: nothing is lost where nothing needs to fit
    assert done.stdout.count(LONG.strip()) == 8


@pytest.mark.parametrize(
    ("line", "columns", "cut"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
        ("e\u0301e\u0301e\u0301", 2, "e\u0301…"),
    ],
)
def test_a_line_is_cut_to_columns_and_not_to_characters(line, columns, cut):
    assert streams.cut_line(line, columns) == cut
