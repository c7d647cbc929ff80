"""Measures of a trained model; the evaluator yields ``(name, value)`` for the caller to record."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmvae.evaluation.columns import Column
    from fmvae.evaluation.evaluator import Evaluator
    from fmvae.evaluation.frechet import FeatureStatistics, calculate_fid, frechet_distance
    from fmvae.evaluation.likelihood import importance_weighted_bound, measure_elbo
    from fmvae.evaluation.measure import Context, Measure

__all__ = [
    "Column",
    "Context",
    "Evaluator",
    "FeatureStatistics",
    "Measure",
    "calculate_fid",
    "frechet_distance",
    "importance_weighted_bound",
    "measure_elbo",
]
MODULES = {
    "Column": "columns",
    "Context": "measure",
    "Evaluator": "evaluator",
    "FeatureStatistics": "frechet",
    "Measure": "measure",
    "calculate_fid": "frechet",
    "frechet_distance": "frechet",
    "importance_weighted_bound": "likelihood",
    "measure_elbo": "likelihood",
}


def __getattr__(name: str) -> Any:
    # lazy imports: reading the list of columns must not import torch
    if name in MODULES:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
