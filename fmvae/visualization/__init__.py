"""Pictures of what a model has learned, as matplotlib figures that belong to the caller."""

from fmvae.visualization.figures import FigureObserver, result_figures
from fmvae.visualization.visualizer import VAEVisualizer, training_curves

__all__ = ["FigureObserver", "VAEVisualizer", "result_figures", "training_curves"]
