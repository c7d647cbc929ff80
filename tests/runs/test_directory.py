"""fmvae.runs.directory: a run is its config, is held by one process, and knows where it stands."""

import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fmvae.common.digests import canonical_json
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.stored import read_config
from fmvae.errors import ConfigError, HeldError, RunError
from fmvae.runs.checkpoint import save_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record, write_record
from fmvae.runs.resuming import newest_checkpoint
from fmvae.runs.timing import Pace, Timing
from fmvae.sweeps.directory import progress

OURS, THEIRS = "ab" * 32, "cd" * 32


def config(**changes: Any) -> dict[str, Any]:
    """A config such as a run's, with some keys (dots as ``__``) changed."""
    made: dict[str, Any] = {
        "seed": 0,
        "device": "auto",
        "output_root": "outputs",
        "model": {"_name_": "base", "hidden_dim": 400},
        "beta": {"value": 1.0},
        "latent_dim": {"value": 2},
        "data": {"root": None, "batch_size": 128},
        "trainer": {"epochs": 30, "progress": True},
        "figures": {"every": 5},
    }
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        node = made
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return made


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "outputs" / f"base-b1-z2-s0-{OURS[:8]}")


# --- identity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "base-b1-z2-s0"),
        ({"beta__value": 0.5}, "base-b0.5-z2-s0"),
        ({"beta__value": 1}, "base-b1-z2-s0"),
        ({"beta__value": 1e-5}, "base-b1e-05-z2-s0"),
        ({"beta__value": 1e6}, "base-b1e06-z2-s0"),
        ({"beta__value": 1e-6}, "base-b1e-06-z2-s0"),
        ({"seed": 42, "latent_dim__value": 10, "model__hidden_dim": 8}, "base-b1-z10-s42"),
        ({"model": {"_name_": "a=b/c ü,[d]"}}, "abcd-b1-z2-s0"),
    ],
)
def test_a_run_is_named_by_what_people_compare(changes, expected):
    name = RunIdentity.of(config(**changes)).name
    assert name == f"{expected}-{RunIdentity.of(config(**changes)).sha256[:8]}"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)  # a "=" could not be passed back as an override


def test_the_identity_is_the_sha256_of_the_canonical_config():
    assert RunIdentity.of(config()).sha256 == hashlib.sha256(canonical_json(semantic(config()))).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"},
        {"output_root": "elsewhere"},
        {"data__root": "/data"},
        {"trainer__progress": False},
        {"figures__every": 0},
        {"figures__new_key": 1},
        {"beta__value": 1},
    ],
)
def test_what_changes_no_number_leaves_the_identity(changes):
    assert RunIdentity.of(config(**changes)).sha256 == RunIdentity.of(config()).sha256
    assert RunIdentity.of(config(**changes)).name == RunIdentity.of(config()).name


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"beta__value": 1.0000001},
        {"trainer__epochs": 31},
        {"data__batch_size": 64},
        {"model__hidden_dim": 401},
        {"a_new_key": 0},
        {"model__a_new_key": None},
    ],
)
def test_whatever_could_change_a_number_changes_the_identity(changes):
    assert RunIdentity.of(config(**changes)).name != RunIdentity.of(config()).name


def test_the_order_of_a_config_is_not_part_of_it():
    assert RunIdentity.of(dict(reversed(config().items()))).sha256 == RunIdentity.of(config()).sha256


def test_a_run_is_shown_as_it_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(RunDirectory(tmp_path / "outputs" / "a")) == str(Path("outputs") / "a")
    assert str(RunDirectory(Path("outputs/a"))) == str(Path("outputs") / "a")
    assert str(RunDirectory(tmp_path.parent / "b")) == str(tmp_path.parent / "b")


# --- the lock --------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from fmvae.runs.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_is_held_by_one_process_until_it_ends_however_it_ends(run):
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        refused = pytest.raises(RunError, match=rf"is held by process {holder.pid} on \S+ since \d{{4}}-")
        with refused, run.held():
            pass
        with RunDirectory(run.path.with_name("another")).held():
            pass  # other runs are free
        holder.send_signal(signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
    with run.held():
        pass


def test_a_run_is_held_once_within_a_process_too(run):
    with run.held():
        pass
    with run.held():
        refusal = pytest.raises(RunError, match=f"is held by process {os.getpid()} on")
        with refusal as refused, RunDirectory(run.path).held():
            pass
        assert str(refused.value).count("since") == 1  # earlier holders are forgotten
    with run.held():
        pass


def test_a_run_is_free_again_after_a_failure(run):
    with pytest.raises(KeyError), run.held():
        raise KeyError
    with run.held():
        pass


def test_the_lock_stands_when_the_directory_is_moved_aside(run):
    run.path.mkdir(parents=True)
    with run.held():
        run.move_aside()
        assert not run.path.exists()
        with pytest.raises(RunError, match="is held by"), RunDirectory(run.path).held():
            pass


def test_holding_a_run_writes_nothing_into_it(run):
    run.path.mkdir(parents=True)
    with run.held():
        assert list(run.path.iterdir()) == []


# --- where it stands -----------------------------------------------------------------------------------------


def write_checkpoint(path: Path, epoch: int, sha256: str = OURS) -> None:
    meta = {"epoch": epoch, "config_sha256": sha256, "run": f"run-of-{sha256[:2]}"}
    save_checkpoint(path, {"model.w": torch.full((4,), float(epoch))}, meta)


def finish(run: RunDirectory, sha256: str = OURS) -> None:
    write_checkpoint(run.last, 3, sha256)
    write_record(run.results, {"config_sha256": sha256, "test": {"kl": 1.0}})
    run.write_status("complete", epoch=3, epochs=3)


def test_a_run_goes_from_new_through_partial_and_failed_to_complete(run):
    assert run.state(OURS) == "new"
    run.path.mkdir(parents=True)
    run.config.write_text("seed: 0\n")
    assert run.state(OURS) == "new"  # a config alone is nothing to continue
    run.write_status("running", epoch=0, epochs=3)
    assert run.state(OURS) == "partial"
    write_checkpoint(run.last, 1)
    assert run.state(OURS) == "partial"
    run.write_status("failed", error="why")
    assert run.state(OURS) == "failed"
    finish(run)
    assert run.state(OURS) == run.state() == "complete"


def test_checkpoints_alone_make_a_partial_run(run):
    write_checkpoint(run.best, 1)
    assert run.state(OURS) == "partial"


def test_results_of_another_config_are_not_this_runs(run):
    finish(run, THEIRS)
    assert run.state(THEIRS) == "complete"
    assert run.state(OURS) == run.state() == "partial"  # the directory is named by its own


def test_results_without_the_word_of_completion_are_not_complete(run):
    finish(run)
    run.write_status("running", epoch=3, epochs=3)
    assert run.state(OURS) == "partial"


def test_a_status_of_another_run_says_nothing_of_this_one(run):
    finish(run)
    other = RunDirectory(run.path.with_name("base-b1-z2-s1-89abcdef"))
    other.path.mkdir()
    other.write_status("failed", error="theirs")
    run.status.write_bytes(other.status.read_bytes())
    assert run.read_status() == {}
    assert run.state(OURS) == "partial"
    old = RunDirectory(run.path.rename(run.path.with_name(f"{run.path.name}.old-1")))
    finish(run)
    old.status.write_bytes(run.status.read_bytes())
    assert old.read_status()["state"] == "complete"  # its own, moved aside


@pytest.mark.parametrize("content", ["", "{", "[]", '"complete"'])
def test_a_damaged_status_is_not_complete_and_not_an_error(content, run):
    finish(run)
    run.status.write_text(content)
    assert run.read_status() == {}
    assert run.state(OURS) == "partial"


@pytest.mark.parametrize("wrong", ['"x"', "[1]", "NaN", "1e999", "-1", "1.5", "null", "true", str(10**400)])
def test_an_epoch_that_is_no_count_is_as_good_as_unknown(wrong, run):
    run.write_status("running", epoch=2, epochs=3)
    run.status.write_text(run.status.read_text().replace('"epoch": 2', f'"epoch": {wrong}'))
    assert "epoch" not in run.read_status()
    assert (run.read_status()["state"], run.read_status()["epochs"]) == ("running", 3)
    told = progress(run)
    assert (told.epoch, told.epochs, told.seconds_left) == (0, 3, None)


@pytest.mark.parametrize(
    "wrong", ['["a"]', "[NaN]", "[1e999]", "[-1]", "{}", "[]", "[[1]]", "[null]", f"[{10**400}]", '"ab"']
)
def test_times_that_are_none_give_no_forecast(wrong, run):
    run.path.mkdir(parents=True, exist_ok=True)
    run.timing.write_text('{"epoch_seconds": [3.0, 4.0, 5.0]}')
    assert Timing.read(run).pace() == Pace(4.0, False)
    run.timing.write_text(f'{{"epoch_seconds": {wrong}}}')
    assert Timing.read(run).pace() is None


def test_what_cannot_be_read_is_an_error_that_names_it(run):
    run.results.mkdir(parents=True)
    run.config.mkdir()
    with pytest.raises(RunError, match=r"results.json"):
        read_record(run.results)
    with pytest.raises(ConfigError, match=r"config.yaml"):
        read_config(run.config)


def test_damaged_results_are_not_complete_and_say_so(run, caplog):
    finish(run)
    run.results.write_text(run.results.read_text().replace("1.0", "2.0"))
    with caplog.at_level(logging.WARNING):
        assert run.state(OURS) == "partial"
    assert "does not match its digest" in caplog.text


def test_missing_results_are_no_reason_to_warn(run, caplog):
    finish(run)
    run.results.unlink()
    with caplog.at_level(logging.WARNING):
        assert run.state(OURS) == "partial"
    assert caplog.text == ""


def test_a_status_says_who_and_where(run):
    run.write_status("running", epoch=2, epochs=3)
    status = run.read_status()
    assert (status["state"], status["epoch"], status["epochs"]) == ("running", 2, 3)
    assert status["pid"] == os.getpid()
    assert {"host", "updated"} <= set(status)


# --- moving aside ----------------------------------------------------------------------------------------------


def test_moving_aside_keeps_everything_and_numbers_up(run):
    assert run.move_aside() is None
    for n in (1, 2, 3):
        write_checkpoint(run.last, n)
        run.log.write_text(f"log {n}")
        assert run.move_aside() == run.path.with_name(f"{run.path.name}.old-{n}")
        assert run.state() == "new"
    for n in (1, 2, 3):
        old = RunDirectory(run.path.with_name(f"{run.path.name}.old-{n}"))
        assert old.log.read_text() == f"log {n}"
        checkpoint = newest_checkpoint(old, OURS)
        assert checkpoint
        assert checkpoint.meta["epoch"] == n


# --- the checkpoint to resume from -----------------------------------------------------------------------------


def newest_epoch(run: RunDirectory) -> int | None:
    checkpoint = newest_checkpoint(run, OURS)
    return checkpoint and checkpoint.meta["epoch"]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_new_run_has_no_checkpoint(run):
    assert newest_checkpoint(run, OURS) is None


@pytest.mark.parametrize(("last", "previous", "best"), [(5, 4, 3), (4, 5, 3), (4, 3, 5)])
def test_the_newest_epoch_is_resumed_from_whatever_its_name(last, previous, best, run):
    for path, epoch in ((run.last, last), (run.previous, previous), (run.best, best)):
        write_checkpoint(path, epoch)
    assert newest_epoch(run) == 5


def test_damaged_checkpoints_are_passed_over_one_by_one(run, caplog):
    files = [(run.last, 5), (run.previous, 4), (run.best, 2)]
    for path, epoch in files:
        write_checkpoint(path, epoch)
    with caplog.at_level(logging.WARNING):
        for (path, epoch), expected in zip(files, (4, 2, None), strict=True):
            assert newest_epoch(run) == epoch
            assert path.name not in caplog.text
            damage(path)
            assert newest_epoch(run) == expected
            assert re.search(rf"{path.name}.*digest; falling back", caplog.text)


def test_an_empty_checkpoint_is_passed_over(run, caplog):
    write_checkpoint(run.previous, 4)
    run.last.write_bytes(b"")
    assert newest_epoch(run) == 4
    assert "last.safetensors: not a readable checkpoint" in caplog.text


@pytest.mark.parametrize("name", ["last", "previous", "best"])
def test_a_whole_checkpoint_of_another_config_is_an_error_and_not_passed_over(name, run):
    for path in (run.last, run.previous, run.best):
        write_checkpoint(path, 3)
    foreign = getattr(run, name)
    write_checkpoint(foreign, 3, THEIRS)
    with pytest.raises(RunError, match=rf"{foreign.name}: a checkpoint of another config \(run-of-cd\)"):
        newest_checkpoint(run, OURS)
    write_checkpoint(foreign, 3)
    assert newest_epoch(run) == 3


def test_one_lock_however_the_run_is_reached(tmp_path):
    """As a directory that was moved to a larger disk, and linked back."""
    (tmp_path / "large" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "large" / "run")
    with (
        RunDirectory(tmp_path / "run").held(),
        pytest.raises(HeldError),
        RunDirectory(tmp_path / "large/run").held(),
    ):
        pass
