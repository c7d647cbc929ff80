"""What a run writes of itself besides its numbers: its log, and why it ended early."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fmvae.common.logs import LogFile
from fmvae.config.stored import to_yaml
from fmvae.errors import FmvaeError, LostError, Pruned, Terminated
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes

log = logging.getLogger("fmvae")

_CURRENT: ContextVar[Path | None] = ContextVar("of which run lines are logged", default=None)


@contextmanager
def only_of(run: RunDirectory | None) -> Iterator[None]:
    """Restrict log lines inside to this run's train.log, if the process works on several runs."""
    token = _CURRENT.set(run.path if run else None)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def logging_to(run: RunDirectory) -> Iterator[None]:
    """Also write log lines inside to the run's train.log, with the time."""
    handler = LogFile(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda record: _CURRENT.get() in (None, run.path))
    # the runs of a stack end in any order: keep the level from before the first
    others = [other for other in log.handlers if isinstance(other, LogFile)]
    handler.level_before = others[0].level_before if others else log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        if not any(isinstance(other, LogFile) for other in log.handlers):
            log.setLevel(handler.level_before)


@contextmanager
def reporting_failure(run: RunDirectory, config: Mapping[str, Any]) -> Iterator[None]:
    """Write the reason of a failure to status.json, and its traceback to train.log only."""
    try:
        yield
    except BaseException as error:
        kind = "interrupted" if isinstance(error, KeyboardInterrupt | Terminated) else "failed"
        kind = "pruned" if isinstance(error, Pruned) else kind
        reason = str(error) if isinstance(error, FmvaeError) else f"{type(error).__name__}: {error}"
        if isinstance(error, Pruned):
            reason = f"{error.problem}; {error.way_out}"
        if kind == "interrupted":
            by = "a signal" if isinstance(error, Terminated) else "Ctrl-C"
            reason = f"by {by}; the same command continues"
        if run.read_status().get("state") == "complete":
            raise  # a failed re-invocation must not mark a complete run as failed
        if isinstance(error, LostError):
            raise  # the directory now belongs to another process
        try:
            if not run.config.exists():  # failed before its start: store at least its config
                write_bytes(run.config, to_yaml(config).encode())
            run.write_status(kind, error=" ".join(reason.split()), epoch=run.read_status().get("epoch", 0))
            if kind != "pruned":
                with open(run.log, "a", encoding="utf-8") as file:
                    traceback.print_exception(error, file=file)
        except OSError as second:  # a full disk must not hide the first error
            log.warning("%s: %s", run.status, second)
        raise


def to_yaml_list(overrides: Sequence[str]) -> str:
    """Format the command line's overrides as a YAML list, one per line."""
    return "".join(f"- {json.dumps(override)}\n" for override in overrides) or "[]\n"
