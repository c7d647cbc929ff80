"""Experiments: what a config asks to be trained and measured."""

from fmvae.experiments.lifecycle import train
from fmvae.experiments.objective import objective

__all__ = ["objective", "train"]
