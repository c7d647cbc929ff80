"""A sweep's folder: the runs that are planned in it, the progress of each, and the time that is left."""

from __future__ import annotations

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
from fmvae.runs.timing import Pace, Timing, typical

MANIFEST = "sweep.json"
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
        busy: whether other processes used the CPU cores when the time of an epoch was measured.
        results: of a complete run; None otherwise.
        error: why the run failed, in one line; empty otherwise.
    """

    run: RunDirectory
    state: State | Literal["running"]
    epoch: int
    epochs: int
    seconds_left: float | None
    busy: bool
    results: dict[str, Any] | None
    error: str


def progress(
    run: RunDirectory,
    plan: Plan | None = None,
    paces: Mapping[str, Pace] | None = None,
    restart: bool = False,
) -> Progress:
    """Return the progress of a run.

    Args:
        paces: by ``Plan.pace``, for a run that has not started.
        restart: the run will be trained anew, so that its existing files do not count.
    """
    results = None if restart else run.final_results(plan.config_sha256 if plan else None)
    status = run.read_status()
    state: Any = "complete" if results else "new" if restart else run.state(plan.config_sha256 if plan else None)
    if state != "complete" and run.is_held():
        state = "running"
    epoch = 0 if restart else status.get("epoch") or 0
    epochs = status.get("epochs") or (plan.epochs if plan else 0)
    pace = Timing.read(run).pace() or (paces or {}).get(plan.pace if plan else "")
    left = 0.0 if state == "complete" else None if pace is None else pace.seconds * max(epochs - epoch, 0)
    error = str(status.get("error", "")) if state == "failed" else ""
    return Progress(run, state, epoch, epochs, left, bool(pace and pace.busy), results, error)


def known_paces(root: Path) -> dict[str, Pace]:
    """Return the paces by ``Plan.pace``, measured by the sweeps and single runs in ``root``."""
    found: dict[str, list[Pace]] = {}
    for manifest in root.glob(f"*/{MANIFEST}"):
        sweep = SweepDirectory(manifest.parent)
        for name, plan in sweep.planned().items():
            if own := Timing.read(sweep.run(name)).pace():
                found.setdefault(plan.pace, []).append(own)
    for config in list(root.glob("*/config.yaml"))[:SINGLE_RUNS]:
        run = RunDirectory(config.parent)
        with suppress(FmvaeError):
            if own := Timing.read(run).pace():
                found.setdefault(pace_of(semantic(read_config(config))), []).append(own)
    return {key: typical(paces) for key, paces in found.items()}
