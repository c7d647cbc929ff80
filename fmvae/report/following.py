"""Reports follow their runs: after runs were measured again, the reports on their folders are made anew."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fmvae.common.command import say
from fmvae.common.text import short, typed_path
from fmvae.errors import FmvaeError
from fmvae.report.sweep import write_report

log = logging.getLogger("fmvae")


def follow(named: str | Sequence[str]) -> None:
    """Write the reports on runs that were measured again, and print the paths of the pages.

    A folder of runs gets a report; so does the folder of a single run, if it has one already. A report that can't
    be written is a warning: the numbers are in the runs.

    Args:
        named: runs and folders, as for ``evaluate.py run=...``.
    """
    given = [named] if isinstance(named, str) else named
    folders = [folder for path in given if path and (folder := _folder(typed_path(str(path))))]
    for folder in dict.fromkeys(folders):
        try:
            say(f"report: {short(write_report([folder]))}")
        except (FmvaeError, OSError) as error:
            log.warning("no report: %s", error)


def _folder(path: Path) -> Path | None:
    """Return the folder whose report follows the runs at a path; None if there is none."""
    path = path.resolve()
    if (path / "config.yaml").exists():
        return path.parent if (path.parent / "report" / "index.html").exists() else None
    return path if path.is_dir() else None
