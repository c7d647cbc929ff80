"""A run's place on disk: named by its config, held by one process at a time, and explaining its own state."""

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fmvae.common import locks
from fmvae.common.text import short
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, HeldError, LockError, LostError, RunError
from fmvae.runs.events import hide_events
from fmvae.runs.files import make_directory, move_aside, read_record, write_bytes

State = Literal["new", "partial", "failed", "complete"]
Status = Literal["running", "interrupted", "failed", "complete"]
MOST_EPOCHS = 2**31  # that a status may tell of
PROBE = 0.5  # seconds; who only asks whether a run is held has let go by then
LOCKLESS = "write to another disk, as output_root=/tmp/outputs, or mount this one with locks"
log = logging.getLogger("fmvae")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunDirectory:
    """The files of one run. Write into it only inside ``with run.held():``."""

    def __init__(self, path: Path):
        self.path = path
        self._held: locks.Lock | None = None
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.yaml"
        self.status = path / "status.json"
        self.results = path / "results.json"
        self.fid = path / "fid.json"
        self.timing = path / "timing.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "train.log"
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.safetensors"
        self.previous = self.checkpoints / "previous.safetensors"
        self.best = self.checkpoints / "best.safetensors"
        self.stopped = self.checkpoints / "stopped.safetensors"  # within an epoch, when that was asked

    def __str__(self) -> str:
        return short(self.path)

    @property
    def name(self) -> str:
        """Of the run, also where its directory was moved aside."""
        return self.path.resolve().name.split(".old-")[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run for this process, however it ends: the operating system lets go of a lock with its owner.

        The lock lies beside the run, not in it, so that it still stands when the directory is moved aside.

        Raises:
            HeldError: another process holds it; the message says which.
            LockError: the disk takes no locks.
        """
        make_directory(self._lock.parent)
        with locks.held(self._lock, LOCKLESS, PROBE) as lock:
            if lock is None:
                way_out = "wait for it to finish, or stop it first"
                raise HeldError(self, f"this run is held by {self.holder()}", way_out)
            self._held = lock
            lock.note(f"process {os.getpid()} on {socket.gethostname()} since {_now()}")
            yield

    def check_held(self) -> None:
        """Make sure that what this process holds is still what others see.

        Raises:
            RunError: its lock or directory was removed, or moved: another process may be at work here by now.
        """
        assert self._held
        if not (self._held.is_there() and self.config.exists()):
            problem = "it, or the lock beside it, was removed or moved while it was trained"
            raise LostError(self, problem, "give the same command again")

    @property
    def has_id(self) -> bool:
        """Whether it is named as a run: another program's folder may have a config.yaml, too."""
        return bool(re.fullmatch(r".+-[0-9a-f]{8}", self.name))

    @property
    def _lock(self) -> Path:
        path = self.path.resolve()  # one lock, however the run is reached
        return path.parent / ".locks" / f"{path.name}.lock"

    def is_held(self) -> bool:
        """Whether a process holds the run now. Asking takes the lock for a moment.

        Where no lock can be asked, as of a run of another user's on a network disk, its status is believed.
        """
        try:
            return locks.is_locked(self._lock)
        except (LockError, PermissionError):
            return self.read_status().get("state") == "running"

    def holder(self) -> str:
        """Who held the run last, in words."""
        try:
            return self._lock.read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def state(self, sha256: str | None = None) -> State:
        """Where the run stands. It is complete only with results of its own config that verify.

        Args:
            sha256: the config the results must be of; None takes the one that the directory is named by.
        """
        if not self.path.is_dir() or not (self.last.exists() or self.best.exists() or self.status.exists()):
            return "new"
        if self.final_results(sha256) is not None:
            return "complete"
        return "failed" if self.read_status().get("state") == "failed" else "partial"

    def final_results(self, sha256: str | None = None) -> dict[str, Any] | None:
        """The results of a complete run; None if it is not, or if they don't verify. See ``state``."""
        if self.read_status().get("state") != "complete":
            return None
        try:
            results = read_record(self.results)
        except RunError as error:
            if self.results.exists():
                log.warning("%s", error)
            return None
        theirs = str(results.get("config_sha256"))
        ours = theirs == sha256 if sha256 else self.name.endswith(f"-{theirs[:8]}")
        return results if ours else None

    def read_status(self) -> dict[str, Any]:
        """What the run last said of itself; empty if it said nothing readable."""
        try:
            status = json.loads(self.status.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(status, dict) or status.get("run", self.name) != self.name:  # another run's
            return {}
        counts = ("epoch", "epochs")
        return {
            key: value
            for key, value in status.items()
            if key not in counts or (type(value) is int and 0 <= value < MOST_EPOCHS)
        }

    def write_status(self, state: Status, **details: Any) -> None:
        """Say where the run stands, for people and for sweeps; wall-clock times live here, not in the results."""
        status = {
            "state": state,
            "run": self.name,
            "updated": _now(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            **details,
        }
        write_bytes(self.status, (json.dumps(status, indent=2) + "\n").encode())

    def move_aside(self) -> Path | None:
        """Rename the run's directory to ``<name>.old-<n>``; None if there was none. Nothing is deleted.

        Its events are hidden, or TensorBoard would show a second run of the same config.
        """
        if not self.path.exists():
            return None
        aside = move_aside(self.path)
        hide_events(aside)
        return aside


def identify(run: RunDirectory, config: Mapping[str, Any]) -> RunIdentity:
    """The identity of a run, by the config that is stored with it.

    Raises:
        ConfigError: the config was edited in place: it would measure one model under another's name.
    """
    identity = RunIdentity.of(config)
    if not run.name.endswith(identity.sha256[:8]):
        raise ConfigError(
            run.config,
            "not the config this directory is named by",
            "undo the edit, or train the edited config",
        )
    return identity


def find_runs(path: Path) -> list[RunDirectory]:
    """The run at ``path``, or those in the folder ``path``, by name. ConfigError if there are none."""
    path = path.resolve()  # the name and the lock are the directory's own, however it is reached
    if (path / "config.yaml").is_file():
        directories = {path}
    else:
        directories = {file.parent.resolve() for file in path.glob("*/config.yaml")}
        directories = {directory for directory in directories if ".old-" not in directory.name}
    found = [run for run in map(RunDirectory, sorted(directories)) if run.has_id]
    if not found:
        what = "no run (no config.yaml in it)" if path.is_dir() else "no such directory"
        if directories:
            what = "no run (it has a config.yaml, but a run's directory is named by its config)"
        raise ConfigError("run", f"{str(path)!r}: {what}", "name a directory under outputs/, or a folder of runs")
    return found
