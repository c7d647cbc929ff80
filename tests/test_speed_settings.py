"""What ``set_up_torch`` does for speed: it works, it changes no bit, and it leaves alone what users have set."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmvae.common import contention, memory
from fmvae.common.contention import ASLEEP, BUSY, CHOSEN, MOST_SLEEPERS, Sleepers, Watch
from tests.idx import write_idx_dataset

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells, and glibc is its usual library")
TWO_CORES = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)
GLIBCS_DEFAULT = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}


def run(program: list[str], **variables: str) -> str:
    """Run a Python program in a process without settings for threads and memory, and return what it prints."""
    left_out = ("OMP_NUM_THREADS", *CHOSEN, *memory.VARIABLES)
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, *program], env={**environment, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- memory and constants -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """A function from what is left out, and variables, to what two epochs of ConvVAE took and gave."""
    root = tmp_path_factory.mktemp("steps")
    write_idx_dataset(root, 1124, 100)
    known: dict[tuple, dict] = {}

    def trained(*options: str, **variables: str) -> dict:
        key = (options, *variables.items())
        if key not in known:
            known[key] = json.loads(run(["-m", "tests.steps", str(root), "conv", *options], **variables))
        return known[key]

    return trained


@LINUX
def test_steps_after_the_first_epoch_cause_no_page_faults_and_glibcs_default_does(steps):
    assert steps()["faults_per_step"] < 50
    assert steps(**GLIBCS_DEFAULT)["faults_per_step"] > 500  # and what users set is left alone


@LINUX
def test_no_setting_changes_a_bit(steps):
    ours, plain = steps(), steps("keep_freed_memory", "load_constants", "watch")
    assert ours["threads"] == plain["threads"] == 2
    assert ours["sha256"] == plain["sha256"] == steps("sleepers")["sha256"] == steps(**GLIBCS_DEFAULT)["sha256"]
    assert steps("sleepers")["sleepers"] == 1


@LINUX
@pytest.mark.parametrize("name", memory.VARIABLES)
def test_memory_is_left_as_users_set_it(name, monkeypatch):
    assert memory.keep_freed_memory()
    monkeypatch.setenv(name, "1")
    assert not memory.keep_freed_memory()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(error, monkeypatch):
    def load(name: None) -> None:
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", load)
    assert not memory.keep_freed_memory()


# --- how threads wait ---------------------------------------------------------------------------------------

SPINNING = """
import sys, time, torch
from fmvae.common.contention import Sleepers
torch.set_num_threads(2)
x = torch.zeros(2**18)
if "sleepers" in sys.argv:
    sleepers = Sleepers(2, 2)
    assert sleepers.number == 1
x.add_(1)
time.sleep(0.2)
before = time.process_time()
for _ in range(100):
    x.add_(1)
    time.sleep(0.005)
during = time.process_time() - before
if "sleepers" in sys.argv:  # without them, threads spin again
    sleepers.end()
    time.sleep(0.2)
    before = time.process_time()
    for _ in range(100):
        x.add_(1)
        time.sleep(0.005)
    print(during, time.process_time() - before)
else:
    print(during)
"""


@LINUX
@TWO_CORES
def test_threads_that_wait_sleep_beside_sleepers_and_spin_otherwise():
    spinning = float(run(["-c", SPINNING]))
    asleep, again = map(float, run(["-c", SPINNING, "sleepers"]).split())
    assert asleep < spinning / 3
    assert asleep < again / 3


@pytest.mark.parametrize(
    ("threads", "cores", "number"),
    [(2, 2, 1), (4, 4, 1), (8, 16, 2), (3, 4, 1), (1, 2, 0), (2, 1, 0), (2, 64, 0), (2, MOST_SLEEPERS + 1, 8)],
)
def test_so_many_sleepers_that_there_are_more_threads_than_cores(threads, cores, number, monkeypatch):
    monkeypatch.setattr(Sleepers, "_sleep", lambda self: None)
    found = Sleepers(threads, cores).number
    assert found == number
    if number:
        assert 1 + (found + 1) * (threads - 1) > cores >= 1 + found * (threads - 1)


# --- the watch ----------------------------------------------------------------------------------------------


class Ended(Watch):
    """A watch that looks only when it is told what to see."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(contention, "PERIOD", 1e9)
        monkeypatch.setattr(Sleepers, "_sleep", lambda self: None)
        for name in CHOSEN:
            monkeypatch.delenv(name, raising=False)
        super().__init__()

    def see(self, share: float, seconds: float = 0.25, threads: int = 2) -> None:
        self.saw(share * seconds * threads, seconds, threads)


@LINUX
def test_threads_sleep_for_some_seconds_after_busy_cores_and_then_try_again(monkeypatch):
    watch = Ended(monkeypatch)
    watch.see(BUSY * 0.9)
    assert (watch.sleepers, watch.busy_seconds) == (None, 0)
    watch.see(BUSY * 1.1)
    first = watch.sleepers
    assert first is not None
    watch.see(0, ASLEEP - 1)
    watch.see(BUSY * 1.1, 0.5)
    assert watch.sleepers is first
    watch.see(BUSY * 1.1, 0.5)  # waiting while they sleep does not keep them asleep for ever
    assert first.ended.is_set()
    assert watch.sleepers is None
    assert watch.busy_seconds == pytest.approx(0.25 + ASLEEP)
    watch.see(0, 1)
    assert watch.sleepers is None
    assert watch.busy_seconds == pytest.approx(0.25 + ASLEEP)
    watch.see(BUSY * 1.1)
    assert watch.sleepers is not None
    watch.end()


@LINUX
@pytest.mark.parametrize("name", CHOSEN)
def test_how_users_have_threads_wait_is_left_alone(name, monkeypatch):
    watch = Ended(monkeypatch)
    monkeypatch.setenv(name, "1")
    watch.see(1.0)
    assert watch.busy_seconds > 0
    assert watch.sleepers is None
    watch.end()


@LINUX
def test_one_line_says_which_override_helps(monkeypatch, caplog):
    watch = Ended(monkeypatch)
    with caplog.at_level(logging.INFO, logger="fmvae"):
        watch.see(1.0, 1)
        assert caplog.messages == []
        for _ in range(3):
            watch.see(1.0, 2)
        assert len(caplog.messages) == 1
        assert "threads=1" in caplog.messages[0]
        alone = Ended(monkeypatch)
        alone.see(1.0, 10, threads=1)  # nothing to advise
        assert len(caplog.messages) == 1
    watch.end()
    alone.end()


@LINUX
def test_waiting_for_a_core_is_told_from_using_one(tmp_path):
    program = """
import os, subprocess, sys, time
from fmvae.common.contention import waited
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
burn = "import time; end = time.monotonic() + 1.5\\nwhile time.monotonic() < end: pass"
others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(3 * ("beside" in sys.argv))]
time.sleep(0.3 * bool(others))
before, start, used = sum(waited().values()), time.monotonic(), time.process_time()
while time.monotonic() < start + 0.8:
    pass
passed, waiting, used = time.monotonic() - start, sum(waited().values()) - before, time.process_time() - used
for other in others:
    other.wait()
assert abs(waiting + used - passed) < 0.3 * passed, (waiting, used, passed)
print(waiting / passed)
"""
    assert float(run(["-c", program, "beside"])) > 0.4


@LINUX
def test_the_watch_of_a_process_is_one_and_a_fork_has_its_own(monkeypatch):
    first = contention.watch()
    assert first is not None
    assert contention.watch() is first
    monkeypatch.setattr(os, "getpid", lambda: -1)
    other = contention.watch()
    assert other is not None
    assert other is not first
    other.end()
    monkeypatch.setattr(contention, "_watch", first)


def test_where_nobody_tells_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(contention, "TASKS", Path("/nowhere"))
    monkeypatch.setattr(contention, "_watch", None)
    assert contention.waited() is None
    assert contention.watch() is None
    assert contention.BusyShare().read() == 0.0


def test_the_share_of_busy_cores_is_that_since_the_last_reading(monkeypatch):
    class Fixed:
        seconds, busy_seconds = 10.0, 1.0

    monkeypatch.setattr(contention, "watch", lambda: Fixed)
    share = contention.BusyShare()
    assert share.read() == 0.0
    Fixed.seconds, Fixed.busy_seconds = 14.0, 2.0
    assert share.read() == 0.25
    assert share.read() == 0.0
    assert torch.get_num_threads() >= 1
