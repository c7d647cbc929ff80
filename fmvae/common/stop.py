"""Ctrl-C, SIGTERM and SIGHUP during training: heeded after the step in progress, when all can be saved."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
NUMBERS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))  # Windows has no SIGHUP


class Stop:
    """Puts these signals off while it is entered; a second one is not put off.

    Attributes:
        asked: the signal that came, or None.
    """

    def __init__(self):
        self.asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self.asked, self._handlers = None, {}
        if threading.current_thread() is threading.main_thread():  # Python handles signals in no other
            for number in NUMBERS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # ignored, as in a shell's background; or not Python's
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
        """Do what the signal that came does elsewhere: usually raise. Nothing if none came."""
        if self.asked is not None:
            self._obey(self.asked)

    def _obey(self, number: int) -> None:
        handler = self._handlers[number]
        if callable(handler):
            handler(number, None)
        signal.signal(number, handler)
        os.kill(os.getpid(), number)
