"""How runs were started, read from their directories, for the commands that go on from them."""

from __future__ import annotations

from typing import Any

import yaml

from fmvae.config.stored import read_config
from fmvae.errors import ConfigError
from fmvae.report.collect import Run
from fmvae.report.continuing import Start


def started(run: Run) -> Start | None:
    """Return how a run was started; None if its files do not say.

    The name of a sweep is that of its folder today, so that a folder that was renamed is found.
    """
    try:
        config = read_config(run.directory.config)
        text = run.directory.overrides.read_text(encoding="utf-8")
        given: Any = yaml.safe_load(text)
    except (ConfigError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(given, list) or not all(isinstance(override, str) for override in given):
        return None
    return Start(given, run.directory.path.resolve().parent.name if config.get("sweep_name") else "")
