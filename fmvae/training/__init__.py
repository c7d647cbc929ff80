"""The training loop, and those who watch it."""

from fmvae.training.observers import Checkpointer, EpochLog, ProgressBar
from fmvae.training.trainer import ConditionalVAETrainer, VAETrainer

__all__ = ["Checkpointer", "ConditionalVAETrainer", "EpochLog", "ProgressBar", "VAETrainer"]
