"""Experiments: what a config asks to be trained and measured."""

from fmvae.experiments.lifecycle import train

__all__ = ["train"]
