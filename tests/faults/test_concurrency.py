"""One run, started twenty times at once: one process trains it, and the others are told so."""

import re
from pathlib import Path

import pytest

from fmvae.runs.directory import RunDirectory
from tests.cli.process import ROOT, Finished, Study, refused
from tests.cli.test_exactness import COMPARED
from tests.faults.warmed import warmed
from tests.idx import write_idx_dataset

AT_ONCE = 20
HELD = r"this run is held by process (\d+) on \S+ since \S+; wait for it to finish, or stop it first"
# everyone gets the lock, once all have asked for it
UNLOCKED = """
import os, pathlib, time
import fmvae.common.locks

def attempt(lock, met=pathlib.Path({met!r})):
    (met / str(os.getpid())).touch()
    last = time.monotonic() + 60
    while len(list(met.iterdir())) < {number} and time.monotonic() < last:
        time.sleep(0.001)
    return True

fmvae.common.locks.Lock._attempt = attempt
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("concurrency")
    return Study(folder / "data", write_idx_dataset(folder / "data", 900, 800), folder / "outputs")


@pytest.fixture(scope="module")
def undisturbed(study) -> Path:
    """The run as one process makes it, left alone."""
    finished = warmed().call("train.py", *study.settings)
    assert finished.status == 0, finished
    return study.run("base-*")


def at_once(study: Study, outputs: Path, number: int, *arguments: str, prelude: str = "") -> dict[int, Finished]:
    """How so many processes of the same command ended, by their numbers; all wait for the last one to begin."""
    outputs.mkdir(exist_ok=True)
    begin = outputs / "begin"
    barrier = f"import os, time\nwhile not os.path.exists({str(begin)!r}):\n    time.sleep(0.001)\n{prelude}"
    command = [*study.settings, f"output_root={outputs}", *arguments]
    started = [warmed().start("train.py", *command, cwd=ROOT, prelude=barrier) for _ in range(number)]
    begin.touch()
    return {process: warmed().finish(process, output) for process, output in started}


def check(found: dict[int, Finished], run: Path, undisturbed: Path, begins: str) -> None:
    """That one process did the work, the others say why they did not, and the files are those of an only one."""
    workers = [process for process, finished in found.items() if begins in finished.stdout]
    (worker,) = workers
    assert found[worker].status == 0, found[worker]
    refusals = completed = 0
    for process, finished in found.items():
        if process == worker:
            continue
        if finished.status:
            line = refused(finished, f"fmvae: error: {run}: ")
            holder = re.search(HELD, line)
            # for an instant after a process took the lock, the file does not say which
            assert holder or "held by another process" in line, line
            assert holder is None or int(holder[1]) in found
            refusals += 1
        else:
            assert (finished.stderr, finished.stdout.splitlines()[0][:10]) == ("", "complete: ")
            completed += 1
    assert refusals + completed == len(found) - 1
    log = (run / "train.log").read_text()
    assert len(re.findall(rf" {begins} ", log)) == 1
    assert "Traceback" not in log
    assert [name for name in COMPARED if differ(run / name, undisturbed / name)] == []
    names = {path.name for path in run.rglob("*") if "tfevents" not in path.name}
    assert names == {path.name for path in undisturbed.rglob("*") if "tfevents" not in path.name}
    assert len(list(run.glob("*tfevents*"))) == len(list(undisturbed.glob("*tfevents*")))
    assert not RunDirectory(run).is_held()


def differ(one: Path, other: Path) -> bool:
    return one.exists() != other.exists() or (one.exists() and one.read_bytes() != other.read_bytes())


@pytest.mark.parametrize("number", [5, pytest.param(AT_ONCE, marks=pytest.mark.slow)])
def test_of_many_that_start_a_run_one_trains_it(number, study, undisturbed, tmp_path):
    found = at_once(study, tmp_path / "outputs", number)
    check(found, tmp_path / "outputs" / undisturbed.name, undisturbed, "training")


def test_of_several_that_ask_for_a_complete_run_none_trains_it(study, undisturbed, tmp_path):
    """Asking takes the lock for a moment, and nobody who only meets another one asking is refused for it."""
    ours = study.copied_to(tmp_path / "outputs")
    before = {
        name: (ours.outputs / undisturbed.name / name).read_bytes() for name in ("results.json", "status.json")
    }
    found = at_once(study, ours.outputs, AT_ONCE // 3)
    for finished in found.values():
        if finished.status:
            assert re.search(r"held by (process \d+ on \S+ since|another process)", refused(finished))
        else:
            assert finished.stdout.startswith("complete: ")
    assert sum(not finished.status for finished in found.values()) >= 1
    assert {name: (ours.outputs / undisturbed.name / name).read_bytes() for name in before} == before


def test_negative_control_without_the_lock_several_train(study, tmp_path):
    (met := tmp_path / "met").mkdir()
    found = at_once(study, tmp_path / "outputs", 3, prelude=UNLOCKED.format(met=str(met), number=3))
    (log,) = tmp_path.glob("outputs/*/train.log")
    begins = r"\b(training|resuming) /"  # whoever is late finds a checkpoint
    assert sum(bool(re.search(begins, finished.stdout)) for finished in found.values()) > 1
    assert len(re.findall(begins, log.read_text())) > 1


# --- what is taken away while a run trains ------------------------------------------------------------------

AFTER_THE_FIRST_EPOCH = """
import shutil
import fmvae.training.observers as observers

write = observers.EpochLog.on_epoch_end

def then(self, trainer, row):
    write(self, trainer, row)
    if trainer.epoch == 1:
        {act}

observers.EpochLog.on_epoch_end = then
"""
TAKEN = {
    "the directory": "shutil.rmtree(self.run.path)",
    "the directory, moved": "self.run.path.rename(self.run.path.with_name('mine'))",
    "the lock": "self.run._lock.unlink()",
    "the lock, and another's in its place": "self.run._lock.unlink(); self.run._lock.touch()",
    "everything": "shutil.rmtree(self.run.path.parent)",
}


@pytest.fixture(scope="module")
def of_two_epochs(study, tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("alone")
    finished = warmed().call("train.py", *study.settings, f"output_root={outputs}", "trainer.epochs=2")
    assert finished.status == 0, finished
    (run,) = outputs.glob("base-*")
    return run


@pytest.mark.parametrize("act", TAKEN.values(), ids=TAKEN)
@pytest.mark.one_in(3)
def test_a_run_that_was_taken_away_ends_and_can_be_made_again(act, study, of_two_epochs, tmp_path):
    command = [*study.settings, f"output_root={tmp_path}/outputs", "trainer.epochs=2"]
    finished = warmed().call("train.py", *command, prelude=AFTER_THE_FIRST_EPOCH.replace("{act}", act))
    refused(finished, "was removed or moved during training")
    again = warmed().call("train.py", *command)
    assert again.status == 0, again
    run = tmp_path / "outputs" / of_two_epochs.name
    assert [name for name in COMPARED if differ(run / name, of_two_epochs / name)] == []


def test_negative_control_unguarded_nobody_would_notice(study, tmp_path):
    act = AFTER_THE_FIRST_EPOCH.replace("{act}", TAKEN["the lock"])
    act += "from fmvae.runs.directory import RunDirectory; RunDirectory.check_held = lambda self: None"
    command = [*study.settings, f"output_root={tmp_path}/outputs", "trainer.epochs=2"]
    assert warmed().call("train.py", *command, prelude=act).status == 0
