"""All measures of one model on the test split, as ``(name, value)`` for the caller to record."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import ImageData, Split
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.accuracy import accuracy_block
from fmvae.evaluation.cache import real_features
from fmvae.evaluation.distances import fid_block
from fmvae.evaluation.features import (
    Features,
    FeatureSet,
    Pixels,
    ResNetFeatures,
    generated_images,
    reconstructed_images,
)
from fmvae.evaluation.frechet import MIN_RELIABLE
from fmvae.evaluation.latent import latent_measures
from fmvae.evaluation.likelihood import importance_weighted_bound, measure_elbo
from fmvae.models import VAE, FashionResNet18, encode_split
from fmvae.objectives import Objective
from fmvae.weights import SHIPPED

log = logging.getLogger("fmvae")
FID_IMAGES = 10_000  # on each side unless told: what published numbers use
PROBE_IMAGES = 10_000  # training images that the linear probe is fit on
PER_CLASS = 500  # generated images of each class for the accuracy of a conditional model


class Evaluator:
    """Measures a trained model on the test split; the same model gives the same numbers whenever it is asked.

    Making one checks the settings and computes nothing. Of small data, what needs thousands of images is measured
    only if its number is given.

    Args:
        seed: the run's seed; posterior and prior draws come from its streams.
        settings: the config group ``evaluation``.

    Raises:
        ConfigError: a request does not fit the model or the data; or weights of a classifier are missing,
            damaged or of another network.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        data: ImageData,
        *,
        seed: int,
        settings: Mapping[str, Any],
    ):
        self.model, self.objective, self.data, self.seed, self.settings = model, objective, data, seed, settings
        self.cache = Path(settings["cache"]) if settings["cache"] else None
        self.num_images = {str(name): self._fid_images(name) for name in settings["fid"]["features"]}
        neighbours = settings["fid"]["num_neighbours"]
        fewest = min(filter(None, self.num_images.values()), default=math.inf)
        if neighbours >= fewest:
            problem = f"{neighbours} neighbours among {fewest} images"
            raise ConfigError("evaluation.fid.num_neighbours", problem, "give fewer, as 5")
        asked = settings["accuracy"]["num_per_class"]
        if asked and not model.conditional:
            raise ConfigError(
                "evaluation.accuracy.num_per_class",
                f"{asked} images of each class asked of {type(model).__name__}, which takes no labels",
                "leave it null, or evaluate a conditional model",
            )
        usual = PER_CLASS if len(data.test) >= MIN_RELIABLE else 0
        self.num_per_class = (usual if asked is None else asked) if model.conditional else 0
        self.features: dict[str, FeatureSet] = {"pixels": Pixels()}
        # one's own are read even if nothing needs them, and before training: better refused now than later
        own = settings["extractor"]["weights"] not in SHIPPED
        if own or self.num_images.get("resnet18"):
            self.features["resnet18"] = self._resnet("extractor")
        if self.num_per_class or settings["accuracy"]["weights"] not in SHIPPED:
            self.judge = self._resnet("accuracy")

    def _resnet(self, part: Literal["extractor", "accuracy"]) -> ResNetFeatures:
        weights, precision = self.settings[part]["weights"], self.settings["extractor"]["precision"]
        try:
            return ResNetFeatures(weights, self.data.num_classes, precision, self.data.device)
        except RunError as error:
            problem = f"{error.subject}: {error.problem}"
            raise ConfigError(f"evaluation.{part}.weights", problem, error.way_out) from None

    def _fid_images(self, features: str) -> int:
        """How many images a distance in these features compares; 0 leaves it out."""
        key, asked = "evaluation.fid.num_images", self.settings["fid"]["num_images"]
        dims = {"resnet18": FashionResNet18.num_features, "pixels": math.prod(self.model.image_shape)}
        dim = dims.get(features) if isinstance(features, str) else None
        if dim is None:
            raise ConfigError(
                "evaluation.fid.features", f"no features {features!r}", "choose from resnet18, pixels"
            )
        # the floor takes as many training images
        available, smaller = min((len(split), split.name) for split in (self.data.test, self.data.train))
        if asked is None:
            usual = min(FID_IMAGES, available)
            return usual if usual >= MIN_RELIABLE and usual > dim else 0
        if asked > available:
            raise ConfigError(
                key,
                f"{asked} images asked, but the {smaller} split holds {available}",
                f"give {available} or fewer, or 0 to leave FID out",
            )
        if 0 < asked <= dim:
            raise ConfigError(
                key,
                f"{asked} images cannot give a covariance of {dim}-dimensional features ({features})",
                f"use more than {dim}, at best {FID_IMAGES}, or 0 to leave FID out",
            )
        return asked

    # --- what is measured ---------------------------------------------------------------------------------

    def plan(self) -> dict[str, tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
        """Each measure's name, with all settings that its value depends on, and how to compute it."""
        iwae, fid = self.settings["iwae"], self.settings["fid"]
        plan: dict[str, Any] = {"test": ({}, self._elbo)}
        if iwae["num_samples"]:
            plan["iwae"] = (dict(iwae), self._iwae)
        if self.settings["latent"]:
            plan["latent"] = ({"num_train": min(PROBE_IMAGES, len(self.data.train))}, self._latent)
        for name, num in self.num_images.items():
            if num:
                settings = {"num_images": num, "num_neighbours": fid["num_neighbours"]}
                settings |= self.features[name].identity
                plan[f"fid/{name}"] = (settings, lambda name=name: self._fid(name))
        if self.num_per_class:
            settings = {"num_per_class": self.num_per_class, **self.judge.identity}
            plan["accuracy"] = (settings, self._accuracy)
        return plan

    def measure(self, stored: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each measure of the plan as ``(name, block)``.

        A block holds ``settings`` beside its values. One that is in ``stored`` with the same settings is not
        computed again; the caller knows that it is of the same model and data.
        """
        stored = stored or {}
        left_out = ", ".join(name for name, num in self.num_images.items() if not num)
        if left_out and self.settings["fid"]["num_images"] is None:
            available = min(len(self.data.test), len(self.data.train))
            way_in = f"evaluation.fid.num_images={available} asks for it"
            log.info("FID (%s) is left out: the data are too few to compare models by it; %s", left_out, way_in)
        if (
            self.model.conditional
            and not self.num_per_class
            and self.settings["accuracy"]["num_per_class"] is None
        ):
            way_in = f"evaluation.accuracy.num_per_class={PER_CLASS} asks for it"
            log.info("the accuracy of generated images is left out with data as few as these; %s", way_in)
        for name, (settings, _) in self.plan().items():
            known = stored.get(name)
            if isinstance(known, Mapping) and known.get("settings") == settings:
                yield name, dict(known)
            else:
                yield name, self.compute(name)

    def compute(self, name: str) -> dict[str, Any]:
        """The block of one measure of the plan."""
        settings, compute = self.plan()[name]
        self.model.eval()
        with torch.inference_mode():
            return {**compute(), "settings": settings}

    def _elbo(self) -> dict[str, Any]:
        noise = rng.stream(self.seed, "evaluation", device=self.data.device)
        terms = measure_elbo(self.model, self.objective, self.data.test, noise, at_mean=True)
        return {"num_images": len(self.data.test), **terms}

    def _iwae(self) -> dict[str, Any]:
        num_samples = self.settings["iwae"]["num_samples"]
        num_images = min(self.settings["iwae"]["num_images"], len(self.data.test))
        noise = rng.stream(self.seed, "evaluation", device=self.data.device)
        bound = importance_weighted_bound(
            self.model, self.objective, self.data.test, noise, num_samples=num_samples, num_images=num_images
        )
        return {f"iwae_{num_samples}": bound, "num_images": num_images}

    def _latent(self) -> dict[str, Any]:
        order = self._random_train()[:PROBE_IMAGES]
        train = Split("train", self.data.train.images[order], self.data.train.labels[order])
        return latent_measures(
            encode_split(self.model, train), encode_split(self.model, self.data.test), self.data.num_classes
        )

    def _fid(self, name: str) -> dict[str, Any]:
        features, num, likelihood = self.features[name], self.num_images[name], self.objective.likelihood
        labels = self.data.test.labels[:num]
        order = self._random_train()[:num]
        train = Split("train", self.data.train.images[order], self.data.train.labels[order])
        by_class = self.model.conditional
        real, known = (real_features(self.cache, split, num, features) for split in (self.data.test, train))
        generated = features(self._generated(labels), "generated images", num)
        reconstructed = reconstructed_images(self.model, likelihood, self.data.test, num)
        block = fid_block(
            real=real.features,
            train=known.features,
            generated=generated.features,
            reconstructed=features(reconstructed, "reconstructions", num).features,
            labels=(labels.cpu().numpy(), train.labels.cpu().numpy()) if by_class else None,
            class_names=self.data.class_names or (),
            num_neighbours=self.settings["fid"]["num_neighbours"],
        )
        if by_class and generated.logits is not None:  # a second opinion beside the judge's, at no cost
            block["as_asked"] = float((generated.logits.argmax(1) == labels.cpu().numpy()).mean())
        return block

    def _accuracy(self) -> dict[str, Any]:
        judge, test, num_classes = self.judge, self.data.test, self.data.num_classes
        asked = torch.arange(num_classes, device=self.data.device).repeat_interleave(self.num_per_class)
        made = judge(self._generated(asked, part=1), "generated images of each class", len(asked))
        real: Features = real_features(self.cache, test, len(test), judge)
        assert made.logits is not None
        assert real.logits is not None
        return accuracy_block(
            asked.cpu().numpy(), made.logits, test.labels.cpu().numpy(), real.logits, self.data.class_names or ()
        )

    def _generated(self, labels: Tensor, part: int = 0) -> Iterator[Tensor]:
        draws = rng.stream(self.seed, "sampling", part, device=self.data.device)
        return generated_images(self.model, self.objective.likelihood, labels, draws)

    def _random_train(self) -> Tensor:
        """Training images in a fixed random order: as stored, a sorted file would give a few classes only."""
        order = torch.randperm(len(self.data.train), generator=rng.stream(0, "evaluation"))
        return order.to(self.data.device)
