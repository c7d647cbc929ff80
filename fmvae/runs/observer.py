"""Base class of objects that observe training. The trainer calls them; they must not change the trainer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Observer:
    """Subclasses override the methods they need. ``trainer`` is a ``fmvae.training.VAETrainer``."""

    def on_train_start(self, trainer: Any) -> None:
        """Called before the first step of this process."""

    def on_step(self, trainer: Any, step: int) -> None:
        """Called after the optimizer's ``step``-th step of the epoch."""

    def on_stop(self, trainer: Any, step: int) -> None:
        """Called after the step at which training stops for a signal; ``trainer.state()`` is of this step."""

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """Called after an epoch; ``row`` is its entry in ``trainer.history``."""


_ADDED: ContextVar[tuple[Observer, ...]] = ContextVar("observers that a caller adds", default=())


@contextmanager
def also_observed_by(observer: Observer) -> Iterator[None]:
    """Have the run that is trained inside observed by one more observer, after its own."""
    token = _ADDED.set((*_ADDED.get(), observer))
    try:
        yield
    finally:
        _ADDED.reset(token)


def added() -> tuple[Observer, ...]:
    """Return the observers of :func:`also_observed_by`."""
    return _ADDED.get()
