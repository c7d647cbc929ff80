"""A sweep's folder: which runs were asked of it, where each stands, and how long the rest will take."""

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
MOST_SECONDS = 1e9  # an epoch that took longer was not measured
LAST_EPOCHS = 5  # whose median is the pace of a run
SINGLE_RUNS = 50  # that are read for their pace, at most


@dataclass(frozen=True)
class Plan:
    """A run that a sweep asks for.

    Attributes:
        overrides: the command line's, of this job.
        config_sha256: the run's identity.
        pace: equal for runs whose epochs take about as long.
        epochs: how many at most.
        composed_by: of what the config was composed from; by other files the same overrides may say another run.
    """

    overrides: tuple[str, ...]
    config_sha256: str
    pace: str
    epochs: int
    composed_by: str

    @classmethod
    def of(cls, config: Mapping[str, Any], overrides: Iterable[str], composed_by: str) -> tuple[str, Plan]:
        """The name of the run of a config, and its plan."""
        identity = RunIdentity.of(config)
        pace = pace_of(identity.semantic)
        return identity.name, cls(
            tuple(overrides), identity.sha256, pace, config["trainer"]["epochs"], composed_by
        )


def pace_of(identity: Mapping[str, Any]) -> str:
    """What the time of an epoch depends on: the architecture and the data, hardly the latents."""
    model = {key: value for key, value in identity["model"].items() if key != "latent_dim"}
    return digest({"model": model, "data": {**identity["data"], "seed": 0}})[:8]


class SweepDirectory:
    """The folder of a sweep. Any number of processes may add plans to it at once."""

    def __init__(self, path: Path):
        self.path = path
        self.manifest = path / MANIFEST

    def __str__(self) -> str:
        return short(self.path)

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.path / name)

    def planned(self) -> dict[str, Plan]:
        """The runs asked for so far, by name; none if the manifest is missing or damaged: it can be made again."""
        try:
            runs = read_record(self.manifest)["runs"]
            return {name: Plan(**{**plan, "overrides": tuple(plan["overrides"])}) for name, plan in runs.items()}
        except (RunError, LookupError, TypeError, AttributeError):
            return {}

    def add(self, plans: Mapping[str, Plan]) -> None:
        """Write down what is asked for, beside what was."""
        path = self.path / ".locks" / f"{MANIFEST}.lock"
        make_directory(path.parent)
        with locks.held(path, LOCKLESS):
            known = self.planned()
            # of other words for the same run, the first are kept
            new = {n: p for n, p in plans.items() if n not in known or known[n].composed_by != p.composed_by}
            if both := new and {**known, **new}:
                write_record(self.manifest, {"runs": {name: asdict(both[name]) for name in sorted(both)}})


class Progress(NamedTuple):
    """Where a run stands.

    Attributes:
        state: ``running`` if a process holds it.
        seconds_left: of training; None if unknown.
        results: of a complete run.
        error: why it failed, in one line.
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
    """Where a run stands.

    Args:
        paces: seconds of an epoch by ``Plan.pace``, for a run that has not begun.
        restart: it is to be trained anew, so that nothing of it is done.
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
    """The median of a run's last epochs; None if it has not finished one."""
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
    return pace if 0 <= pace < MOST_SECONDS else None  # NaN is neither


def known_paces(root: Path) -> dict[str, float]:
    """Seconds of an epoch by ``Plan.pace``, from the sweeps and single runs in ``root`` that have begun."""
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
