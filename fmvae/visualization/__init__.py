"""Figures of trained models and of training; each function returns a matplotlib figure."""

from fmvae.visualization.appearance import Appearance, appearing
from fmvae.visualization.classes import class_accuracy, class_samples, confusion_matrix, style_transfer
from fmvae.visualization.curves import classifier_curves, training_curves
from fmvae.visualization.figures import (
    FigureObserver,
    check_figures,
    result_animations,
    result_figures,
    samplers_drawn,
)
from fmvae.visualization.interpolation import interpolations
from fmvae.visualization.latent import kl_per_dimension, latent_scatter
from fmvae.visualization.measured import measure_figures
from fmvae.visualization.model_view import Source
from fmvae.visualization.naming import describe_model
from fmvae.visualization.priors import prior_density, pseudo_inputs
from fmvae.visualization.projector import projector_data, write_projector
from fmvae.visualization.traversal import latent_traversal, traversal_animation
from fmvae.visualization.visualizer import VAEVisualizer
from fmvae.visualization.walk import sample_walk

__all__ = [
    "Appearance",
    "FigureObserver",
    "Source",
    "VAEVisualizer",
    "appearing",
    "check_figures",
    "class_accuracy",
    "class_samples",
    "classifier_curves",
    "confusion_matrix",
    "describe_model",
    "interpolations",
    "kl_per_dimension",
    "latent_scatter",
    "latent_traversal",
    "measure_figures",
    "prior_density",
    "projector_data",
    "pseudo_inputs",
    "result_animations",
    "result_figures",
    "sample_walk",
    "samplers_drawn",
    "style_transfer",
    "training_curves",
    "traversal_animation",
    "write_projector",
]
