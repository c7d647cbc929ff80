"""Trackers beside TensorBoard: MLflow, Weights & Biases, and the base class of one's own."""

from fmvae.runs.tracking import Tracked, Tracker
from fmvae.trackers.mlflow import MLflow
from fmvae.trackers.wandb import WandB

__all__ = ["MLflow", "Tracked", "Tracker", "WandB"]
