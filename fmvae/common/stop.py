"""Defer Ctrl-C, SIGTERM and SIGHUP during training until the current step has ended and can be saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
NUMBERS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has no SIGHUP


class Stop:
    """Context manager that defers the first of these signals. A second signal acts at once.

    Attributes:
        asked: the number of the deferred signal, or None.
    """

    def __init__(self):
        self.asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self.asked, self._handlers = None, {}
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for number in NUMBERS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # ignored (as in a background job), or not Python's
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            self._obey(number)
        self.asked = number

    def heed(self) -> None:
        """Act on the deferred signal as its previous handler would, usually by raising. No-op if there is none."""
        if self.asked is not None:
            self._obey(self.asked)

    def _obey(self, number: int) -> None:
        handler = self._handlers[number]
        if callable(handler):
            handler(number, None)
        signal.signal(number, handler)
        os.kill(os.getpid(), number)
