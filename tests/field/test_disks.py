"""Disks that are no local POSIX ones: what they do not offer is done without, what fails is named.

Network and user-space file systems are simulated by replacing the calls (``tests.field.refusals``).
"""

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from fmvae.common import disk, locks
from fmvae.common.disk import file_system, if_offered, named
from fmvae.errors import LockError, of_the_machine
from fmvae.runs.directory import RunDirectory
from tests.cli.process import ROOT, call, refused, succeeded
from tests.faults.warmed import NOBODY, warmed
from tests.field.refusals import HIDDEN, NFS, NO_LOCKS, prelude
from tests.idx import write_idx_dataset

SWEEP = ["-m", "seed=0,1", "sweep_name=s"]

REFUSALS = {
    "NFS: no exclusive lock of who only reads": NFS,
    "directories are not synced (EINVAL)": prelude(("fsync", "EINVAL", "directories")),
    "directories are not synced (ENOTSUP)": prelude(("fsync", "ENOTSUP", "directories")),
    "directories are not synced (ENOSYS)": prelude(("fsync", "ENOSYS", "directories")),
    "nothing is synced": prelude(("fsync", "ENOSYS")),
    "no rights (ENOTSUP)": prelude(("fchmod", "ENOTSUP")),
    "no rights (EPERM)": prelude(("fchmod", "EPERM")),
    "inodes without rest": prelude() + "restless_inodes()",
}


@pytest.mark.parametrize("disk_", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.one_in(8)
def test_what_a_disk_does_not_offer_is_done_without(study, disk_):
    """A sweep, the same again, its status, report and verification, and a run that goes on."""
    train = [*study.settings, *SWEEP]
    assert "2 complete" in succeeded(warmed().call("train.py", *train, prelude=disk_))
    assert "2 of 2 runs are complete" in succeeded(warmed().call("train.py", *train, prelude=disk_))
    sweep = str(study.outputs / "s")
    assert "2 complete" in succeeded(warmed().call("fmvae.report", "status", sweep, prelude=disk_))
    succeeded(warmed().call("fmvae.report", sweep, prelude=disk_))
    assert "files whole" in succeeded(warmed().call("fmvae.verify", sweep, "--files", prelude=disk_))
    run = sorted((study.outputs / "s").glob("base-*"))[0]
    (run / "results.json").unlink()
    assert "2 complete" in succeeded(warmed().call("train.py", *train, prelude=disk_))


@pytest.mark.parametrize(("call_", "of"), [("fsync", "all"), ("fsync", "directories"), ("fchmod", "all")])
def test_a_disk_that_fails_is_an_error_that_names_a_file(study, call_, of):
    finished = warmed().call("train.py", *study.settings, prelude=prelude((call_, "EIO", of)))
    line = refused(finished, "Input/output error", str(study.outputs.parent))
    assert "output: " not in line


def test_doing_without_is_what_makes_it_work(study):
    """The control: with every refusal an error, nothing runs."""
    strict = prelude(("fsync", "EINVAL", "directories")) + "import fmvae.common.disk as d; d.NOT_OFFERED = ()"
    refused(warmed().call("train.py", *study.settings, prelude=strict), "Invalid argument")


@pytest.mark.parametrize("error", ["ENOSYS", "ENOTSUP", "ENOLCK", "EINVAL"])
def test_a_disk_without_locks_is_refused_with_the_lock_file_its_kind_and_the_way_out(study, error):
    finished = warmed().call("train.py", *study.settings, prelude=prelude(("flock", error)))
    line = refused(finished, "lock", os.strerror(getattr(errno, error)), "output_root=")
    assert str(study.outputs / ".locks") in line
    assert f"({file_system(study.outputs)})" in line
    assert not list(study.outputs.glob("base-*"))


def test_a_lock_on_a_failing_disk_is_no_disk_without_locks(study):
    """Nor is its run taken for one that trains, because its status says so."""
    finished = warmed().call("train.py", *study.settings, prelude=prelude(("flock", "ESTALE")))
    line = refused(finished, str(study.outputs / ".locks"), os.strerror(errno.ESTALE))
    assert "support locks" not in line


def test_a_file_is_closed_when_waiting_for_its_lock_is_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "x.lock"

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with locks.held(path, ""):
        monkeypatch.setattr(locks.time, "sleep", interrupt)
        waiting = locks.Lock(path, "")
        with pytest.raises(KeyboardInterrupt):
            waiting.take(5)
    assert waiting._file is None
    assert not locks.is_locked(path)


def test_asking_makes_no_file(tmp_path):
    assert not locks.is_locked(tmp_path / "x.lock")
    assert not list(tmp_path.iterdir())


def test_who_only_looks_needs_no_locks(study):
    succeeded(warmed().call("train.py", *study.settings, *SWEEP))
    sweep = str(study.outputs / "s")
    assert "2 complete" in succeeded(warmed().call("fmvae.report", "status", sweep, prelude=NO_LOCKS))
    succeeded(warmed().call("fmvae.report", sweep, prelude=NO_LOCKS))


def test_a_dataset_is_fetched_only_where_there_are_locks(tmp_path, monkeypatch):
    """The lock of the fetchers says the same, with its own way out."""
    code = NO_LOCKS + (
        "from fmvae.data import sources; from pathlib import Path\n"
        f"sources.SYSTEM_ROOT = Path({str(tmp_path / 'none')!r})\n"
        f"sources.load_dataset(download_to={str(tmp_path / 'here')!r})"
    )
    said = call("-c", code).stderr.splitlines()[-1]
    assert "LockError" in said
    assert "does not support locks" in said
    assert "data.download_to=" in said


# --- errors without a name ----------------------------------------------------------------------------------


def test_an_error_without_a_file_gets_its_name():
    with pytest.raises(OSError, match="/a/b") as caught, named(Path("/a/b")):
        raise OSError(errno.EIO, "Input/output error")
    assert str(of_the_machine(caught.value)).startswith("/a/b: ")
    with pytest.raises(OSError, match="/other") as caught, named(Path("/a/b")):
        raise OSError(errno.EIO, "Input/output error", "/other")
    with pytest.raises(BrokenPipeError) as pipe, named(Path("/a/b")):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert pipe.value.filename is None


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_what_is_not_offered_is_no_error(number):
    with if_offered():
        raise OSError(number, "")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EBADF])
def test_a_failing_disk_stays_an_error(number):
    with pytest.raises(OSError), if_offered():
        raise OSError(number, "")


def test_the_kind_of_a_file_system_is_that_of_the_longest_mount(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4 rw\nb /data nfs4 rw\nc /data/my\\040disk fuse.sshfs rw\nd /data cifs rw\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    assert file_system(Path("/home/x")) == "ext4"
    assert file_system(Path("/data/x")) == "cifs"  # mounted over the other
    assert file_system(Path("/data/my disk/x")) == "fuse.sshfs"
    assert file_system(Path("/database")) == "ext4"
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "none")
    assert file_system(Path("/x")) == ""


# --- the lock itself ----------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from fmvae.common.locks import held
with held(Path(sys.argv[1]), "") as lock:
    print("held", flush=True)
    time.sleep(60)
"""
SOFT = "import sys; sys.modules['fcntl'] = None\n"  # as in a Python without it


@pytest.mark.parametrize("kind", ["native", "soft"])
def test_a_killed_holder_leaves_nothing_stale(tmp_path, monkeypatch, kind):
    path = tmp_path / "x.lock"
    code = (SOFT if kind == "soft" else "") + HOLDER
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(locks, "NATIVE", kind == "native")
    try:
        assert locks.is_locked(path)
        with locks.held(path, "", 0.2) as lock:
            assert lock is None
    finally:
        holder.kill()
        holder.wait()
    assert not locks.is_locked(path)
    with locks.held(path, "", 0) as lock:
        assert lock
        assert locks.is_locked(path)
    assert not locks.is_locked(path)


def test_a_lock_that_is_waited_for_is_had(tmp_path):
    path = tmp_path / "x.lock"
    first = locks.Lock(path, "")
    assert first.take()
    start = time.monotonic()
    threading.Timer(0.3, first.release).start()
    with locks.held(path, "") as lock:
        assert lock
    assert time.monotonic() - start >= 0.3


def test_another_users_lock_can_be_asked_without_the_right_to_write():
    with tempfile.TemporaryDirectory() as name:  # which other users can reach, unlike pytest's own
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "x.lock"
        path.touch()
        path.chmod(0o444)
        code = f"""
import os
from pathlib import Path
from fmvae.common.locks import is_locked
if not os.getuid():
    os.setgid({NOBODY}); os.setuid({NOBODY})
print(os.access({str(path)!r}, os.W_OK), is_locked(Path({str(path)!r})))
"""
        answers = [call("-c", code).stdout]
        with locks.held(path, ""):
            answers.append(call("-c", code).stdout)
    assert answers == ["False False\n", "False True\n"]


def test_a_run_whose_lock_cannot_be_asked_is_what_its_status_says(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "base-b1-z2-s0-00000000")
    run.path.mkdir()

    def refusing(path: Path) -> bool:
        raise LockError(path, "takes no lock", "look elsewhere")

    monkeypatch.setattr(locks, "is_locked", refusing)
    for state in ("running", "complete"):
        run.status.write_text(json.dumps({"state": state, "run": run.name}))
        assert run.is_held() == (state == "running")


# --- no fcntl, no SIGHUP ------------------------------------------------------------------------------------


STOPS = """
import os, signal
from fmvae.training.observers import EpochLog
told = EpochLog.on_epoch_end
def stop_after_one(self, trainer, row):
    told(self, trainer, row)
    os.kill(os.getpid(), signal.SIGINT)
EpochLog.on_epoch_end = stop_after_one
"""


@pytest.mark.slow
def test_it_trains_where_there_is_no_fcntl_and_no_sighup(study):
    """As on Windows, but for its own locks, which filelock has: a run, the same again, and its verification."""
    hidden = "import sys; sys.modules['fcntl'] = None\n" + HIDDEN
    program = "import runpy; sys.argv[0] = {0!r}; runpy.run_path({0!r}, run_name='__main__')"
    train = hidden + program.format(str(ROOT / "train.py"))
    settings = [*study.settings, "trainer.epochs=2"]
    stopped = call("-c", hidden + STOPS + program.format(str(ROOT / "train.py")), *settings)
    assert (stopped.status, stopped.stderr) == (130, "interrupted; repeat the command to continue\n")
    resumed = succeeded(call("-c", train, *settings))
    assert "resuming" in resumed
    assert "complete" in succeeded(call("-c", train, *settings))
    (run,) = study.outputs.glob("base-*")
    undisturbed = succeeded(warmed().call("train.py", *settings, f"output_root={study.outputs / 'other'}"))
    assert "training" in undisturbed
    (other,) = study.outputs.glob("other/base-*")
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes()
    verify = hidden + "import runpy; runpy.run_module('fmvae.verify', run_name='__main__')"
    assert "equal bit for bit" in succeeded(call("-c", verify, str(run)))
    assert not list(study.outputs.rglob("*.process"))  # what stands for the lock is gone with its holder


def test_hiding_fcntl_is_noticed():
    """The control: what needs it fails in such a process."""
    assert call("-c", "import sys; sys.modules['fcntl'] = None; import fcntl").status != 0


def test_windows_opens_no_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "open", None)
    disk.sync_directory(tmp_path)


@pytest.mark.slow
def test_a_dataset_is_found_without_fcntl(tmp_path):
    sha256 = write_idx_dataset(tmp_path, 20, 20)
    code = (
        SOFT + f"from fmvae.data.sources import load_dataset; load_dataset({str(tmp_path)!r}, sha256={sha256!r})"
    )
    assert call("-c", code).status == 0
