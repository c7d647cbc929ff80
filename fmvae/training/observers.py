"""Observers of training: checkpoints, the log line of each epoch, the progress bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmvae.common.contention import BusyShare
from fmvae.common.streams import fitted, new_bar
from fmvae.common.text import duration
from fmvae.errors import RunError
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import link
from fmvae.runs.observer import Observer
from fmvae.runs.timing import Timing

if TYPE_CHECKING:
    from fmvae.training.loop import Trainer

log = logging.getLogger("fmvae")


class Guard(Observer):
    """Stop training, before it writes anything, if the run's directory or lock has been removed or replaced."""

    def __init__(self, run: RunDirectory):
        self.run = run

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        self.run.check_held()

    def on_stop(self, trainer: Trainer, step: int) -> None:
        self.run.check_held()


class Checkpointer(Observer):
    """Save the checkpoints ``last`` (the one before it as ``previous``), ``best`` by validation, and ``stopped``.

    Args:
        run: the directory to write to.
        identity: JSON values to store in every checkpoint in addition to the trainer's state.
        every: epochs between ``last`` checkpoints; the final epoch is always saved.
    """

    def __init__(self, run: RunDirectory, identity: Mapping[str, Any], every: int = 1):
        self.run, self.identity, self.every = run, identity, every

    def on_train_start(self, trainer: Trainer) -> None:
        """Write ``last`` and ``best`` of the current epoch if a process was killed between writing the two."""
        if not trainer.history or trainer.within:  # a stop within an epoch comes after both files were written
            return
        due, improved = self._wanted(trainer, trainer.history[-1])
        for path, wanted in ((self.run.last, due), (self.run.best, improved)):
            if wanted and _epoch_of(path) != trainer.epoch:
                self._save(path, trainer)

    def on_stop(self, trainer: Trainer, step: int) -> None:
        self._save(self.run.stopped, trainer)

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        due, improved = self._wanted(trainer, row)
        if not (due or improved):
            return
        if due and self.run.last.exists():
            link(self.run.last, self.run.previous)
        self._save(self.run.last if due else self.run.best, trainer)
        if due and improved:
            link(self.run.last, self.run.best)
        if due:
            self.run.stopped.unlink(missing_ok=True)
        self.run.write_status("running", epoch=trainer.epoch, epochs=trainer.epochs)

    def _save(self, path: Path, trainer: Trainer) -> None:
        """Save a checkpoint; it also stores which epoch is the best so far."""
        tensors, meta = trainer.state()
        trainer.check_state(tensors)
        best = trainer.best["epoch"] if trainer.best else None
        save_checkpoint(path, tensors, {**self.identity, **meta, "best": best})

    def _wanted(self, trainer: Trainer, row: Mapping[str, float]) -> tuple[bool, bool]:
        """Return whether the epoch of the newest row is to be saved as ``last`` and as ``best``."""
        due = row["epoch"] % self.every == 0 or trainer.epoch == trainer.epochs or trainer.stopped_early
        return due, row is trainer.best


def _epoch_of(path: Path) -> int | None:
    """Return the epoch of a checkpoint; None if the file is missing or damaged."""
    try:
        return load_checkpoint(path).meta["epoch"]
    except RunError:
        return None


def describe(row: Mapping[str, float], terms: Sequence[str]) -> str:
    """Format an epoch's terms as one line."""
    parts = [
        f"{split} "
        + " ".join(
            f"{term} {row[f'{split}/{term}']:.{4 if term == 'accuracy' else 2}f}"
            for term in terms
            if f"{split}/{term}" in row  # a split has no other parts of an objective that is a function of means
        )
        for split in ("train", "val")
        if f"{split}/{terms[0]}" in row
    ]
    return " | ".join(parts)


class EpochLog(Observer):
    """Log one line per epoch with the remaining time, and store the seconds of each epoch in timing.json.

    Beside them it stores the share of each epoch in which other processes used the CPU cores: the remaining time
    is estimated from epochs on quiet cores if there are any. Times are not part of results and metrics, so that
    equal runs have equal files.
    """

    def __init__(self, run: RunDirectory):
        self.run = run

    def on_train_start(self, trainer: Trainer) -> None:
        self.before, self.busy_share = time.perf_counter(), BusyShare()
        self.timing, self.session = Timing.read(self.run).first(trainer.epoch), Timing([], [])

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        now, busy = time.perf_counter(), self.busy_share.read()
        seconds, self.before = now - self.before, now
        self.timing.add(seconds / trainer.abreast, busy)  # about the time of this run alone
        self.timing.write(self.run)
        self.session.add(seconds, busy)
        pace = self.session.pace()
        width = len(str(trainer.epochs))
        log.info(
            "epoch %*d/%d | %s | %.1f s, %s left",
            width,
            trainer.epoch,
            trainer.epochs,
            describe(row, trainer.terms),
            seconds,
            duration((trainer.epochs - trainer.epoch) * (pace.seconds if pace else 0.0)),
        )


class ProgressBar(Observer):
    """Show a progress bar of steps in the terminal, with the epoch and its validation objective.

    Its text leaves room for the bar in 80 columns, and fits into 60. The other terms are in the epoch's log line.
    """

    def on_train_start(self, trainer: Trainer) -> None:
        total = trainer.epochs * trainer.num_steps
        text = fitted(f"epoch {trainer.epoch + 1}/{trainer.epochs}")
        self.bar = new_bar(desc=text, total=total, initial=trainer.epoch * trainer.num_steps)

    def on_step(self, trainer: Trainer, step: int) -> None:
        self.bar.update()

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        if trainer.epoch == trainer.epochs or trainer.stopped_early:
            self.bar.close()
            return
        text = f"epoch {trainer.epoch + 1}/{trainer.epochs}"
        if (value := row.get(f"val/{trainer.terms[0]}")) is not None:
            text += f", val {value:.2f}"
        self.bar.set_description_str(fitted(text))
