"""The directory of a run: its files, its name made from the config, its lock and its status."""

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
from fmvae.runs.files import make_directory, move_aside, write_bytes
from fmvae.runs.results import read_results

State = Literal["new", "partial", "failed", "complete"]
Status = Literal["running", "interrupted", "pruned", "failed", "complete"]
MEASURING = "measuring"  # the ``phase`` in a status: training has ended, the run is measured and drawn
MOST_EPOCHS = 2**31  # a larger number in a status is ignored
PROBE = 0.5  # seconds to wait for a lock: is_held of another process takes it for a moment
LOCKLESS = "write to another disk, as output_root=/tmp/outputs, or mount this one with support for locks"
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
        self.partial = path / "partial"  # unfinished numbers of long measures
        self.checkpoints = path / "checkpoints"
        self.samplers = path / "samplers"  # fitted to the best checkpoint; in a folder last/, to the last one
        self.last = self.checkpoints / "last.safetensors"
        self.previous = self.checkpoints / "previous.safetensors"
        self.best = self.checkpoints / "best.safetensors"
        self.stopped = self.checkpoints / "stopped.safetensors"  # saved within an epoch, after a signal

    def __str__(self) -> str:
        return short(self.path)

    @property
    def name(self) -> str:
        """The run's name, without the ``.old-<n>`` of a directory that was moved aside."""
        return self.path.resolve().name.split(".old-")[0]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock inside. If the process dies, the operating system releases the lock.

        The lock file lies beside the run's directory, so that it stays when the directory is moved aside.

        Raises:
            HeldError: another process holds the lock; the message says which.
            LockError: the file system does not support locks.
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
        """Check that the run's directory and lock file still exist under their names.

        Raises:
            LostError: one of them was removed or moved, so that another process may write to the run.
        """
        assert self._held
        if not (self._held.is_there() and self.config.exists()):
            problem = "this directory or its lock file was removed or moved during training"
            raise LostError(self, problem, "repeat the command")

    @property
    def has_id(self) -> bool:
        """Whether the directory has the name of a run. Another program's folder may have a config.yaml, too."""
        return bool(re.fullmatch(r".+-[0-9a-f]{8}", self.name))

    @property
    def _lock(self) -> Path:
        path = self.path.resolve()  # one lock for all links to the run
        return path.parent / ".locks" / f"{path.name}.lock"

    def is_held(self) -> bool:
        """Return whether a process holds the run now. The call takes the lock for a moment.

        If the lock can't be tested, as for another user's run on a network disk, the run's status decides.
        """
        try:
            return locks.is_locked(self._lock)
        except (LockError, PermissionError):
            return self.read_status().get("state") == "running"

    def holder(self) -> str:
        """Return a text that says which process last held the run."""
        try:
            return self._lock.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        except OSError:
            return "another process"

    def state(self, sha256: str | None = None) -> State:
        """Return the run's state. It is ``complete`` only if its results are intact and of its own config.

        Args:
            sha256: digest of the config that the results must belong to; None takes it from the directory's name.
        """
        if not self.path.is_dir() or not (self.last.exists() or self.best.exists() or self.status.exists()):
            return "new"
        if self.final_results(sha256) is not None:
            return "complete"
        return "failed" if self.read_status().get("state") == "failed" else "partial"

    def final_results(self, sha256: str | None = None) -> dict[str, Any] | None:
        """Return the results of a complete run; None if the run is not complete. See ``state``."""
        if self.read_status().get("state") != "complete":
            return None
        try:
            results = read_results(self.results)
        except RunError as error:
            if self.results.exists():
                log.warning("%s", error)
            return None
        theirs = str(results.get("config_sha256"))
        ours = theirs == sha256 if sha256 else self.name.endswith(f"-{theirs[:8]}")
        return results if ours else None

    def read_history(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl, one for each epoch; none if it is missing or damaged."""
        try:
            rows = [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, RecursionError):
            return []
        return rows if all(isinstance(row, dict) and "epoch" in row for row in rows) else []

    def read_status(self) -> dict[str, Any]:
        """Return the content of status.json; empty if it is missing, damaged, or another run's."""
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
        """Write status.json, for people and for sweeps. The results contain no wall-clock time; this file does."""
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
        """Rename the run's directory to ``<name>.old-<n>`` and return the new path; None if there is no directory.

        Nothing is deleted. Its event files are hidden, so that TensorBoard does not show the old run as well.
        """
        if not self.path.exists():
            return None
        aside = move_aside(self.path)
        hide_events(aside)
        return aside


def identify(run: RunDirectory, config: Mapping[str, Any]) -> RunIdentity:
    """Return the identity of a run, computed from its stored config.

    Raises:
        ConfigError: the identity does not match the directory's name, because the stored config was edited.
    """
    identity = RunIdentity.of(config)
    if not run.name.endswith(identity.sha256[:8]):
        raise ConfigError(
            run.config,
            "not the config this directory is named by",
            "undo the edit, or train the edited config",
        )
    return identity


def not_a_folder(path: Path) -> str:
    """Return why there are no runs at a path that is no folder."""
    return "a file, not a directory" if path.exists() else "no such directory"


def find_runs(path: Path) -> list[RunDirectory]:
    """Return the run at ``path``, or the runs in the folder ``path``, sorted. ConfigError if there are none."""
    path = path.resolve()  # the name and the lock are those of the directory that a link leads to
    if (path / "config.yaml").is_file():
        directories = {path}
    else:
        directories = {file.parent.resolve() for file in path.glob("*/config.yaml")}
        directories = {directory for directory in directories if ".old-" not in directory.name}
    found = [run for run in map(RunDirectory, sorted(directories)) if run.has_id]
    if not found:
        what = "no run (no config.yaml in it)" if path.is_dir() else not_a_folder(path)
        if directories:
            what = "no run (it has a config.yaml, but a run's directory is named by its config)"
        raise ConfigError("run", f"{str(path)!r}: {what}", "name a directory under outputs/, or a folder of runs")
    return found
