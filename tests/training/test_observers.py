"""The checkpoints on disk can finish the run from wherever it was killed; log and bar say where it stands."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmvae.data import FashionMNISTManager, Split
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.recorder import Recorder
from fmvae.runs.resuming import newest_checkpoint
from fmvae.training import Checkpointer, EpochLog, ProgressBar, Trainer, VAETrainer, observers
from fmvae.training.observers import describe, duration
from tests.training.cases import BASE, data_of, same, snapshot

IDENTITY = {"config_sha256": "ab" * 32, "run": "a-run"}
EPOCHS, NUM_STEPS = 5, 2
OBJECTIVES = [5.0, 3.0, 4.0, 2.0, 2.5]  # the best are epochs 1, 2 and 4


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data, batch_size=50)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "a-run")


def trainer_of(data: FashionMNISTManager, *watching: Any, objectives=OBJECTIVES, **settings: Any) -> VAETrainer:
    """A trainer whose validations are scripted, so that its best epochs are known."""
    trainer = BASE.trainer(data, **{"epochs": EPOCHS, **settings}, observers=watching)

    def evaluate(split: Split | None = None, *, at_mean: bool = False) -> dict[str, float]:
        return {"objective": objectives[trainer.epoch]}

    trainer.evaluate = evaluate
    return trainer


def go(run: RunDirectory, data: FashionMNISTManager, every: int = 1, **settings: Any) -> VAETrainer:
    """What a process does: continue from the newest checkpoint, or start, and train to the end."""
    trainer = trainer_of(data, Checkpointer(run, IDENTITY, every), **settings)
    if checkpoint := newest_checkpoint(run, IDENTITY["config_sha256"]):
        trainer.load_state(checkpoint.tensors, checkpoint.meta)
    trainer.train()
    return trainer


def epochs_on_disk(run: RunDirectory) -> dict[str, int]:
    return {path.stem: load_checkpoint(path).meta["epoch"] for path in run.checkpoints.glob("*.safetensors")}


# --- checkpoints ---------------------------------------------------------------------------------------------


class EveryEpoch(Checkpointer):
    """Notes what is on disk after each epoch."""

    def on_train_start(self, trainer: Trainer) -> None:
        super().on_train_start(trainer)
        self.notes: list[dict[str, int]] = []

    def on_epoch_end(self, trainer: Trainer, row) -> None:
        super().on_epoch_end(trainer, row)
        self.notes.append(epochs_on_disk(self.run))


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, {"last": [1, 2, 3, 4, 5], "previous": [None, 1, 2, 3, 4], "best": [1, 2, 2, 4, 4]}),
        (2, {"last": [None, 2, 2, 4, 5], "previous": [None, None, None, 2, 4], "best": [1, 2, 2, 4, 4]}),
        (3, {"last": [None, None, 3, 3, 5], "previous": [None] * 4 + [3], "best": [1, 2, 2, 4, 4]}),
        (9, {"last": [None] * 4 + [5], "previous": [None] * 5, "best": [1, 2, 2, 4, 4]}),
    ],
)
def test_last_previous_and_best_hold_these_epochs(every, expected, run, data):
    checkpointer = EveryEpoch(run, IDENTITY, every)
    trainer_of(data, checkpointer).train()
    assert {name: [note.get(name) for note in checkpointer.notes] for name in expected} == expected


def test_a_checkpoint_holds_identity_state_and_history(run, data):
    trainer = go(run, data)
    checkpoint = load_checkpoint(run.last)
    assert same(checkpoint.tensors, snapshot(trainer))
    assert IDENTITY.items() <= checkpoint.meta.items()
    assert checkpoint.meta["history"] == trainer.history
    assert checkpoint.meta["epoch"] == EPOCHS


def test_the_status_follows_the_checkpoints(run, data):
    go(run, data)
    assert {"state": "running", "epoch": EPOCHS, "epochs": EPOCHS}.items() <= run.read_status().items()


def test_stopping_early_is_a_last_epoch_too(run, data):
    go(run, data, every=100, patience=1)
    assert epochs_on_disk(run) == {"last": 3, "best": 2}


def test_epochs_without_validation_are_never_best(run, data):
    go(run, data, validate_every=3)
    assert epochs_on_disk(run)["best"] == 5  # of epochs 3 and 5, at 4.0 and 2.5


# --- killed at any moment ------------------------------------------------------------------------------------


class Kill(BaseException):
    """The end of a process."""


def kill_at(call: int, when: str, patch: pytest.MonkeyPatch) -> None:
    """Let the ``call``-th write of the checkpointer be the process's last, ``before`` or ``after`` it happens."""
    count = 0

    def mortal(function: Callable) -> Callable:
        def write(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == call and when == "before":
                raise Kill
            result = function(*arguments)
            if count == call:
                raise Kill
            return result

        return write

    patch.setattr(observers, "save_checkpoint", mortal(observers.save_checkpoint))
    patch.setattr(observers, "link", mortal(observers.link))


def final_files(run: RunDirectory) -> tuple[bytes, bytes]:
    return run.last.read_bytes(), run.best.read_bytes()


def outcomes(
    directory: Path, data: FashionMNISTManager, every: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[bool]:
    """For every moment to be killed at: whether the resumed run ends as the undisturbed one."""
    undisturbed = RunDirectory(directory / "undisturbed")
    go(undisturbed, data, every)
    for when in ("before", "after"):
        for call in range(1, 100):
            run = RunDirectory(directory / f"{when}-{call}")
            with monkeypatch.context() as patch:
                kill_at(call, when, patch)
                try:
                    go(run, data, every)
                    break  # there are no more writes than that
                except Kill:
                    pass
            go(run, data, every)
            yield final_files(run) == final_files(undisturbed)


@pytest.mark.parametrize("every", [1, 4])
def test_a_run_killed_between_any_two_writes_ends_with_the_same_checkpoints(every, tmp_path, data, monkeypatch):
    equal = list(outcomes(tmp_path, data, every, monkeypatch))
    assert len(equal) > 10
    assert all(equal)


def test_without_the_look_back_a_best_epoch_would_be_lost(tmp_path, data, monkeypatch):
    """Killed after ``last`` and before ``best``: the resumed run must not take an older epoch for the best."""
    monkeypatch.setattr(Checkpointer, "on_train_start", lambda self, trainer: None)
    assert not all(outcomes(tmp_path, data, 1, monkeypatch))


@pytest.mark.parametrize("name", ["last", "previous", "best"])
def test_a_run_with_one_damaged_checkpoint_still_ends_the_same(name, tmp_path, data):
    undisturbed, run = RunDirectory(tmp_path / "undisturbed"), RunDirectory(tmp_path / "run")
    go(undisturbed, data)
    trainer = trainer_of(data, Checkpointer(run, IDENTITY))
    trainer.epochs = 4  # as killed after epoch 4, which is also the best
    trainer.train()
    content = bytearray((path := getattr(run, name)).read_bytes())
    content[-1] ^= 1
    path.unlink()  # last and best are one file with two names; only one of them is damaged
    path.write_bytes(content)
    resumed = trainer_of(data, Checkpointer(run, IDENTITY))
    checkpoint = newest_checkpoint(run, IDENTITY["config_sha256"])
    assert checkpoint
    resumed.load_state(checkpoint.tensors, checkpoint.meta)
    resumed.train()
    assert same(load_checkpoint(run.last).tensors, load_checkpoint(undisturbed.last).tensors)
    assert same(load_checkpoint(run.best).tensors, load_checkpoint(undisturbed.best).tensors)
    assert load_checkpoint(run.best).meta["epoch"] == 4


# --- the log and the bar -------------------------------------------------------------------------------------

TERMS = ("objective", "recon", "kl")
ROW = {"epoch": 3, "train/objective": 251.234, "train/recon": 240.1, "train/kl": 11.135}


def test_a_row_in_words():
    assert describe(ROW, TERMS) == "train objective 251.23 recon 240.10 kl 11.13"
    validated = ROW | {"val/objective": 250.0, "val/recon": 1.0, "val/kl": 2.0, "val/neg_elbo": 3.0}
    assert describe(validated, TERMS) == describe(ROW, TERMS) + " | val objective 250.00 recon 1.00 kl 2.00"
    told = describe({**validated, "train/active": 3.0}, (*TERMS, "active"))  # a part that no split has
    assert told == describe(ROW, TERMS) + " active 3.00 | val objective 250.00 recon 1.00 kl 2.00"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_a_duration_in_words(seconds, words):
    assert duration(seconds) == words


def test_the_log_has_a_line_per_epoch(run, data, caplog):
    with caplog.at_level(logging.INFO, logger="fmvae"):
        trainer = BASE.trainer(data, observers=[EpochLog(run)], epochs=2)
        trainer.train()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for n, (line, row) in enumerate(zip(lines, trainer.history, strict=True), 1):
        assert line.startswith(f"epoch {n}/2 | {describe(row, TERMS)} | ")
        assert re.search(r"\| \d+\.\d s, \d+ s left$", line)
    assert lines[-1].endswith("0 s left")


def test_the_remaining_time_is_that_of_epochs_on_quiet_cores(run, data, caplog, monkeypatch):
    def left(*shares: float) -> str:
        """The end of the second epoch's line of three; the epochs take 10 s and 100 s."""
        clock, busy = iter([0.0, 10.0, 110.0, 120.0]), iter(shares)
        monkeypatch.setattr("fmvae.training.observers.time.perf_counter", lambda: next(clock))
        monkeypatch.setattr("fmvae.training.observers.BusyShare.read", lambda self: next(busy))
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="fmvae"):
            BASE.trainer(data, observers=[EpochLog(run)], epochs=3).train()
        return caplog.messages[1].rpartition("| ")[2]

    assert left(0.0, 0.9, 0.0) == "100.0 s, 10 s left"
    assert left(0.0, 0.0, 0.0) == "100.0 s, 55 s left"  # the control
    assert json.loads(run.timing.read_bytes())["busy_share"] == [0.0, 0.0, 0.0]


def seconds_of(run: RunDirectory) -> list[float]:
    return json.loads(run.timing.read_bytes())["epoch_seconds"]


def test_timing_has_an_entry_per_epoch_across_a_resume(run, data):
    first = BASE.trainer(data, epochs=2, observers=[EpochLog(run)])
    first.train()
    run.timing.write_text(json.dumps({"epoch_seconds": [101.0, 102.0, 103.0]}))  # epoch 3 ran, but was not saved
    second = BASE.trainer(data, epochs=4, observers=[EpochLog(run)])
    second.load_state(*first.state())
    second.train()
    assert seconds_of(run)[:2] == [101.0, 102.0]
    assert len(seconds_of(run)) == 4
    assert not any(key.startswith("time") or "second" in key for row in second.history for key in row)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"epoch_seconds": null}'])
def test_a_damaged_timing_file_is_begun_anew(content, run, data):
    run.path.mkdir()
    run.timing.write_text(content)
    BASE.trainer(data, epochs=1, observers=[EpochLog(run)]).train()
    assert len(seconds_of(run)) == 1


def test_the_bar_counts_steps_and_ends(data, capsys, monkeypatch):
    monkeypatch.setattr("fmvae.common.streams.is_terminal", lambda stream: True)
    bar = ProgressBar()
    first = BASE.trainer(data, epochs=2, observers=[bar])
    first.train()
    assert bar.bar.n == bar.bar.total == 2 * NUM_STEPS
    assert bar.bar.disable  # closed
    second = BASE.trainer(data, epochs=3, observers=[bar])
    second.load_state(*first.state())
    second.train()
    assert (bar.bar.initial, bar.bar.n) == (2 * NUM_STEPS, 3 * NUM_STEPS)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 3/3" in captured.err


def test_everything_that_watches_a_run_together_changes_no_bit(run, data, capsys):
    watching = [
        EpochLog(run),
        ProgressBar(),
        recorder := Recorder(run, 0, "", {}, []),
        Checkpointer(run, IDENTITY),
    ]
    alone, watched = BASE.trainer(data), BASE.trainer(data, observers=watching)
    assert alone.train() == watched.train()
    recorder.close(complete=True)
    assert same(snapshot(alone), snapshot(watched))
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == alone.history
