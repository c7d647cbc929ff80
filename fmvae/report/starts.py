"""How runs were started, read from their directories, for the commands that go on from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fmvae.config.schema import RULES
from fmvae.config.stored import read_config
from fmvae.errors import ConfigError
from fmvae.report.collect import Run
from fmvae.report.continuing import Start, together
from fmvae.sweeps.directory import SweepDirectory

NAME = re.compile(RULES["sweep_name"].pattern)


def unfinished(able: Sequence[Run], others: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that a command finishes together, by command.

    There is one for each sweep with two or more planned runs in ``able``, if its plan is one grid, and if none of
    its runs is among the ``others``, which are not complete either: the command would train those, too.
    """
    sweeps: dict[Path, list[Run]] = {}
    for run in able:
        sweeps.setdefault(run.directory.path.parent, []).append(run)
    found, left_alone = {}, {run.directory.path.parent for run in others}
    for folder, own in sweeps.items():
        named = len(own) > 1 and folder not in left_alone and NAME.fullmatch(folder.name)
        plans = SweepDirectory(folder).planned() if named else {}
        covered = [run for run in own if run.name in plans]
        if len(covered) > 1 and (line := together([plan.overrides for plan in plans.values()], folder.name)):
            found[line] = covered
    return found


def started(run: Run) -> Start | None:
    """Return how a run was started; None if its files do not say.

    The plan of its sweep tells of a run that has not begun. The name of a sweep is that of its folder today, so
    that a folder that was renamed is found, or else the one in its config if the folder's name can't be one.
    """
    if run.state == "new":
        sweep = SweepDirectory(run.directory.path.parent)
        plan = sweep.planned().get(run.name)
        return Start(plan.overrides, sweep.path.name) if plan and NAME.fullmatch(sweep.path.name) else None
    try:
        config = read_config(run.directory.config)
        text = run.directory.overrides.read_text(encoding="utf-8")
        given: Any = yaml.safe_load(text)
    except (ConfigError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(given, list) or not all(isinstance(override, str) for override in given):
        return None
    name, folder = config.get("sweep_name") or "", run.directory.path.resolve().parent.name
    return Start(given, folder if name and NAME.fullmatch(folder) else str(name))
