"""Experiments: what a config asks to be trained and measured."""

from fmvae.experiments.lifecycle import train
from fmvae.experiments.search_target import objective
from fmvae.experiments.together import stackable, train_together

__all__ = ["objective", "stackable", "train", "train_together"]
