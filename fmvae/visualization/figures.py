"""The choice of figures that a run draws, during training and at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from fmvae.data import ImageData
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import SAMPLERS
from fmvae.models import VampPrior
from fmvae.models.posterior import Posteriors
from fmvae.runs.observer import Observer
from fmvae.visualization.appearance import Appearance, drawn
from fmvae.visualization.classes import class_samples, style_transfer
from fmvae.visualization.curves import training_curves
from fmvae.visualization.factors import MATRICES, followed
from fmvae.visualization.interpolation import interpolation_pairs, interpolations
from fmvae.visualization.latent import kl_per_dimension, latent_scatter
from fmvae.visualization.measured import OF_MEASURES
from fmvae.visualization.model_view import Source
from fmvae.visualization.neighbours import NUM_NEAREST, neighbours
from fmvae.visualization.priors import prior_density, pseudo_inputs
from fmvae.visualization.traversal import chosen_dimensions, latent_traversal, traversal_animation
from fmvae.visualization.visualizer import VAEVisualizer
from fmvae.visualization.walk import sample_walk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fmvae.runs.recorder import Recorder

log = logging.getLogger("fmvae")
Drawings = dict[str, Callable[[], "Figure"]]
Sources = Mapping[str, Callable[[], Source]]  # by sampler, fitted at the first call
OF_CLASS = "_class_"  # latent_manifold_class_3 belongs to the figures latent_manifold


class FigureObserver(Observer):
    """Write reconstructions and samples to TensorBoard every ``settings["every"]`` epochs."""

    def __init__(
        self,
        visualizer: VAEVisualizer,
        data: ImageData,
        recorder: Recorder,
        settings: Mapping[str, Any],
    ):
        self.visualizer, self.data, self.recorder, self.settings = visualizer, data, recorder, settings

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        # not in the last epoch: after training, these figures are drawn from the best checkpoint
        if not self.settings["every"] or trainer.epoch % self.settings["every"] or trainer.epoch == trainer.epochs:
            return
        for name, draw in _glances(self.visualizer.at_epoch(trainer.epoch), self.data, self.settings).items():
            self.recorder.glance(name, draw(), trainer.epoch)


def check_figures(
    visualizer: VAEVisualizer, data: ImageData, settings: Mapping[str, Any], samplers: Iterable[str] = ()
) -> None:
    """Check the settings of figures before anything is measured or drawn.

    Args:
        samplers: those that have figures of samples.

    Raises:
        ConfigError: ``only`` names a figure that does not exist or does not fit the model, or a dimension to
            traverse does not exist, or the font is not installed.
    """
    Appearance.of(settings)
    chosen_dimensions(settings["traversal"]["dimensions"], visualizer.latent_dim)
    sources: dict[str, Any] = dict.fromkeys(samplers)
    names: dict[str, Any] = {**_drawings(visualizer, data, [], settings, None, sources)}
    if visualizer.conditional:
        names |= dict.fromkeys(OF_MEASURES)
    if data.factor_names:
        names |= dict.fromkeys(MATRICES)
    groups = {name.split(OF_CLASS)[0] for name in names}
    for asked in settings["only"] or []:
        if asked in {*names, *groups}:
            continue
        for sampler in SAMPLERS[1:]:
            if asked in _names_of(sampler, visualizer.conditional):
                problem = f"{asked!r} shows a sampler that is not in evaluation.samplers"
                kept = ",".join(["prior", *sources, sampler])
                raise ConfigError("figures.only", problem, f"give evaluation.samplers=[{kept}]")
        problem = f"{asked!r} is not a figure of {visualizer.name}"
        shortened = dict.fromkeys(
            name.split(OF_CLASS)[0] + f"{OF_CLASS}<label>" * (OF_CLASS in name) for name in names
        )
        raise ConfigError("figures.only", problem, f"choose from {', '.join(shortened)}")


def _names_of(sampler: str, conditional: bool = True) -> list[str]:
    """Return the names of a sampler's figures."""
    return [f"samples_{sampler}", f"neighbours_{sampler}", f"class_samples_{sampler}"][: 2 + conditional]


def samplers_drawn(settings: Mapping[str, Any], samplers: Iterable[str]) -> list[str]:
    """Return those of the samplers that a requested figure shows."""
    only = settings["only"]
    return [sampler for sampler in samplers if only is None or set(_names_of(sampler)) & set(only)]


def result_figures(
    visualizer: VAEVisualizer,
    data: ImageData,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
    posteriors: Posteriors | None = None,
    sources: Sources | None = None,
    measures: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Yield names and figures of a finished run that fit its model; each is drawn when requested.

    Args:
        history: a row per epoch, as for :func:`training_curves`.
        settings: the config's ``figures``. ``only`` names the figures to draw, null draws all. In it,
            ``latent_manifold`` and ``traversal`` stand for those of all classes. ``traversal.every_class`` adds
            ``traversal_class_<label>``.
        posteriors: of the test split, if already computed.
        sources: by sampler: each adds ``samples_<sampler>``, ``neighbours_<sampler>``, and
            ``class_samples_<sampler>`` for a conditional model.
        measures: by name; the block ``disentanglement`` names the factors that dimensions of traversals follow.

    Raises:
        ConfigError: as :func:`check_figures`, at the call.
    """
    sources = sources or {}
    check_figures(visualizer, data, settings, sources)
    of_factors = followed((measures or {}).get("disentanglement"))
    drawings = _drawings(visualizer, data, history, settings, posteriors, sources, of_factors)
    if settings["only"] is None:
        extra = () if settings["traversal"]["every_class"] else ("traversal",)
        wanted = [name for name in drawings if name.split(OF_CLASS)[0] not in extra]
        if settings["traversal"]["every_class"] and not data.labelled:
            log.info("figures.traversal.every_class: ignored, as the data have no labels")
    else:
        wanted = [name for name in drawings if {name, name.split(OF_CLASS)[0]} & set(settings["only"])]
    return drawn("figures", {name: drawings[name] for name in wanted})


def result_animations(
    visualizer: VAEVisualizer,
    data: ImageData,
    settings: Mapping[str, Any],
    posteriors: Posteriors | None = None,
    sources: Sources | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the animations of a finished run as file names and contents; none if ``gif`` is false.

    ``only`` selects them like the figures of these names: ``traversal_prior`` and ``samples_<sampler>``.
    """
    sources, only = sources or {}, settings["only"]
    check_figures(visualizer, data, settings, sources)
    if not settings["gif"]:
        return
    traversal = settings["traversal"]

    def traversed() -> bytes:
        return traversal_animation(
            visualizer,
            posteriors or visualizer.posteriors(data.test),
            label=_example_label(visualizer, data),
            dimensions=traversal["dimensions"],
            span=traversal["span"],
            steps=2 * traversal["steps"] - 1,  # half the figure's step, and includes its values
        )

    drawings = {"traversal_prior": traversed}
    for sampler, source in sources.items():
        drawings[_names_of(sampler)[0]] = lambda source=source: sample_walk(visualizer, source())
    wanted = {f"{name}.gif": draw for name, draw in drawings.items() if only is None or name in only}
    yield from drawn("animations", wanted)


def _example_label(visualizer: VAEVisualizer, data: ImageData) -> int | None:
    """Return the class of the first test image, where traversals start; None for an unconditional model."""
    return int(data.test.labels[0]) if visualizer.conditional else None


def _glances(visualizer: VAEVisualizer, data: ImageData, settings: Mapping[str, Any]) -> Drawings:
    index = data.test.round_robin(settings["num_reconstructions"])
    images, labels = data.test.images[index], data.test.labels[index]
    return {
        "reconstructions": lambda: visualizer.show_reconstructions(to_float(images), labels),
        "samples": lambda: visualizer.generate_samples(settings["num_samples"]),
    }


def _drawings(
    visualizer: VAEVisualizer,
    data: ImageData,
    history: Sequence[Mapping[str, float]],
    settings: Mapping[str, Any],
    known: Posteriors | None,
    sources: Sources,
    of_factors: Sequence[str] | None = None,
) -> Drawings:
    """Return a function for each figure that fits the model and the data, by name; nothing is drawn yet."""
    test, num_classes = data.test, data.num_classes
    encoded = cache(lambda: known or visualizer.posteriors(test))
    firsts = test.round_robin(num_classes)  # none without labels
    first_of = {int(test.labels[index]): int(index) for index in firsts.flip(0)}
    drawings = _glances(visualizer, data, settings)
    for sampler, source in sources.items():
        drawings[_names_of(sampler)[0]] = lambda source=source: visualizer.generate_samples(
            settings["num_samples"], source()
        )
        if len(data.train) >= NUM_NEAREST:
            drawings[_names_of(sampler)[1]] = lambda source=source: neighbours(
                visualizer, data.train, test, source()
            )
    if visualizer.latent_dim == 2:
        labels = range(num_classes) if visualizer.conditional else [None]
        for label in labels:
            name = "latent_manifold" if label is None else f"latent_manifold{OF_CLASS}{label}"
            drawings[name] = partial(visualizer.latent_manifold, settings["manifold_side"], label)
    drawings["latent_scatter"] = lambda: latent_scatter(visualizer, encoded(), test.name)
    prior = visualizer.prior()
    if prior.is_standard:
        drawings["kl_per_dimension"] = lambda: kl_per_dimension(visualizer, encoded(), test.name)
    elif visualizer.latent_dim == 2:
        drawings["prior_density"] = lambda: prior_density(visualizer, encoded(), test.name)
    if isinstance(visualizer.model.latent_prior, VampPrior):
        drawings["pseudo_inputs"] = lambda: pseudo_inputs(visualizer)

    options: dict[str, Any] = {key: settings["traversal"][key] for key in ("dimensions", "span", "steps")}
    options |= {"prior": prior, "followed": of_factors}
    label = _example_label(visualizer, data)
    drawings["traversal_prior"] = lambda: latent_traversal(visualizer, encoded(), label=label, **options)

    def from_image(index: int) -> Figure:
        image, own_label = to_float(test.images[index]), int(test.labels[index])
        return latent_traversal(visualizer, encoded(), image, own_label, **options)

    drawings["traversal_posterior"] = partial(from_image, 0)
    for own_label, index in sorted(first_of.items()):
        drawings[f"traversal{OF_CLASS}{own_label}"] = partial(from_image, index)
    if len(test) > 1:

        def between() -> Figure:
            pairs = interpolation_pairs(test, labelled=data.labelled)
            first, second = ((to_float(test.images[index]), test.labels[index]) for index in pairs)
            return interpolations(visualizer, first, second)

        drawings["interpolations"] = between
    if visualizer.conditional:
        rows = [first_of[label] for label in sorted(first_of)]
        drawings["class_samples"] = partial(class_samples, visualizer)
        for sampler, source in sources.items():
            drawings[_names_of(sampler)[2]] = lambda source=source: class_samples(visualizer, source=source())
        drawings["style_transfer"] = lambda: style_transfer(
            visualizer, to_float(test.images[rows]), test.labels[rows]
        )
    drawings["training_curves"] = lambda: training_curves(history, visualizer.name)
    return drawings
