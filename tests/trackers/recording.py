"""Trackers that write down what they are told, fail, or hang, for tests of what a run makes of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import fmvae.trackers
from fmvae.runs.tracking import State, Tracked, Tracker


class Recorded(Tracker):
    """A tracker that keeps all calls of all its instances, by the id of the run.

    Args:
        fails: the method that raises an error.
        hangs: the method that does not return before ``release`` is set.
    """

    calls: ClassVar[list[tuple[Any, ...]]] = []
    release: ClassVar[threading.Event] = threading.Event()

    def __init__(self, fails: str | None = None, hangs: str | None = None):
        self.fails, self.hangs, self.id = fails, hangs, ""

    def _called(self, method: str, *arguments: Any) -> None:
        if method == self.hangs:
            self.release.wait(60)
        self.calls.append((method, self.id, *arguments))
        if method == self.fails:
            raise OSError(28, "No space left on device")

    def begin(self, run: Tracked) -> str:
        self.id = run.id or f"{run.name}#{len(self.of('begin'))}"
        self._called("begin", run)
        return self.id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._called("scalars", step, dict(values))

    def picture(self, name: str, png: bytes, step: int) -> None:
        self._called("picture", name, step, png[:4])

    def file(self, path: Path, name: str) -> None:
        self._called("file", name, path.read_bytes())

    def end(self, state: State) -> None:
        self._called("end", state)

    @classmethod
    def of(cls, method: str) -> list[tuple[Any, ...]]:
        """The calls of a method: the id, and the arguments."""
        return [call[1:] for call in cls.calls if call[0] == method]


@pytest.fixture
def recorded(monkeypatch):
    """The class, where configs may name it, with no calls yet."""
    monkeypatch.setattr(Recorded, "calls", [])
    monkeypatch.setattr(Recorded, "release", threading.Event())
    monkeypatch.setattr(Recorded, "__module__", "fmvae.trackers")
    monkeypatch.setattr(fmvae.trackers, "Recorded", Recorded, raising=False)
    yield Recorded
    Recorded.release.set()


TARGET = "+tracker._target_=fmvae.trackers.Recorded"
