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
@pytest.mark.slow
def test_steps_after_the_first_epoch_cause_no_page_faults_and_glibcs_default_does(steps):
    assert steps("watch")["faults_per_step"] < 50  # without the watch, which starts threads on busy cores
    assert steps(**GLIBCS_DEFAULT)["faults_per_step"] > 500  # and what users set is left alone


@LINUX
def test_no_setting_changes_a_bit(steps):
    ours, plain = steps(), steps("keep_freed_memory", "load_constants", "watch")
    assert ours["threads"] == plain["threads"] == 2
    assert ours["sha256"] == plain["sha256"] == steps(**GLIBCS_DEFAULT)["sha256"]


@LINUX
@pytest.mark.slow
def test_threads_that_sleep_change_no_bit(steps):
    assert steps("sleepers")["sha256"] == steps()["sha256"]
    assert steps("sleepers")["sleepers"] == 1


@LINUX
@pytest.mark.parametrize("name", memory.VARIABLES)
def test_memory_is_left_as_users_set_it(name, monkeypatch):
    assert memory.keep_freed_memory()
    monkeypatch.setenv(name, "1")
    assert not memory.keep_freed_memory()


@pytest.mark.parametrize(
    ("largest", "accepted", "calls"),
    [
        (2**30, True, [(-3, 2**30), (-1, 2**31 - 1)]),
        (2**25, True, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]),  # glibc before 2.35
        (0, False, [(-3, 2**30), (-3, 2**25)]),  # trimming alone would end glibc's own adaptation
    ],
)
def test_what_old_versions_of_glibc_refuse_is_not_half_done(largest, accepted, calls, monkeypatch):
    seen: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            seen.append((parameter, value))
            return int(parameter != -3 or value <= largest)

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library)
    for name in memory.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert memory.keep_freed_memory() == accepted
    assert seen == calls


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
@pytest.mark.slow
def test_threads_that_wait_sleep_beside_sleepers_and_spin_otherwise():
    def ratio() -> float:
        """The CPU time beside sleepers, as a share of that before them and after."""
        spinning = float(run(["-c", SPINNING]))
        asleep, again = map(float, run(["-c", SPINNING, "sleepers"]).split())
        return asleep / min(spinning, again)

    assert any(ratio() < 1 / 3 for _ in range(3))  # on loaded cores spinning threads may get little time


ENDING = """
import atexit, os, sys, time
import torch
from fmvae.common import contention
os.sched_getaffinity = lambda process: {0, 1}
contention.CHUNK = 2**25  # the operation that makes a team takes some tenths of a second
torch.set_num_threads(2)
watch = contention.watch()
if "abruptly" in sys.argv:
    atexit.unregister(watch.end)
watch.saw(10.0, 1.0)
assert watch.sleepers.number == 1
time.sleep(0.02)
"""


@LINUX
@pytest.mark.slow
def test_a_process_that_ends_while_a_sleeper_makes_its_team_ends_well():
    run(["-c", ENDING])
    with pytest.raises(AssertionError, match="terminate called"):  # the control: an abort
        run(["-c", ENDING, "abruptly"])


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


class Told(Watch):
    """A watch of a process on two cores that sees only what it is told."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(Watch, "_run", lambda self: None)
        monkeypatch.setattr(Sleepers, "_sleep", lambda self: None)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
        for name in CHOSEN:
            monkeypatch.delenv(name, raising=False)
        super().__init__()
        self.threads = 2

    def see(self, share: float, seconds: float = 0.25) -> None:
        self.saw(share * seconds * self.threads, seconds)


def test_threads_sleep_for_some_seconds_after_busy_cores_and_then_try_again(monkeypatch):
    watch = Told(monkeypatch)
    watch.see(BUSY * 0.9)
    assert (watch.sleepers, watch.told) == (None, (0.25, 0))
    watch.see(BUSY * 1.1)
    first = watch.sleepers
    assert first is not None
    watch.see(0, ASLEEP - 1)
    watch.see(BUSY * 1.1, 0.5)
    assert watch.sleepers is first
    watch.see(BUSY * 1.1, 0.5)  # waiting while they sleep does not keep them asleep for ever
    assert first.ended.is_set()
    assert watch.sleepers is None
    watch.see(0, 1)
    assert watch.sleepers is None
    assert watch.told == (pytest.approx(1.5 + ASLEEP), pytest.approx(0.25 + ASLEEP))
    watch.see(BUSY * 1.1)
    assert watch.sleepers is not None


@pytest.mark.parametrize("name", CHOSEN)
def test_how_users_have_threads_wait_is_left_alone(name, monkeypatch):
    watch = Told(monkeypatch)
    monkeypatch.setenv(name, "1")
    watch.see(1.0)
    assert watch.told == (0.25, 0.25)
    assert watch.sleepers is None


def test_threads_that_wait_for_each_other_are_no_other_processes(monkeypatch, caplog):
    watch = Told(monkeypatch)
    watch.threads = 3
    for _ in range(5):
        watch.see(1.0)
    assert (watch.sleepers, watch.told[1], caplog.messages) == (None, 0, [])


def test_one_line_says_which_override_helps(monkeypatch, caplog):
    watch = Told(monkeypatch)
    with caplog.at_level(logging.INFO, logger="fmvae"):
        watch.see(1.0)
        watch.see(1.0, ASLEEP)  # asleep: this says nothing
        assert caplog.messages == []
        for _ in range(3):
            watch.see(1.0)
            watch.see(1.0, ASLEEP)
        assert len(caplog.messages) == 1
        assert "threads=1" in caplog.messages[0]
        alone = Told(monkeypatch)
        alone.threads = 1  # nothing to advise
        for _ in range(9):
            alone.see(1.0, 10)
        assert len(caplog.messages) == 1
        assert alone.told[1] > 0


@LINUX
@pytest.mark.slow
def test_waiting_for_a_core_is_told_from_using_one():
    program = """
import os, subprocess, sys, time
from fmvae.common.contention import waited
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
burn = "import time; end = time.monotonic() + 1.0\\nwhile time.monotonic() < end: pass"
others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(3 * ("beside" in sys.argv))]
time.sleep(0.2 * bool(others))
before, start, used = sum(waited().values()), time.monotonic(), time.process_time()
while time.monotonic() < start + 0.5:
    pass
passed, waiting, used = time.monotonic() - start, sum(waited().values()) - before, time.process_time() - used
for other in others:
    other.wait()
print(waiting / passed)
"""
    alone, beside = (float(run(["-c", program, *option])) for option in ([], ["beside"]))
    assert beside > 0.4
    assert beside > alone


@LINUX
def test_the_watch_of_a_process_is_one_and_a_fork_has_its_own(monkeypatch):
    monkeypatch.setattr(contention, "_watch", None)
    first = contention.watch()
    assert first is not None
    assert contention.watch() is first
    first.end()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    other = contention.watch()
    assert other is not None
    assert other is not first
    other.end()


@LINUX
def test_the_watch_learns_of_another_number_of_threads(monkeypatch):
    monkeypatch.setattr(contention, "_watch", None)
    before = torch.get_num_threads()
    try:
        watch = contention.watch()
        assert watch is not None
        for threads in (2, 1):
            torch.set_num_threads(threads)
            assert contention.watch() is watch
            assert watch.threads == threads
        watch.end()
    finally:
        torch.set_num_threads(before)


def test_where_nobody_tells_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(contention, "TASKS", Path("/nowhere"))
    monkeypatch.setattr(contention, "_watch", None)
    assert contention.waited() is None
    assert contention.watch() is None
    assert contention.BusyShare().read() == 0.0


def test_the_share_of_busy_cores_is_that_since_the_last_reading(monkeypatch):
    class Fixed:
        told = (10.0, 1.0)

    monkeypatch.setattr(contention, "watch", lambda: Fixed)
    share = contention.BusyShare()
    assert share.read() == 0.0
    Fixed.told = (14.0, 2.0)
    assert share.read() == 0.25
    assert share.read() == 0.25  # an epoch shorter than the time between two looks
    Fixed.told = (15.0, 2.0)
    assert share.read() == 0.0
