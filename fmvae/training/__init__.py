"""The training loop and its observers."""

from fmvae.training.classifier import ClassifierTrainer, classify
from fmvae.training.loop import Trainer
from fmvae.training.observers import Checkpointer, EpochLog, Guard, ProgressBar
from fmvae.training.vae import ConditionalVAETrainer, VAETrainer, trained_by_optimizer

__all__ = [
    "Checkpointer",
    "ClassifierTrainer",
    "ConditionalVAETrainer",
    "EpochLog",
    "Guard",
    "ProgressBar",
    "Trainer",
    "VAETrainer",
    "classify",
    "trained_by_optimizer",
]
