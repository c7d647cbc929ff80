"""Experiments: train and measure what a config describes."""

from fmvae.experiments.lifecycle import train
from fmvae.experiments.search_target import objective
from fmvae.experiments.together import stackable, train_together

__all__ = ["objective", "stackable", "train", "train_together"]
