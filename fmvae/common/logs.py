"""Log handlers for the terminal and train.log. A line that can't be written is dropped without a traceback."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from fmvae.common import streams


class Unharmed(logging.Handler):
    """A handler that ignores I/O errors, as of a full disk or a closed pipe."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Terminal(Unharmed, logging.StreamHandler):
    """A handler that writes to standard output, above any progress bars, what these do not say already."""

    def __init__(self) -> None:
        streams.set_up()  # the worker process of a launcher does not run fmvae.cli.main
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, streams.HAD_A_BAR) and streams.bars_shown() and streams.is_terminal(self.stream):
            return
        with streams.above_bars():
            super().emit(record)


class LogFile(Unharmed, logging.FileHandler):
    """A handler that writes to a log file. Results are written elsewhere, where an I/O error is raised.

    Attributes:
        level_before: the logger's level before the first of the open log files was opened.
    """

    level_before = logging.NOTSET
