"""What ``python -m fmvae.report``, ``verify`` and ``data`` share: their streams, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fmvae.common import streams
from fmvae.errors import FmvaeError, interruption, of_the_machine

INTERRUPTED = 130  # the exit status after Ctrl-C


def say(text: object) -> None:
    """Print a line at once. A reader who has read enough (``... | head``) ends the output, not the command."""
    try:
        print(text, flush=True)
    except OSError:
        silence()


def silence() -> None:
    """Send what follows on standard output nowhere, also what Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_command(command: Callable[[], int]) -> int:
    """Call a command's body; returns the exit status.

    What a user can cause is said in one line, with status 1. Ctrl-C ends in one line, too.
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
