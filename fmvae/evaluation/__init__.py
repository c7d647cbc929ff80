"""Measures of a trained model, each yielding ``(name, value)`` for the caller to record."""

from fmvae.evaluation.evaluator import Evaluator
from fmvae.evaluation.frechet import FeatureStatistics, calculate_fid, frechet_distance
from fmvae.evaluation.likelihood import importance_weighted_bound, measure_elbo

__all__ = [
    "Evaluator",
    "FeatureStatistics",
    "calculate_fid",
    "frechet_distance",
    "importance_weighted_bound",
    "measure_elbo",
]
