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
from fmvae.config import is_vae
from fmvae.errors import FmvaeError, HeldError, LockError, LostError, RunError
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint
from fmvae.runs.events import hide_events
from fmvae.runs.files import digest, make_directory, move_aside, read_record, write_bytes
from fmvae.text import short

State = Literal["new", "partial", "failed", "complete"]
Status = Literal["running", "interrupted", "failed", "complete"]
MOST_EPOCHS = 2**31  # that a status may tell of
PROBE = 0.5  # seconds; who only asks whether a run is held has let go by then
LOCKLESS = "write to another disk, as output_root=/tmp/outputs, or mount this one with locks"
log = logging.getLogger("fmvae")


def config_sha256(semantic: Mapping[str, Any]) -> str:
    """The identity of a run: SHA-256 of what of its config can change its numbers."""
    return digest(semantic)


def run_name(semantic: Mapping[str, Any]) -> str:
    """``<model>-b<beta>-z<latent_dim>-s<seed>-<id8>``, of letters, digits, ``.``, ``_`` and ``-`` alone.

    A classifier has no beta and no latents. A ``=`` in a path could not be passed back as an override.
    """
    parts = [semantic["model"]["_name_"]]
    if is_vae(semantic):
        parts += [f"b{semantic['beta']['value']:g}", f"z{semantic['latent_dim']['value']}"]
    parts.append(f"s{semantic['seed']}")
    parts = [re.sub(r"[^A-Za-z0-9._-]", "", part) for part in parts]
    return "-".join([*parts, config_sha256(semantic)[:8]])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _progress(checkpoint: Checkpoint) -> tuple[int, int]:
    """Epochs, and steps of the next."""
    return checkpoint.meta["epoch"], checkpoint.meta.get("within", {}).get("step", 0)


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

    def newest_checkpoint(self, sha256: str) -> Checkpoint | None:
        """The checkpoint to resume from: the newest that verifies, or None to start anew.

        Damaged ones are passed over with a warning.

        Raises:
            RunError: a checkpoint is whole, but of another config.
        """
        found: dict[Path, Checkpoint] = {}
        for path in (self.last, self.previous, self.best, self.stopped):
            if not path.exists():
                continue
            try:
                checkpoint = load_checkpoint(path)
            except FmvaeError as error:
                log.warning("%s: %s; falling back", path, error.problem)
                continue
            self.check_owner(path, checkpoint, sha256)
            found[path] = checkpoint
        # whoever goes on within an epoch can't save those before it: it takes the best of them to be there
        if self.stopped in found and (best := found[self.stopped].meta["best"]) is not None:
            kept = self.best in found and found[self.best].meta["epoch"] == best
            found = found if kept else {path: found[path] for path in found if path != self.stopped}
        return max(found.values(), key=_progress, default=None)

    def check_owner(self, path: Path, checkpoint: Checkpoint, sha256: str) -> None:
        """Raise RunError unless the checkpoint was written by the config with this SHA-256."""
        theirs = checkpoint.meta.get("config_sha256")
        if theirs != sha256:
            raise RunError(
                path,
                f"a checkpoint of another config ({checkpoint.meta.get('run', 'unnamed')}), not of this run",
                "put this run's own checkpoint back, or move the directory aside with restart=true",
            )
