"""The base class of measures, and the context that they compute on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.digests import digest
from fmvae.config.commands import TRAINS_CLASSIFIER
from fmvae.data import ImageData, Split
from fmvae.data.fashion_mnist import CONTENT as FASHION_MNIST
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.cache import real_features
from fmvae.evaluation.columns import Column
from fmvae.evaluation.features import (
    Draws,
    Features,
    FeatureSet,
    Precision,
    ResNetFeatures,
    generated_images,
    reconstructed_images,
)
from fmvae.evaluation.notes import Note
from fmvae.evaluation.partial import Partials
from fmvae.evaluation.precision import in_asked_precision
from fmvae.evaluation.samplers import Sampler, SamplerStore
from fmvae.evaluation.suitability import Difference, difference, unlike_garments
from fmvae.models import VAE, Posteriors, encode_split
from fmvae.objectives import Objective
from fmvae.runs.checkpoint import weights_sha256
from fmvae.weights import SHIPPED, weights_name

T = TypeVar("T")
Need = Literal["labels", "factors", "conditional model"]


class Context:
    """The input of a measure: a trained model, its objective and its data, and helpers that measures share.

    While a measure computes, model and objective are in evaluation mode and no gradients are recorded.

    Attributes:
        seed: the run's seed.
        cache: the folder for features of real images; None disables the cache.
        notes: one line for each measure that is left out, with the reason, or whose classifier knows other data.
        samplers: the fitted samplers; a caller with a run's directory sets a store that keeps them there.
        untrained: makes the model as it was before training; None if that is not known.
        trains_classifier: the command that trains a classifier of these data.
        partials: where measures that take long keep what they have so far; nowhere until a caller sets it.
    """

    def __init__(self, model: VAE, objective: Objective, data: ImageData, *, seed: int, cache: Path | None):
        self.model, self.objective, self.data, self.seed, self.cache = model, objective, data, seed, cache
        self.notes: list[Note] = []
        self.samplers = SamplerStore(None, model, data, seed=seed)
        self.untrained: Callable[[], VAE] | None = None
        self.trains_classifier = f"{TRAINS_CLASSIFIER} data=<as here>"
        self.partials = Partials()
        self._classifiers: dict[tuple[str, str, int], FeatureSet] = {}
        self._kept: dict[Hashable, Any] = {}

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def offers(self) -> set[Need]:
        """The values of ``Measure.needs`` that this model and these data satisfy."""
        has: dict[Need, bool] = {
            "labels": self.data.labelled,
            "factors": self.data.factors is not None,
            "conditional model": self.model.conditional,
        }
        return {need for need, there in has.items() if there}

    def noise(self, part: int = 0) -> torch.Generator:
        """Return a new generator for draws from posteriors; each ``part`` has a different stream."""
        return rng.stream(self.seed, "evaluation", part, device=self.device)

    def generated(self, labels: Tensor, part: int = 0, draws: Draws | None = None) -> Iterator[Tensor]:
        """Generate an image (a decoder mean) for each label (N,); yield batches (B, C, H, W) in [0, 1].

        Unconditional models ignore the labels. Each ``part`` has different latents.

        Args:
            draws: gives the latents; by default they are drawn from the model's prior.
        """
        generator = rng.stream(self.seed, "sampling", part, device=self.device)
        return generated_images(self.model, self.objective.likelihood, labels, generator, draws)

    def generated_features(
        self, features: FeatureSet, labels: Tensor, what: str, part: int = 0, sampler: Sampler | None = None
    ) -> Features:
        """Return the features of ``generated`` images, kept until ``forget`` for all measures that use them.

        Args:
            what: a name for the images, for the progress bar.
            sampler: gives the latents; None, and the sampler ``prior``, draw them from the model's prior.
        """
        own = sampler if sampler and sampler.name != "prior" else None
        asked = {"part": part, "labels": labels.tolist(), "features": dict(features.identity)}

        def make() -> Features:
            return features(self.generated(labels, part, own.sample if own else None), what, len(labels))

        return self.once(("generated", digest(asked), self.weights(), own), make)

    def weights(self) -> str:
        """Return the digest of the present weights, which may change between two measures."""
        return weights_sha256(self.model, self.objective)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returns, computed at the first call with a key and kept until ``forget``.

        Args:
            key: all that it depends on, besides the data.
        """
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget(self) -> None:
        """Free the memory of what ``once`` has kept."""
        self._kept.clear()

    def reconstructed(self, num: int) -> Iterator[Tensor]:
        """Reconstruct ``num`` test images, the first ones, at the posterior mean, in batches (B, C, H, W)."""
        return reconstructed_images(self.model, self.objective.likelihood, self.data.test, num)

    def posteriors(self, split: Split) -> Posteriors:
        """Encode all images of a split."""
        return encode_split(self.model, split)

    def random_train(self, num: int) -> Split:
        """Return ``num`` training images in a fixed random order, as the stored order may be sorted by class."""
        return self.data.train.take(self.random_order()[:num])

    def random_order(self) -> Tensor:
        """Return the indices of the training images (N,) in a fixed random order."""
        return torch.randperm(len(self.data.train), generator=rng.stream(0, "evaluation")).to(self.device)

    def real_features(self, features: FeatureSet, split: Split, num: int) -> Features:
        """Return the features of the first ``num`` images of a split, from the cache if it has them."""
        return real_features(self.cache, split, num, features)

    def fits_shipped(self, evaluation: Mapping[str, Any], part: str) -> bool:
        """Whether the classifier of a part of the config fits these data; shipped ones fit Fashion-MNIST only."""
        return self.data.content == FASHION_MNIST or evaluation[part]["weights"] not in SHIPPED

    def way_to_classifier(self, part: str) -> str:
        """Return how to get a classifier of these data, for messages."""
        key = f"evaluation.{part}.weights"
        if not self.data.labelled:
            return f"these data have no labels to train one with; {key}=<file> names another classifier"
        return f"`{self.trains_classifier}` trains a classifier of these data, and {key}=<its run> uses it"

    def unlike(self, features: FeatureSet) -> Difference | None:
        """Return how the data that a classifier was trained on differ from these; None if they do not.

        The classes of shipped weights that are named by their file are taken on trust.
        """
        found = difference(getattr(features, "card", {}), self.data)
        exact = getattr(features, "exact", features)  # whose identity needs no choice of a precision
        if found and weights_name(exact.identity["extractor_sha256"]) in SHIPPED:
            return found._replace(in_classes=False)
        return found

    def classifier(
        self, evaluation: Mapping[str, Any], part: Literal["extractor", "accuracy"], num: int
    ) -> FeatureSet:
        """Return the classifier that ``evaluation.<part>.weights`` names.

        Args:
            num: the number of images of the measure; it matters for ``evaluation.extractor.precision=auto``.

        Raises:
            ConfigError: its weights are missing, damaged or of another network; or were trained on other images,
                if they are shipped ones or are to judge classes.
        """
        weights, precision = evaluation[part]["weights"], evaluation["extractor"]["precision"]
        known = (weights, precision, num)
        if known not in self._classifiers:
            self._classifiers[known] = self._classifier(evaluation, part, num)
        return self._classifiers[known]

    def _classifier(
        self, evaluation: Mapping[str, Any], part: Literal["extractor", "accuracy"], num: int
    ) -> FeatureSet:
        weights, precision = evaluation[part]["weights"], evaluation["extractor"]["precision"]
        if not self.fits_shipped(evaluation, part):
            problem = f"{weights!r} is {unlike_garments(self.data)}"
            way_out = "name one of your own"
            way_out += f" ({self.trains_classifier} trains it)" if self.data.labelled else ""
            if part == "extractor":
                way_out += ", or give evaluation.fid.features=[pixels]"
            raise ConfigError(f"evaluation.{part}.weights", problem, way_out)

        def make(precision: Precision) -> FeatureSet:
            channels = self.data.image_shape[0]
            return ResNetFeatures(weights, self.data.num_classes or None, precision, self.device, channels)

        try:
            made = in_asked_precision(precision, make, self.data.test, num, self.cache)
        except RunError as error:
            problem = f"{error.subject}: {error.problem}"
            raise ConfigError(f"evaluation.{part}.weights", problem, error.way_out) from None
        if part == "accuracy" and (other := self.unlike(made)) and other.in_classes:
            way_out = f"name one that was trained on these data ({self.trains_classifier} trains it)"
            raise ConfigError(f"evaluation.{part}.weights", f"{weights!r} is {other.told}", way_out)
        return made


class Measure(ABC):
    """A measure computes one block of results.json: numbers of a trained model, and the settings they depend on.

    To add your own, give its class and constructor arguments in the config: ``evaluation.measures.<name>`` with
    ``_target_``; they are stored with its numbers. The same model must always give the same numbers: draw from
    ``context.noise()`` or another stream of ``fmvae.rng``, never from a global generator.

    Attributes:
        name: the name of its block; for your own measure, the name in the config.
        needs: requirements on model and data; if one is not met, the measure is left out, with a line in the log.
        columns: the numbers by which to compare runs, with tags as in the block that ``compute`` returns.
        takes_minutes: whether a line in the log says that it begins, as others end before anyone asks.
    """

    name: str
    needs: tuple[Need, ...] = ()
    columns: tuple[Column, ...] = ()
    takes_minutes: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values that the numbers depend on, other than the constructor arguments given in the config.

        An example is the SHA-256 of a file that it reads. A block in results.json with equal settings is reused.
        """
        return {}

    @abstractmethod
    def compute(self, context: Context) -> dict[str, Any]:
        """Return the numbers as JSON values, perhaps in nested mappings; ``num_images`` counts the images used."""
