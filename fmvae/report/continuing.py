"""The commands with which a study goes on. No input or output: what a run was started with is handed in."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fmvae.config.shorthand import shortened
from fmvae.report.collect import Run, sortable
from fmvae.report.settings import Setting

MORE_SEEDS = 2  # seeds that a command adds
LONGER = 2  # by this factor a run is trained longer
OF_ONE_COMMAND = ("restart", "dry_run", "trainer.progress")  # a restart would train again what is there


class Start(NamedTuple):
    """How a run was started.

    Args:
        overrides: those of its command line.
        sweep: the name of the sweep's folder; empty for a single run.
    """

    overrides: Sequence[str]
    sweep: str = ""


Started = Callable[[Run], Start | None]  # how a run was started; None if it is not known


class Command(NamedTuple):
    """A command to paste, and what it does."""

    purpose: str
    line: str


def again(run: Run, started: Started) -> str:
    """Return the command that finishes a run; empty if its start is not known."""
    start = started(run)
    return _line(start, {}, multirun=bool(start.sweep)) if start else ""


def together(jobs: Sequence[Sequence[str]], sweep: str) -> str:
    """Return the command of a sweep with these jobs, which finishes it; empty if one grid does not give them.

    Args:
        jobs: the overrides of each. They are a grid if each has the same keys, and every combination is there.
    """
    parted = [[override.partition("=")[::2] for override in job] for job in jobs]
    keys = [key for key, _ in parted[0]]
    if any([key for key, _ in job] != keys for job in parted) or len(set(keys)) < len(keys):
        return ""
    values = [sorted({job[i][1] for job in parted}, key=sortable) for i in range(len(keys))]
    asked = {tuple(value for _, value in job) for job in parted}
    simple = all(re.fullmatch(r"[\w.+-]+", value) for of_key in values for value in of_key if len(of_key) > 1)
    if not simple or len(asked) < math.prod(map(len, values)):
        return ""
    return _line(Start([f"{key}={','.join(of_key)}" for key, of_key in zip(keys, values, strict=True)], sweep), {})


def more_seeds(setting: Setting, started: Started) -> str:
    """Return the command that trains a setting with further seeds; empty if its start is not known."""
    start = started(setting.first)
    if start is None:
        return ""
    last = max(_seeds(setting), default=-1)
    seeds = ",".join(str(last + 1 + i) for i in range(MORE_SEEDS))
    return _line(start, {"seed": seeds})


def more_epochs(setting: Setting, started: Started) -> str:
    """Return the command that trains a setting's seeds anew for more epochs; empty if its start is not known."""
    start, epochs = started(setting.first), setting.first.config.get("trainer.epochs")
    if start is None or type(epochs) is not int:
        return ""
    seeds = ",".join(map(str, _seeds(setting)))
    return _line(start, {**({"seed": seeds} if seeds else {}), "trainer.epochs": str(LONGER * epochs)})


def measure_again(folder: str) -> str:
    """Return the command that measures all runs of a folder alike."""
    return shlex.join(["python", "evaluate.py", f"run={folder}"])


def compare_seeds(folder: str) -> str:
    """Return the command that compares the latents of a folder's runs that differ in their seeds."""
    return shlex.join(["python", "-m", "fmvae.udr", folder])


def _seeds(setting: Setting) -> list[int]:
    return sorted({seed for run in setting.runs if type(seed := run.config.get("seed")) is int})


def _line(start: Start, changed: Mapping[str, str], *, multirun: bool = True) -> str:
    replaced = {*changed, *OF_ONE_COMMAND, "sweep_name", *(["hydra.mode"] if multirun else [])}
    kept = [override for override in start.overrides if override.lstrip("+").partition("=")[0] not in replaced]
    new = [f"{key}={value}" for key, value in changed.items()]
    name = [f"sweep_name={start.sweep}"] if start.sweep else []
    options = {override.partition("=")[0] for override in kept}  # not beta=warmup beta=4, though it would be read
    words = [w if w.partition(".value=")[0] in options else shortened(w) for w in (*kept, *new, *name)]
    line = shlex.join(["python", "train.py", *(["-m"] if multirun else []), *words])
    return line if line.isprintable() else ""  # a line break would end it where it is pasted
