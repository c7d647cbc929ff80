"""Output and exit status of the commands ``python -m fmvae.report``, ``fmvae.verify`` and ``fmvae.data``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fmvae.common import streams
from fmvae.errors import FmvaeError, interruption, of_the_machine

INTERRUPTED = 130  # the exit status after Ctrl-C


def say(text: object) -> None:
    """Print a line and flush it. If the reader closed the pipe (``... | head``), the command goes on silently."""
    try:
        print(text, flush=True)
    except OSError:
        silence()


def silence() -> None:
    """Discard all further standard output, including what Python flushes on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(command: Callable[[], int]) -> int:
    """Call a command's body and return the exit status.

    An error that the user can act on is printed in one line, and the status is 1. Ctrl-C prints one line, too.
    """
    streams.set_up()
    try:
        return command()
    except (KeyboardInterrupt, Exception) as error:
        if interruption(error):
            streams.complain("interrupted")
            return INTERRUPTED
        said = error if isinstance(error, FmvaeError) else of_the_machine(error)
        if said is None:
            raise
        streams.complain(f"fmvae: error: {said}")
        return 1
