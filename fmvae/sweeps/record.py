"""The record of a folder's searches (search.json): what the report shows of them. Reading it needs no Optuna."""

from __future__ import annotations

import filecmp
import logging
import shutil
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from fmvae.common.text import short
from fmvae.config.shorthand import shortened
from fmvae.errors import RunError
from fmvae.runs.files import read_record, write_record

RECORD = "search.json"
log = logging.getLogger("fmvae")


class Trial(NamedTuple):
    """A trial of a search.

    Attributes:
        number: from 0.
        state: ``complete``, ``pruned``, ``fail``, or ``running`` and ``waiting`` of one that was interrupted.
        run: the name of its run; empty if its config was wrong.
        params: what was chosen, by key.
        values: of the objectives; none if it is not complete.
    """

    number: int
    state: str
    run: str
    params: Mapping[str, Any]
    values: tuple[float, ...]


class Record(NamedTuple):
    """A study.

    Attributes:
        objectives, directions: the numbers that are searched by; ``minimize`` or ``maximize`` each.
        sampler: the class in ``optuna.samplers``.
        front: numbers of the best trial, or of those on the Pareto front.
        importances: for each objective, the share of its variance that each key explains; empty if unknown.
    """

    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    sampler: str
    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    importances: tuple[Mapping[str, float], ...]


def chosen(trial: Trial) -> list[str]:
    """Return what was chosen for a trial as arguments of a command line."""
    return [shortened(f"{key}={value}") for key, value in trial.params.items()]


def write_study(folder: Path, name: str, record: Record) -> None:
    """Write a study into a folder's search.json, beside its other studies."""
    studies = {**_read(folder), name: {**record._asdict(), "trials": [trial._asdict() for trial in record.trials]}}
    write_record(folder / RECORD, {"studies": studies})


def read_studies(folder: Path) -> dict[str, Record]:
    """Return the studies of a folder's search.json by name; those that are no studies are left out."""
    found = {}
    for name, stored in _read(folder).items():
        try:
            trials = tuple(
                Trial(each["number"], each["state"], each["run"], each["params"], tuple(each["values"]))
                for each in stored["trials"]
            )
            objectives, directions, front, shares = (
                tuple(stored[key]) for key in ("objectives", "directions", "front", "importances")
            )
            found[name] = Record(objectives, directions, str(stored["sampler"]), trials, front, shares)
        except (LookupError, TypeError):
            continue
    return found


def keep_lost(folder: Path, name: str, known: Collection[int]) -> None:
    """Before a study is written, keep a copy of a record that it would replace, and say why.

    Args:
        known: the numbers of the trials in the database. If the record has others, the database was lost.
    """
    path = folder / RECORD
    if not path.exists():
        return
    try:
        read_record(path)
    except (RunError, OSError) as error:
        problem = error.problem if isinstance(error, RunError) else str(error.strerror)
        what = f"{problem}; repeat the command of each other study in this folder, and it is in the record again"
    else:
        before = read_studies(folder).get(name)
        lost = {trial.number for trial in before.trials} - set(known) if before else set()
        if not lost:
            return
        what = f"it has {len(lost)} trials of the study {name} that study.db does not have, and will lose them"
    copies = (path.with_name(f"search-{i}.json") for i in count(1))
    kept = next(one for one in copies if not one.exists() or filecmp.cmp(one, path, shallow=False))
    if kept.exists():
        return
    shutil.copy2(path, kept)
    log.warning("%s: %s (kept as %s)", short(path), what, kept.name)


def _read(folder: Path) -> dict[str, Any]:
    try:
        studies = read_record(folder / RECORD).get("studies")
    except (RunError, OSError):
        return {}
    return studies if isinstance(studies, dict) else {}
