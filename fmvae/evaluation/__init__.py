"""Measures of a trained model, each yielding ``(name, value)`` for the caller to record."""

from fmvae.evaluation.evaluator import evaluate
from fmvae.evaluation.frechet import FeatureStatistics, calculate_fid, frechet_distance
from fmvae.evaluation.likelihood import measure_elbo

__all__ = ["FeatureStatistics", "calculate_fid", "evaluate", "frechet_distance", "measure_elbo"]
