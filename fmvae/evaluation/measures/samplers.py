"""The blocks ``samplers/<sampler>/...``: images whose latents are drawn from another density than the prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from fmvae.common.digests import digest
from fmvae.common.phases import phase
from fmvae.errors import ConfigError
from fmvae.evaluation.accuracy import accuracies, confusion
from fmvae.evaluation.columns import DENSITIES, FEATURES
from fmvae.evaluation.likelihood import importance_weighted_bound
from fmvae.evaluation.measure import Context
from fmvae.evaluation.measures import fid
from fmvae.evaluation.measures.accuracy import Accuracy
from fmvae.evaluation.measures.iwae import ImportanceWeighted
from fmvae.evaluation.neighbours import copying_measures, real_copying_measures
from fmvae.evaluation.notes import LeftOut
from fmvae.evaluation.planned import BuiltIn
from fmvae.evaluation.precision import precision_check
from fmvae.evaluation.samplers import Sampler, fit_settings
from fmvae.evaluation.samplers.store import FORMAT

ACCURACY, BOUND = "accuracy", "bound"  # the last part of a block's name, if it is no set of features


class Sampled(BuiltIn):
    """A measure of a model with a sampler.

    Args:
        sampler: its name.
        fit: its group in ``evaluation``.
        like: the measure with the model's prior, which has the other settings.
        what: the last part of the block's name: a set of features, ``accuracy`` or ``bound``.
    """

    takes_minutes = True
    off: ClassVar = {"samplers": []}
    way_in = "name the sampler in evaluation.samplers, as [prior,gmm], and turn on what it is measured by"

    def __init__(self, sampler: str, fit: Mapping[str, Any], like: BuiltIn, what: str):
        self.sampler, self.fit, self.like = sampler, dict(fit), like
        self.name = f"samplers/{sampler}/{what}"

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        if not evaluation.get("samplers"):
            return
        # notes on what is left out are told by these measures themselves
        distances, left_out = fid.Distances.planned(context, evaluation)
        accuracy, _ = Accuracy.planned(context, evaluation)
        bounds, _ = ImportanceWeighted.planned(context, evaluation)
        num_train, there = evaluation["fid"]["num_train"], len(context.data.train)
        if distances and num_train is not None and num_train > there:
            way_out = "give fewer, or null for as many as test images"
            raise ConfigError("evaluation.fid.num_train", f"{num_train} of {there} training images", way_out)
        asked = list(dict.fromkeys(evaluation["samplers"]))
        blocks = {name: [f"samplers/{name}/{of}" for of in FEATURES] for name in asked if name != "prior"}
        if blocks and left_out and not distances:
            context.notes.append(LeftOut("FID of samples from {}", blocks, "so is that of the prior's"))
        for name in asked:
            fit = fit_settings(evaluation, name)
            yield from (SampledDistances(name, fit, one, num_train) for one in distances)
            yield from (SampledAccuracy(name, fit, one) for one in accuracy)
            yield from (SampledBound(name, fit, one) for one in bounds if name in DENSITIES)

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        _, sampler, what = name.split("/")
        fit = {sampler: settings["fit"]} if settings["fit"] else {}
        if what == ACCURACY:
            like = Accuracy.again(what, settings)
        elif what == BOUND:
            like = ImportanceWeighted.again(what, {key: settings[key] for key in ("num_samples", "num_images")})
        else:
            like = fid.Distances.again(f"fid/{what}", settings)
            like = {"fid": {**like["fid"], "num_train": settings["num_train"]}}
        return {"samplers": [sampler], **fit, **like}

    @classmethod
    def classifier_of(cls, name: str) -> Literal["extractor", "accuracy"] | None:
        what = name.rpartition("/")[2]
        if what == BOUND:
            return None
        return "accuracy" if what == ACCURACY else "extractor"

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.like.settings, "fit": self.fit, "fit_format": FORMAT}

    def compute(self, context: Context) -> dict[str, Any]:
        sampler = context.samplers.get(self.sampler, self.fit)
        return self.block(context, sampler) | {"fitted": sampler.told()}

    @abstractmethod
    def block(self, context: Context, sampler: Sampler) -> dict[str, Any]:
        """Return the numbers with a fitted sampler."""


class SampledDistances(Sampled):
    """Distances of generated images, and how near they are to training and test images.

    Args:
        num_train: training images among which the nearest one is sought; None: as many as test images.
    """

    def __init__(self, sampler: str, fit: Mapping[str, Any], like: fid.Distances, num_train: int | None):
        super().__init__(sampler, fit, like, like.features.name)
        self.like: fid.Distances = like
        self.num_train = num_train

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "num_train": self.num_train}

    @property
    def columns(self):  # type: ignore[override]
        classified = any(column.tag == "as_asked" for column in self.like.columns)
        return tuple(column for column in super().columns if classified or column.tag != "as_asked")

    def block(self, context: Context, sampler: Sampler) -> dict[str, Any]:
        features, num = self.like.features, self.like.num_images
        found = self.like.block(context, sampler)
        num_train = min(self.num_train or num, len(context.data.train))
        train = context.real_features(features, context.random_train(num_train), num_train).features
        test = context.real_features(features, context.data.test, num).features
        known = "real neighbours", digest(dict(features.identity)), num, num_train
        made = self.like.generated(context, sampler).features
        with phase(f"nearest images, {features.name}", minor=True):
            real = context.once(known, lambda: real_copying_measures(test, train))
            return found | copying_measures(test, train, made, real)


class SampledAccuracy(Sampled):
    """How often a classifier recognises the requested class."""

    def __init__(self, sampler: str, fit: Mapping[str, Any], like: Accuracy):
        super().__init__(sampler, fit, like, ACCURACY)
        self.like: Accuracy = like

    def block(self, context: Context, sampler: Sampler) -> dict[str, Any]:
        asked, made = self.like.generated(context, sampler)
        assert made.logits is not None
        counts = confusion(asked.cpu().numpy(), made.logits)
        return {"generated": accuracies(counts, context.data.class_names or ())} | precision_check(self.like.judge)


class SampledBound(Sampled):
    """The importance-weighted bound of the model whose prior is the sampler's density.

    The density is normalised, so it is a bound on that model's log p(x); of a conditional one, log p(x | class).
    """

    def __init__(self, sampler: str, fit: Mapping[str, Any], like: ImportanceWeighted):
        super().__init__(sampler, fit, like, BOUND)
        self.like: ImportanceWeighted = like

    @property
    def columns(self):  # type: ignore[override]
        found = (column.at(f"iwae_{self.like.num_samples}") for column in super().columns)
        return tuple(column for column in found if column)

    def block(self, context: Context, sampler: Sampler) -> dict[str, Any]:
        num_images = min(self.like.num_images, len(context.data.test))
        bound = importance_weighted_bound(
            context.model,
            context.objective,
            context.data.test,
            context.noise(),
            num_samples=self.like.num_samples,
            num_images=num_images,
            density=sampler.log_prob,
            partial=context.partials.of(self.name, self.settings, sampler.digest()),
        )
        return {f"iwae_{self.like.num_samples}": bound, "num_images": num_images}
