"""What watches a training run: called by the trainer, reading it, never writing to it."""

from collections.abc import Mapping
from typing import Any


class Observer:
    """Every method may be left as it is. ``trainer`` is a ``fmvae.training.VAETrainer``."""

    def on_train_start(self, trainer: Any) -> None:
        """Before the first step of this process."""

    def on_step(self, trainer: Any, step: int) -> None:
        """After the optimizer's ``step``-th step of the epoch."""

    def on_stop(self, trainer: Any, step: int) -> None:
        """After a step at which training is asked to stop; ``trainer.state()`` is that of this step."""

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """After an epoch; ``row`` is its entry in ``trainer.history``."""
