"""Choose the checkpoint from which a run resumes, and check that it belongs to the run's config and data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from fmvae.errors import FmvaeError, RunError
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint
from fmvae.runs.directory import RunDirectory

log = logging.getLogger("fmvae")


def newest_checkpoint(run: RunDirectory, sha256: str) -> Checkpoint | None:
    """Return the newest intact checkpoint, to resume from it; None if there is none.

    Damaged checkpoints are skipped with a warning.

    Raises:
        RunError: a checkpoint is intact, but belongs to another config.
    """
    found: dict[Path, Checkpoint] = {}
    for path in (run.last, run.previous, run.best, run.stopped):
        if not path.exists():
            continue
        try:
            checkpoint = load_checkpoint(path)
        except FmvaeError as error:
            log.warning("%s: %s; falling back", path, error.problem)
            continue
        check_owner(path, checkpoint, sha256)
        found[path] = checkpoint
    # a run that resumes within an epoch can't save earlier epochs again, so the best of them must exist
    if run.stopped in found and (best := found[run.stopped].meta["best"]) is not None:
        kept = run.best in found and found[run.best].meta["epoch"] == best
        found = found if kept else {path: found[path] for path in found if path != run.stopped}
    return max(found.values(), key=_progress, default=None)


def check_owner(path: Path, checkpoint: Checkpoint, sha256: str) -> None:
    """Raise RunError unless the checkpoint was written by a run of the config with this SHA-256."""
    theirs = checkpoint.meta.get("config_sha256")
    if theirs != sha256:
        raise RunError(
            path,
            f"a checkpoint of another config ({checkpoint.meta.get('run', 'unnamed')}), not of this run",
            "put this run's own checkpoint back, or move the directory aside with restart=true",
        )


def check_data(path: Path, checkpoint: Checkpoint, sha256: Mapping[str, str]) -> None:
    """Raise RunError if the checkpoint was trained on other images than those with these digests.

    A checkpoint without digests passes: its config has them.
    """
    theirs = checkpoint.meta.get("data_sha256", sha256)
    if theirs != sha256:
        differ = sorted(name for name in {**theirs, **sha256} if theirs.get(name) != sha256.get(name))
        raise RunError(
            path,
            f"trained on other data than these ({', '.join(differ)} changed)",
            "put the data back as they were, or train anew with restart=true",
        )


def _progress(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the number of finished epochs, and of steps in the next epoch."""
    return checkpoint.meta["epoch"], checkpoint.meta.get("within", {}).get("step", 0)
