"""Measure, draw, load and verify trained VAEs."""

from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import LoadedRun, load_run

__all__ = ["LoadedRun", "evaluate_runs", "load_run"]
