"""What every measure offers, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import ImageData, Split
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.cache import real_features
from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.features import (
    Features,
    FeatureSet,
    ResNetFeatures,
    generated_images,
    reconstructed_images,
)
from fmvae.models import VAE, Posteriors, encode_split
from fmvae.objectives import Objective
from fmvae.weights import SHIPPED

Need = Literal["labels", "factors", "conditional model"]
OF_SHIPPED = "fashion-mnist"  # the content that the shipped classifiers were trained on


class Context:
    """What a measure is given: a trained model, its objective and its data, and what measures share.

    The model is in evaluation mode, and no gradients are recorded, while a measure computes.

    Attributes:
        seed: the run's.
        cache: the folder that features of real images are kept in; None keeps none.
        notes: what was left out and why, a line each.
    """

    def __init__(self, model: VAE, objective: Objective, data: ImageData, *, seed: int, cache: Path | None):
        self.model, self.objective, self.data, self.seed, self.cache = model, objective, data, seed, cache
        self.notes: list[str] = []

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def labelled(self) -> bool:
        return self.data.class_names is not None

    @property
    def offers(self) -> set[Need]:
        """What of ``Measure.needs`` this model and these data have."""
        has: dict[Need, bool] = {
            "labels": self.labelled,
            "factors": getattr(self.data, "factors", None) is not None,
            "conditional model": self.model.conditional,
        }
        return {need for need, there in has.items() if there}

    def noise(self, part: int = 0) -> torch.Generator:
        """The stream of draws from posteriors, at its start; another for each ``part``."""
        return rng.stream(self.seed, "evaluation", part, device=self.device)

    def generated(self, labels: Tensor, part: int = 0) -> Iterator[Tensor]:
        """A generated image (a decoder mean) for each label (N,), in batches (B, C, H, W) in [0, 1].

        Models without labels ignore theirs. The latents are those of the stream ``part``.
        """
        draws = rng.stream(self.seed, "sampling", part, device=self.device)
        return generated_images(self.model, self.objective.likelihood, labels, draws)

    def reconstructed(self, num: int) -> Iterator[Tensor]:
        """The first ``num`` test images decoded at the posterior mean, in batches (B, C, H, W) in [0, 1]."""
        return reconstructed_images(self.model, self.objective.likelihood, self.data.test, num)

    def posteriors(self, split: Split) -> Posteriors:
        """The posteriors of all images of a split."""
        return encode_split(self.model, split)

    def random_train(self, num: int) -> Split:
        """Training images in a fixed random order: as stored, a sorted file would give a few classes only."""
        train = self.data.train
        order = torch.randperm(len(train), generator=rng.stream(0, "evaluation"))[:num].to(self.device)
        return Split("train", train.images[order], train.labels[order])

    def real_features(self, features: FeatureSet, split: Split, num: int) -> Features:
        """Features of the first ``num`` images of a split, from the cache if it has them."""
        return real_features(self.cache, split, num, features)

    def fits_shipped(self, evaluation: Mapping[str, Any], part: str) -> bool:
        """Whether the classifier of a part of the config may judge these data: those shipped know garments."""
        return self.data.content == OF_SHIPPED or evaluation[part]["weights"] not in SHIPPED

    def classifier(self, evaluation: Mapping[str, Any], part: Literal["extractor", "accuracy"]) -> ResNetFeatures:
        """The classifier that ``evaluation.<part>.weights`` names.

        Raises:
            ConfigError: its weights are missing, damaged or of another network, or it is of other images.
        """
        weights, precision = evaluation[part]["weights"], evaluation["extractor"]["precision"]
        if not self.fits_shipped(evaluation, part):
            problem = f"{weights!r} is a classifier of Fashion-MNIST, and these data are other images"
            way_out = "name one of your own (python train.py --config-name classifier trains it)"
            if part == "extractor":
                way_out += ", or give evaluation.fid.features=[pixels]"
            raise ConfigError(f"evaluation.{part}.weights", problem, way_out)
        try:
            return ResNetFeatures(weights, self.data.num_classes or None, precision, self.device)
        except RunError as error:
            problem = f"{error.subject}: {error.problem}"
            raise ConfigError(f"evaluation.{part}.weights", problem, error.way_out) from None


class Measure(ABC):
    """One block of results.json: numbers of a trained model, with what they depend on.

    One's own is named in the config, as ``evaluation.measures.<name>``, by ``_target_`` and the constructor's
    arguments; these are written down beside its numbers. The same model must give the same numbers whenever it is
    asked: draw from ``context.noise()`` or another stream of ``fmvae.rng``, never from a global generator.

    Attributes:
        name: of its block; one's own has the name that the config gives it.
        needs: what it cannot be measured without; where that is missing it is left out, with a line in the log.
        columns: the numbers to compare runs by, with tags as in the block that ``compute`` returns.
    """

    name: str
    needs: tuple[Need, ...] = ()
    columns: tuple[Column, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values that change whenever the value could, beside the constructor's arguments of one's own.

        As the SHA-256 of a file that it reads. Numbers in results.json with the same settings are kept.
        """
        return {}

    @abstractmethod
    def compute(self, context: Context) -> dict[str, Any]:
        """The numbers as JSON values, in mappings if they are many; ``num_images`` says of how many images."""


class BuiltIn(Measure):
    """A measure that comes with fmvae, made from the config group ``evaluation``.

    Attributes:
        off: the settings in ``evaluation`` that ask for none.
        way_in: how to have it measured.
    """

    off: ClassVar[Mapping[str, Any]] = {}
    way_in: ClassVar[str] = ""

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return BLOCKS[self.name]

    @classmethod
    @abstractmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        """What ``evaluation`` asks for, checked; nothing is computed. What is left out is noted in ``context``.

        Raises:
            ConfigError: a request does not fit the model or the data.
        """

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings in ``evaluation`` that ask for the stored block ``name`` and nothing else of this kind."""
        return {}

    @classmethod
    def classifier_of(cls) -> Literal["extractor", "accuracy"] | None:
        """The part of ``evaluation`` that names the classifier which it uses; None for none."""
        return None
