"""What a sweep says of the time that it needs: medians, which no single epoch moves, and who shares a process."""

import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import pytest

from fmvae.common import streams
from fmvae.common.text import roughly
from fmvae.config.project import PROJECT_ROOT
from fmvae.runs.timing import Pace, Timing
from fmvae.sweeps import watching
from fmvae.sweeps.directory import Plan, SweepDirectory
from fmvae.sweeps.outlook import Outlook, Standing, outlook, steady
from fmvae.sweeps.watching import Sight, on_screen, watch_status, watched


def run(
    epoch: int, seconds: list[float], *, process="", ended=False, busy=0.0, measuring=None, epochs=10, pace="a"
):
    begun = bool(process) or ended
    timing = Timing(seconds, [busy] * len(seconds), measuring)
    return Standing(begun, ended, process, epoch, epochs, pace, timing)


NEW = run(0, [])


def test_the_time_left_is_that_of_the_epochs_and_of_measuring():
    done = run(10, [2.0] * 10, ended=True, measuring=30.0)
    now = run(4, [3.0] * 4, process="1 on here")
    found = outlook([done, now, NEW, NEW], ended_before=2)
    pooled = statistics.median_low([2.0] * 10 + [3.0] * 4)
    assert (found.ended, found.running, found.total) == (3, 1, 6)
    assert found.seconds == (6 * 3.0 + 30.0) + 2 * (10 * pooled + 30.0)
    assert str(found) == "run 4 of 6, about 2 min left"
    assert str(outlook([now, NEW])) == "run 1 of 2, about 50 s of training left"


@pytest.mark.parametrize("where", range(6))
@pytest.mark.parametrize("busy", [0.0, 0.9])
def test_one_epoch_of_a_hundred_times_the_time_does_not_move_it(where, busy):
    usual = [2.0, 2.1, 1.9, 2.0, 2.0]
    seconds = [*usual[:where], 200.0, *usual[where:]]
    shares = [busy * (second == 200.0) for second in seconds]
    assert steady(seconds, shares) == steady(usual, [0.0] * 5) == 2.0
    assert statistics.mean(seconds) > 30  # the control: a mean is moved


def test_a_single_epoch_decides_nothing():
    assert steady([200.0], [0.0]) is None
    assert steady([200.0, 2.0], [0.0, 0.0]) == 2.0
    alone = outlook([run(1, [200.0], process="1 on here"), NEW])
    assert (alone.seconds, str(alone)) == (None, "run 1 of 2")
    assert outlook([run(1, [200.0], process="1 on here"), NEW], paces={"a": Pace(2.0, False)}).seconds == 19 * 2.0
    assert outlook([NEW], paces={"a": Pace(2.0, True)}).seconds is None  # measured on busy cores


def test_runs_in_several_processes_share_the_time_and_those_of_a_stack_do_not():
    apart = [run(5, [4.0] * 5, process=f"{number} on here") for number in (1, 2)]
    stacked = [run(5, [2.0] * 5, process="1 on here") for _ in range(2)]  # of each alone: half of what passed
    assert outlook(apart).seconds == 5 * 4.0
    assert outlook(stacked).seconds == 2 * 5 * 2.0
    assert str(outlook([*apart, NEW])) == "runs 1 to 2 of 3, about 40 s of training left"
    uneven = [run(1, [4.0] * 5, process="1 on here"), run(9, [4.0] * 5, process="2 on here")]
    assert outlook(uneven).seconds == 9 * 4.0  # not less than the longest run needs


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "10 s"),
        (44, "40 s"),
        (89, "90 s"),
        (91, "2 min"),
        (5900, "98 min"),
        (6300, "1 h 40 min"),
        (7800, "2 h 10 min"),
        (40 * 3600, "40 h 00 min"),
        (400 * 3600, "400 h"),
    ],
)
def test_estimates_have_few_digits(seconds, told):
    assert roughly(seconds) == told


@pytest.fixture
def sweep(tmp_path) -> SweepDirectory:
    return SweepDirectory(tmp_path / "study")


NAMES = [f"base-b1-z2-s{seed}-0000000{seed}" for seed in range(3)]
PLANS = {name: Plan((f"seed={seed}",), f"0000000{seed}", "a", 4, "here") for seed, name in enumerate(NAMES)}


def begin(sweep: SweepDirectory, name: str, epoch: int, state: Any = "running") -> None:
    directory = sweep.run(name)
    directory.path.mkdir(parents=True, exist_ok=True)
    Timing([2.0] * epoch, [0.0] * epoch).write(directory)
    directory.write_status(state, epoch=epoch, epochs=4)


def test_a_sweep_says_in_lines_which_run_it_is_at(sweep, capsys, monkeypatch):
    begin(sweep, NAMES[0], 2, "failed")  # before this sweep
    sight = Sight(sweep, PLANS, NAMES, {})
    show, told = watching._in_lines(sight), []
    stages = [(None, 0, ""), (0, 0, "running"), (0, 3, "running"), (0, 4, "failed"), (1, 1, "running")]
    for which, epoch, state in stages:
        if which is not None:
            begin(sweep, NAMES[which], epoch, state)
        for _ in range(2):  # what has not changed is not said again
            show(sight.now())
        told.append(capsys.readouterr().out)
    assert told == [
        "",
        "run 1 of 3\n",
        "run 1 of 3, about 20 s of training left\n",
        "",
        "run 2 of 3, about 10 s of training left\n",
    ]
    monkeypatch.setattr(watching, "PERIOD", 0.02)
    with watched(sight, bar=True):  # no terminal: lines all the same
        time.sleep(0.3)
    assert capsys.readouterr().out == told[-1]


def test_watching_ends_with_the_runs_and_writes_no_codes_into_a_pipe(sweep, capsys, monkeypatch):
    sweep.add(PLANS)
    for name in NAMES:
        begin(sweep, name, 1, "interrupted")
    tables = []

    def sleep(seconds: float) -> None:
        tables.append(capsys.readouterr().out)
        if len(tables) > 2:
            for name in NAMES:
                begin(sweep, name, 2, "failed")

    monkeypatch.setattr(watching.time, "sleep", sleep)
    watch_status(sweep.path, every=0.0)
    last = capsys.readouterr().out
    assert "3 partial" in tables[0]
    assert tables[1:] == ["", ""]  # nothing has changed
    assert "3 failed" in last
    assert "\x1b" not in "".join([*tables, last])
    assert on_screen(last).startswith("\x1b[H")  # the control: what a terminal would get


def test_a_table_is_cut_to_the_height_of_the_terminal(monkeypatch):
    monkeypatch.setattr(watching.streams, "size", lambda stream: os.terminal_size((20, 10)))
    table = "\n".join("x" * (30 if i else 20) for i in range(50))
    lines = re.sub(r"\x1b\[\w", "", on_screen(table)).split("\n")
    assert len(lines) == 8
    assert lines[:2] == ["x" * 20, "x" * 19 + "…"]
    assert lines[-1].startswith("  ... and 43 more")


@pytest.mark.parametrize("on_terminal", [False, True])
def test_ctrl_c_ends_watching_cleanly(on_terminal, sweep):
    sweep.add(PLANS)
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "fmvae.report", "status", str(sweep.path), "--watch"]
    output = child if on_terminal else subprocess.PIPE
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT)
    source = parent if on_terminal else process.stdout.fileno()  # type: ignore[union-attr]
    shown = b""
    while b"0 of 3 runs have ended" not in shown:
        shown += os.read(source, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert (b"\x1b[H" in shown) is on_terminal
    assert b"Traceback" not in shown
    os.close(child)
    os.close(parent)


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_loses_nothing_of_it(monkeypatch, columns):
    monkeypatch.setattr(streams, "size", lambda stream: os.terminal_size((columns, 24)))
    longest = str(Outlook(98, 12, 110, 59 * 60.0, with_measuring=False))
    assert longest == "runs 99 to 110 of 110, about 59 min of training left"
    assert streams.fitted(longest, streams.AROUND_NUMBERED) == longest
    if columns == 60:  # control: beside a bar with shares and times, it is cut
        assert "…" in streams.fitted(longest)
