"""A sweep's folder: the runs that are planned in it, the progress of each, and the time that is left."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fmvae.common import locks
from fmvae.common.digests import digest
from fmvae.common.text import one_line, short
from fmvae.config.identity import RunIdentity, is_name, semantic
from fmvae.config.stored import read_config
from fmvae.errors import FmvaeError, RunError
from fmvae.runs.directory import LOCKLESS, MEASURING, MOST_EPOCHS, RunDirectory, State
from fmvae.runs.files import make_directory, read_record, write_record
from fmvae.runs.timing import Pace, Timing, typical

MANIFEST = "sweep.json"
MOST_SHOWN = 40  # characters of a wrong name in a warning
SINGLE_RUNS = 50  # largest number of single runs that are read for their pace
log = logging.getLogger("fmvae")


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

    @classmethod
    def stored(cls, record: object) -> Plan | None:
        """Return a plan as sweep.json has it; None if it has other fields, or fields of other types."""
        if not isinstance(record, dict) or set(record) != set(cls.__dataclass_fields__):
            return None
        overrides, epochs = record["overrides"], record["epochs"]
        texts = [record[key] for key in ("config_sha256", "pace", "composed_by")]
        if not isinstance(overrides, list) or not all(isinstance(text, str) for text in [*overrides, *texts]):
            return None
        if type(epochs) is not int or not 0 <= epochs < MOST_EPOCHS:
            return None
        return cls(**{**record, "overrides": tuple(overrides)})


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
        """Return the plans in sweep.json by name of run; empty if it is missing or damaged (it can be remade).

        The file may come from someone else: a plan that is none, or whose name is not that of a run, is left out
        with a warning. A name such as ``../other`` would lead out of the sweep.
        """
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Plan], list[str]]:
        """Return the plans in sweep.json, and the names of those that are left out."""
        try:
            runs = read_record(self.manifest).get("runs")
        except RunError:
            return {}, []
        found = {name: Plan.stored(plan) for name, plan in runs.items()} if isinstance(runs, dict) else {}
        plans = {name: plan for name, plan in found.items() if plan and is_name(name)}
        wrong = [name for name in found if name not in plans]
        if wrong:
            _warn_once(self.manifest, len(wrong), len(found), wrong[0])
        return plans, wrong

    def add(self, plans: Mapping[str, Plan]) -> None:
        """Add plans to those in sweep.json.

        A plan with the same overrides is replaced if its run has not begun: the files that configs are composed
        from have changed since, so nothing will train it.
        """
        path = self.path / ".locks" / f"{MANIFEST}.lock"
        make_directory(path.parent)
        with locks.held(path, LOCKLESS):
            known, wrong = self._read()
            # if other overrides give the same run, the first ones are kept
            new = {n: p for n, p in plans.items() if n not in known or known[n].composed_by != p.composed_by}
            asked = {plan.overrides: name for name, plan in plans.items()}
            stale = {
                n for n, p in known.items() if asked.get(p.overrides, n) != n and not (self.path / n).exists()
            }
            both = {name: plan for name, plan in {**known, **new}.items() if name not in stale}
            if both and (new or wrong or stale):
                write_record(self.manifest, {"runs": {name: asdict(both[name]) for name in sorted(both)}})


@cache  # one line for each file, however often it is read
def _warn_once(manifest: Path, wrong: int, total: int, first: str) -> None:
    shown = repr(first if len(first) <= MOST_SHOWN else f"{first[:MOST_SHOWN]}…")
    told = f"{wrong} of {total} plans left out, such as {shown}: not a run's name, or not a plan"
    log.warning("%s: %s; repeat the sweep's command to write it anew", short(manifest), told)


class Progress(NamedTuple):
    """The progress of a run.

    Attributes:
        state: ``running`` if a process holds the run, ``pruned`` if a search ended its training early.
        seconds_left: of training; None if unknown.
        busy: whether other processes used the CPU cores when the time of an epoch was measured.
        results: of a complete run; None otherwise.
        error: why the run failed or was pruned, in one line; empty otherwise.
        phase: what a running run does after its training; empty for others.
    """

    run: RunDirectory
    state: State | Literal["running", "pruned"]
    epoch: int
    epochs: int
    seconds_left: float | None
    busy: bool
    results: dict[str, Any] | None
    error: str
    phase: str


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
    elif state == "partial" and status.get("state") == "pruned":
        state = "pruned"
    epoch = 0 if restart else status.get("epoch") or 0
    epochs = status.get("epochs") or (plan.epochs if plan else 0)
    pace = Timing.read(run).pace() or (paces or {}).get(plan.pace if plan else "")
    phase = MEASURING if state == "running" and status.get("phase") == MEASURING else ""
    left = 0.0 if state == "complete" or phase else None if pace is None else pace.seconds * max(epochs - epoch, 0)
    error = one_line(str(status.get("error") or "")) if state in ("failed", "pruned") else ""
    return Progress(run, state, epoch, epochs, left, bool(pace and pace.busy), results, error, phase)


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
