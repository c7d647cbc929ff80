"""Which pictures a run gets, during training and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fmvae.data import FashionMNISTManager
from fmvae.data.split import to_float
from fmvae.runs.observer import Observer
from fmvae.visualization.visualizer import VAEVisualizer, training_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fmvae.runs.recorder import Recorder


class FigureObserver(Observer):
    """Reconstructions and samples in TensorBoard every ``settings["every"]`` epochs."""

    def __init__(
        self,
        visualizer: VAEVisualizer,
        data: FashionMNISTManager,
        recorder: Recorder,
        settings: Mapping[str, Any],
    ):
        self.visualizer, self.data, self.recorder, self.settings = visualizer, data, recorder, settings

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        # the last epoch's are drawn from the best checkpoint when training has ended
        if not self.settings["every"] or trainer.epoch % self.settings["every"] or trainer.epoch == trainer.epochs:
            return
        for name, figure in _glances(self.visualizer, self.data, self.settings):
            self.recorder.figure(name, figure, trainer.epoch, save=False)


def _glances(
    visualizer: VAEVisualizer, data: FashionMNISTManager, settings: Mapping[str, Any]
) -> Iterator[tuple[str, Figure]]:
    index = data.test.round_robin(settings["num_reconstructions"])
    images, labels = data.test.images[index], data.test.labels[index]
    yield "reconstructions", visualizer.show_reconstructions(to_float(images), labels)
    yield "samples", visualizer.generate_samples(settings["num_samples"])


def result_figures(
    visualizer: VAEVisualizer,
    data: FashionMNISTManager,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
) -> Iterator[tuple[str, Figure]]:
    """The pictures of a finished run, with their names."""
    yield from _glances(visualizer, data, settings)
    if visualizer.model.latent_dim == 2:
        labels = range(data.num_classes) if visualizer.model.conditional else [None]
        for label in labels:
            name = "latent_manifold" if label is None else f"latent_manifold_class_{label}"
            yield name, visualizer.latent_manifold(settings["manifold_side"], label)
        yield "latent_scatter", visualizer.latent_scatter(data.test)
    yield "training_curves", training_curves(history)
