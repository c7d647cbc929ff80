"""What a run or a sweep of a config is to its tracker, and the files of both that trackers get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fmvae.config.building import build
from fmvae.errors import FmvaeError
from fmvae.runs.directory import RunDirectory, find_runs
from fmvae.runs.tracking import Reporter, Setting, Tracked, Tracker

PAGES = ("explorer.html",)
log = logging.getLogger("fmvae")


def maker(config: Mapping[str, Any]) -> Callable[[], Tracker] | None:
    """Return what makes the tracker of a config, after making one; None without a tracker.

    Raises:
        ConfigError: the class or its settings are wrong, or a library is missing.
    """
    node = config.get("tracker")
    if not node:
        return None
    first = [build(node, "tracker", Tracker)]
    return lambda: first.pop() if first else build(node, "tracker", Tracker)


def tracked(run: RunDirectory, config: Mapping[str, Any], settings: Mapping[str, Setting]) -> Tracked:
    """Return a run as its tracker sees it."""
    path, sweep = run.path.absolute(), config.get("sweep_name")
    return Tracked(run.name, path, path.parents[1 if sweep else 0], settings, sweep)


def report_files(reporter: Reporter, run: RunDirectory) -> None:
    """Report the files of a measured run, other than its figures."""
    for file in (run.config, run.results, *(run.path / page for page in PAGES)):
        if file.exists():
            reporter.file(reporter.run.path / file.relative_to(run.path))


def report_sweep(config: Mapping[str, Any], folder: Path) -> None:
    """Report the pages on a sweep to the run that stands for it in the tracker, and end that run."""
    path = folder.absolute()
    try:
        make = maker(config)
        if make is None:
            return
        reporter = Reporter(make, Tracked(path.name, path, path.parent, {}))
        for file in sorted((path / "report").rglob("*")):
            if file.is_file():
                reporter.file(file)
        whole = all(run.read_status().get("state") == "complete" for run in find_runs(path))
        reporter.close("complete" if whole else "failed")
    except (FmvaeError, OSError) as error:
        log.warning("the report is not in the tracker: %s", error)
