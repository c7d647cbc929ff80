"""Where lines go: the terminal and train.log. One that can't be written stops nothing, and fills no screen."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from fmvae.common import streams


class Unharmed(logging.Handler):
    """A handler that a full disk, or a reader who went away, cuts short without a word."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Terminal(Unharmed, logging.StreamHandler):
    """Standard output, above progress bars."""

    def __init__(self) -> None:
        streams.set_up()  # a launcher's process does not come by fmvae.cli
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        with streams.above_bars():
            super().emit(record)


class LogFile(Unharmed, logging.FileHandler):
    """What must be kept is written elsewhere, and fails there in words.

    Attributes:
        level_before: the logger's, before the first of those that are open was.
    """

    level_before = logging.NOTSET
