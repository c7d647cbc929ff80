"""Whatever happens to a run, the same command ends with an undisturbed one's bits, and no file is ever partial.

A few trials of each kind; ``make test-crash`` makes all of them (tests/faults/campaign.py).
"""

import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fmvae.runs.directory import RunDirectory
from tests.faults.disk import prelude
from tests.faults.power import LOSSES, cut, read_journal, write
from tests.faults.trials import CASES, Bench, broken, run_in
from tests.faults.warmed import warmed

SEED = random.randrange(2**32)  # new moments each time; a failure shows them


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def undisturbed(bench):
    """An undisturbed run's calls on the disk, and where it lay."""
    return bench.journal("base")


@pytest.fixture
def chance(request) -> random.Random:
    print("seed", SEED)
    return random.Random(f"{SEED} {request.node.name}")


# --- killed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.one_in(10)
def test_killed_at_random_moments(case, kills, bench, chance):
    outcome = bench.kill(case, [chance.uniform(0.1, 1) for _ in range(kills)])
    assert outcome.good, outcome


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.one_in(3)
def test_killed_at_a_call_on_the_disk(share, bench, undisturbed, chance):
    _, calls = undisturbed
    at = chance.randint(int((share - 0.1) * len(calls)) + 1, int((share + 0.1) * len(calls)))
    # a run may make a few calls fewer: events are also flushed by the clock
    outcome = next(
        filter(None, (bench.fail("base", earlier, "kill") for earlier in range(at, max(at - 10, 0), -1)))
    )
    assert outcome.status == -signal.SIGKILL
    assert outcome.good, (at, outcome)


def test_negative_control_files_written_in_place_are_seen_half_written(bench, tmp_path):
    """Killed at the first write of a checkpoint's content, which would have taken the place of the one before."""
    in_place = """
import os
import fmvae.runs.checkpoint as c, fmvae.runs.files as f
import tests.faults.disk as d

def write(path, content):
    path.parent.mkdir(exist_ok=True)
    open(path, "wb", 0).write(content)

def point(self, kind, path, *details, data=None):
    if kind == "write" and path.endswith("last.safetensors"):
        os.kill(os.getpid(), 9)

f.write_bytes = c.write_bytes = write
d.Disk.point = point
"""
    outputs = tmp_path / "outputs"
    done = bench.call("base", outputs, in_place + prelude(outputs))
    assert done.status == -signal.SIGKILL
    assert any("last.safetensors" in problem for problem in broken(outputs))


# --- a disk that fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("how", ["ENOSPC", "EIO"])
@pytest.mark.one_in(3)
def test_a_disk_that_fails(how, persistent, bench, undisturbed, chance):
    _, calls = undisturbed
    for part in range(2):
        at = chance.randint(1 + part * len(calls) // 3, (part + 1) * len(calls) // 3)
        outcome = bench.fail("base", at, how, persistent)
        assert outcome is not None
        assert outcome.good, (at, outcome)
        assert outcome.status == 1 or not persistent, (at, outcome)


def test_a_call_that_is_never_made_fails_nobody(bench):
    assert bench.fail("base", 10_000, "EIO") is None


def mounted(folder: Path, size: str) -> list[str] | None:
    """The words before a command that runs it beside a small disk in ``folder``; None if nobody may mount one."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    for words in (["unshare", "-m", "sh", "-c"], ["unshare", "-Urm", "sh", "-c"]):
        if subprocess.run([*words, mount], capture_output=True).returncode == 0:
            return [*words, f'{mount} && "$@"', "sh"]
    return None


@pytest.mark.slow
def test_a_real_disk_that_is_full(bench, tmp_path):
    """A tmpfs with room for one checkpoint; the same command on a larger one, with what was saved, finishes."""
    import sys

    folder = tmp_path / "small"
    folder.mkdir()
    words = mounted(folder, "600k")
    if words is None:
        pytest.skip("a small disk can't be mounted here: no root, and no user namespaces")
    command = [sys.executable, str(Path("train.py").resolve()), *bench.command("base", folder / "outputs")]
    script = '"$@"; status=$?; cp -r outputs saved; echo status $status; df . | tail -1'
    save = f"cd {folder}; " + script.replace("saved", str(tmp_path / "saved"))
    done = subprocess.run([*words, "sh", "-c", save, "sh", *command], capture_output=True, text=True, timeout=300)
    assert "status 1" in done.stdout, done
    assert "No space left on device; check the path, its permissions and the free space" in done.stderr, done
    assert "Traceback" not in done.stderr
    saved = tmp_path / "saved"
    assert not list(broken(saved))
    assert RunDirectory(run_in(saved)).last.exists(), "the disk is too small to test anything"
    shutil.copytree(saved, folder / "outputs")  # more space
    assert bench.call("base", folder / "outputs", "").status == 0
    assert not bench.differing("base", folder / "outputs")


# --- power --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_no_power_cut_leaves_a_partial_file_or_takes_a_checkpoint_that_was_there(
    loss, undisturbed, tmp_path, chance
):
    outputs, calls = undisturbed
    saved = False
    for end in range(0, len(calls) + 1, 2 if loss == "random" else 1):
        left = tmp_path / str(end)
        write(cut(calls[:end], outputs, loss, chance), outputs, left)
        assert not list(broken(left)), (end, calls[end - 1][:2])
        there = any(path.name == "last.safetensors" for path in left.rglob("*"))
        assert there or not saved, (end, calls[end - 1][:2])
        # certain once the name is synced, whatever is lost
        saved = saved or (end > 0 and loss == "all" and there)
        shutil.rmtree(left)
    assert loss != "all" or saved, "the whole run would be lost"


def test_after_a_power_cut_the_bits_are_the_same(bench, undisturbed, chance):
    _, calls = undisturbed
    for loss in LOSSES:
        end = chance.randint(len(calls) // 4, len(calls))
        outcome = bench.cut("base", end, loss, chance)
        assert outcome.good, (loss, end, outcome)


@pytest.mark.parametrize("forgotten", ["files", "directories"])
def test_negative_control_without_a_sync_it_would_show(forgotten, undisturbed, tmp_path, chance):
    outputs, calls = undisturbed
    names = {call[1] for call in calls if call[0] == "open"}
    kept = [call for call in calls if call[0] != "fsync" or (call[1] in names) != (forgotten == "files")]
    assert len(kept) < len(calls)
    loss = "contents" if forgotten == "files" else "all"
    write(cut(kept, outputs, loss, chance), outputs, tmp_path / "left")
    if forgotten == "files":
        assert any("last.safetensors" in problem for problem in broken(tmp_path / "left"))
    else:
        assert not list((tmp_path / "left").rglob("*.safetensors"))


def test_a_journal_without_a_loss_gives_the_files_as_they_are(bench, tmp_path):
    """The model of the disk against the disk."""
    outputs, journal = tmp_path / "outputs", tmp_path / "calls"
    assert bench.call("base", outputs, prelude(outputs, journal=str(journal))).status == 0
    calls = read_journal(journal)
    synced = [["fsync", str(path)] for path in [*outputs.rglob("*"), outputs]]
    write(cut([*calls, *synced], outputs, "all", random.Random(0)), outputs, tmp_path / "again")
    for path in outputs.rglob("*"):
        again = tmp_path / "again" / path.relative_to(outputs)
        assert again.exists(), path
        assert path.is_dir() or path.read_bytes() == again.read_bytes(), path


# --- asked to stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["SIGTERM", "Ctrl-C", "SIGHUP"]
)
@pytest.mark.one_in(6)
def test_asked_to_stop_once_or_twice(number, times, bench, chance):
    outcome = bench.stop("batch norm", chance.uniform(0.2, 0.9), [number] * times)
    assert outcome.good, outcome
    assert outcome.status in (0, 128 + number), outcome


def test_the_warm_process_is_alive_to_the_end():
    """Whatever its forks went through."""
    assert warmed().call("train.py", "--help").status == 0
    assert warmed().process.poll() is None
