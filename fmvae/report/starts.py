"""How runs were started, read from their directories, for the commands that go on from them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from fmvae.config.schema import RULES
from fmvae.config.stored import read_config
from fmvae.errors import ConfigError
from fmvae.report.collect import Run
from fmvae.report.continuing import Start
from fmvae.sweeps.directory import SweepDirectory

NAME = re.compile(RULES["sweep_name"].pattern)


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
