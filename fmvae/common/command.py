"""What ``python -m fmvae.report``, ``verify`` and ``data`` share: their streams, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from fmvae.common import streams
from fmvae.errors import FmvaeError, of_the_machine

INTERRUPTED = 130  # the exit status after Ctrl-C


def run_command(command: Callable[[], int]) -> int:
    """Call a command's body; returns the exit status.

    What a user can cause is said in one line, with status 1. Ctrl-C ends in one line, too, and a reader who has
    read enough (``... | head``) in none.
    """
    streams.set_up()
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 0
    except KeyboardInterrupt:
        streams.complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        said = error if isinstance(error, FmvaeError) else of_the_machine(error)
        if said is None:
            raise
        streams.complain(f"fmvae: error: {said}")
        return 1
