"""A sweep's folder: the runs that are planned in it, the progress of each, and the time that is left."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fmvae.common import locks
from fmvae.common.digests import digest
from fmvae.common.text import short
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.stored import read_config
from fmvae.errors import FmvaeError, RunError
from fmvae.runs.directory import LOCKLESS, RunDirectory, State
from fmvae.runs.files import make_directory, read_record, write_record

MANIFEST = "sweep.json"
MOST_SECONDS = 1e9  # a longer time for an epoch is not credible
LAST_EPOCHS = 5  # a run's pace is the median of its last epochs
SINGLE_RUNS = 50  # largest number of single runs that are read for their pace


@dataclass(frozen=True)
class Plan:
    """A run that is part of a sweep.

    Attributes:
        overrides: of this job, as on the command line.
        config_sha256: the digest of the run's identity.
        pace: a key that is equal for runs whose epochs take about as long.
        epochs: the largest number of epochs.
        composed_by: the digest of the files that the config was composed from (``composing.composed_by``). With
            other files, the same overrides may give another run.
    """

    overrides: tuple[str, ...]
    config_sha256: str
    pace: str
    epochs: int
    composed_by: str

    @classmethod
    def of(cls, config: Mapping[str, Any], overrides: Iterable[str], composed_by: str) -> tuple[str, Plan]:
        """Return the name of the run that has this config, and its plan."""
        identity = RunIdentity.of(config)
        pace = pace_of(identity.semantic)
        return identity.name, cls(
            tuple(overrides), identity.sha256, pace, config["trainer"]["epochs"], composed_by
        )


def pace_of(identity: Mapping[str, Any]) -> str:
    """Return a digest of what the time of an epoch depends on: the model, without its latent_dim, and the data."""
    model = {key: value for key, value in identity["model"].items() if key != "latent_dim"}
    return digest({"model": model, "data": {**identity["data"], "seed": 0}})[:8]


class SweepDirectory:
    """The folder of a sweep. Several processes may add plans to it at the same time."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = path / MANIFEST

    def __str__(self) -> str:
        return short(self.path)

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.path / name)

    def planned(self) -> dict[str, Plan]:
        """Return the plans in sweep.json by name of run; empty if it is missing or damaged (it can be remade)."""
        try:
            runs = read_record(self.manifest)["runs"]
            return {name: Plan(**{**plan, "overrides": tuple(plan["overrides"])}) for name, plan in runs.items()}
        except (RunError, LookupError, TypeError, AttributeError):
            return {}

    def add(self, plans: Mapping[str, Plan]) -> None:
        """Add plans to those in sweep.json."""
        path = self.path / ".locks" / f"{MANIFEST}.lock"
        make_directory(path.parent)
        with locks.held(path, LOCKLESS):
            known = self.planned()
            # if other overrides give the same run, the first ones are kept
            new = {n: p for n, p in plans.items() if n not in known or known[n].composed_by != p.composed_by}
            if both := new and {**known, **new}:
                write_record(self.manifest, {"runs": {name: asdict(both[name]) for name in sorted(both)}})


class Progress(NamedTuple):
    """The progress of a run.

    Attributes:
        state: ``running`` if a process holds the run.
        seconds_left: of training; None if unknown.
        results: of a complete run; None otherwise.
        error: why the run failed, in one line; empty otherwise.
    """

    run: RunDirectory
    state: State | Literal["running"]
    epoch: int
    epochs: int
    seconds_left: float | None
    results: dict[str, Any] | None
    error: str


def progress(
    run: RunDirectory,
    plan: Plan | None = None,
    paces: Mapping[str, float] | None = None,
    restart: bool = False,
) -> Progress:
    """Return the progress of a run.

    Args:
        paces: seconds per epoch by ``Plan.pace``, for a run that has not started.
        restart: the run will be trained anew, so that its existing files do not count.
    """
    results = None if restart else run.final_results(plan.config_sha256 if plan else None)
    status = run.read_status()
    state: Any = "complete" if results else "new" if restart else run.state(plan.config_sha256 if plan else None)
    if state != "complete" and run.is_held():
        state = "running"
    epoch = 0 if restart else status.get("epoch") or 0
    epochs = status.get("epochs") or (plan.epochs if plan else 0)
    own = seconds_per_epoch(run)
    pace = own if own is not None else (paces or {}).get(plan.pace if plan else "")
    left = 0.0 if state == "complete" else None if pace is None else pace * max(epochs - epoch, 0)
    error = str(status.get("error", "")) if state == "failed" else ""
    return Progress(run, state, epoch, epochs, left, results, error)


def seconds_per_epoch(run: RunDirectory) -> float | None:
    """Return the median time of a run's last epochs in seconds; None if it has not finished one."""
    try:
        seconds = json.loads(run.timing.read_bytes())["epoch_seconds"][-LAST_EPOCHS:]
        pace = statistics.median(map(float, seconds))
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # StatisticsError is a ValueError
        return None
    return pace if 0 <= pace < MOST_SECONDS else None  # False for NaN


def known_paces(root: Path) -> dict[str, float]:
    """Return seconds per epoch by ``Plan.pace``, measured by the sweeps and single runs in ``root``."""
    seconds: dict[str, list[float]] = {}
    for manifest in root.glob(f"*/{MANIFEST}"):
        sweep = SweepDirectory(manifest.parent)
        for name, plan in sweep.planned().items():
            if (own := seconds_per_epoch(sweep.run(name))) is not None:
                seconds.setdefault(plan.pace, []).append(own)
    for config in list(root.glob("*/config.yaml"))[:SINGLE_RUNS]:
        run = RunDirectory(config.parent)
        with suppress(FmvaeError):
            if (own := seconds_per_epoch(run)) is not None:
                seconds.setdefault(pace_of(semantic(read_config(config))), []).append(own)
    return {pace: statistics.median(values) for pace, values in seconds.items()}
