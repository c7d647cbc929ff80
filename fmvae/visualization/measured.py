"""Figures of numbers that were measured: accuracies of classes, and what latents tell about factors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.visualization.classes import class_accuracy, confusion_matrix
from fmvae.visualization.factors import wanted_factor_figures
from fmvae.visualization.visualizer import VAEVisualizer
from fmvae.weights import weights_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

OF_MEASURES = ("confusion_matrix", "class_accuracy")  # those of accuracies
log = logging.getLogger("fmvae")


def measure_figures(
    visualizer: VAEVisualizer,
    measures: Mapping[str, Any],
    settings: Mapping[str, Any],
    factors: Tensor | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Yield names and figures of measured numbers: of factors, ``confusion_matrix`` and ``class_accuracy``.

    Args:
        measures: by name. The last two figures need ``accuracy``, with ``settings``, and ``generated`` and
            ``real``, each with ``confusion`` (C, C) and ``num_images``.
        settings: the config's ``figures``; if ``only`` is given, it must name a figure.
        factors: of the training images, (N, K), for the shares of their entropies; None if they have none.
    """
    if block := measures.get("disentanglement"):
        known = None if factors is None else factors.cpu().numpy()
        yield from wanted_factor_figures(block, visualizer.name, settings["only"], known)
    if "accuracy" not in measures:
        for name in set(settings["only"] or []) & set(OF_MEASURES):
            log.warning(
                "figures.only: %s shows an accuracy, which evaluation.accuracy.num_per_class=500 measures", name
            )
        return
    generated, real = measures["accuracy"]["generated"], measures["accuracy"]["real"]
    names = visualizer.class_names or ()

    def rates(side: Mapping[str, Any]) -> np.ndarray:
        """Return each class's accuracy, NaN without images; by index, as names may have changed since."""
        counts = np.array(side["confusion"], dtype=float)
        totals = counts.sum(1)
        return np.divide(counts.diagonal(), totals, out=np.full(len(totals), np.nan), where=totals > 0)

    def bars() -> Figure:
        title = f"Accuracy of {judge}, by class: {visualizer.name}\n{counted}"
        return class_accuracy(rates(generated), rates(real), names, title)

    judge = f"FashionResNet18 ({weights_name(measures['accuracy']['settings']['extractor_sha256'])})"
    counted = f"{generated['num_images']:,} generated images, {real['num_images']:,} of the test split"
    title = f"Predictions of {judge} for {generated['num_images']:,} generated images: {visualizer.name}"
    drawings: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_matrix(generated["confusion"], names, title, rows="asked class"),
        "class_accuracy": bars,
    }
    for name, draw in drawings.items():
        if settings["only"] is None or name in settings["only"]:
            yield name, draw()
