"""The blocks ``fid/<features>``: distances of generated and reconstructed images from real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from fmvae.common.digests import digest
from fmvae.common.phases import phase
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import BLOCKS, FEATURES, Column
from fmvae.evaluation.distances import RealImages
from fmvae.evaluation.features import Features, FeatureSet, Pixels
from fmvae.evaluation.frechet import MIN_RELIABLE
from fmvae.evaluation.measure import Context
from fmvae.evaluation.notes import LeftOut, Note
from fmvae.evaluation.planned import Planned
from fmvae.evaluation.precision import precision_check
from fmvae.evaluation.samplers import Sampler
from fmvae.evaluation.suitability import unlike_garments
from fmvae.models import FashionResNet18
from fmvae.weights import SHIPPED

FID_IMAGES = 10_000  # on each side by default, as for published numbers


class Distances(Planned):
    """Distances in one set of features, from ``num_images`` images on each side.

    Args:
        by_class: whether the model generates images of a requested class.
        judges: whether the features are of a classifier of these data, whose predictions count.
    """

    takes_minutes = True
    off: ClassVar = {"fid": {"num_images": 0}}
    way_in = "give evaluation.fid.num_images (evaluation=full does, if the data are not too few)"

    def __init__(
        self,
        features: FeatureSet,
        num_images: int,
        num_neighbours: int,
        by_class: bool = False,
        judges: bool = True,
    ):
        self.features, self.num_images, self.num_neighbours = features, num_images, num_neighbours
        self.by_class, self.judges = by_class, by_class and judges and not isinstance(features, Pixels)
        self.name = f"fid/{features.name}"

    @classmethod
    def planned(cls, context: Context, evaluation: Mapping[str, Any]) -> tuple[Sequence[Self], list[Note]]:
        notes: list[Note] = []
        asked, neighbours = evaluation["fid"]["num_images"], evaluation["fid"]["num_neighbours"]
        nums = {str(name): _num_images(context, name, asked) for name in evaluation["fid"]["features"]}
        if asked is None:
            nums, notes = _by_default(context, evaluation, nums)
        fewest = min(filter(None, nums.values()), default=math.inf)
        if neighbours >= fewest:
            problem = f"{neighbours} neighbours among {fewest} images"
            raise ConfigError("evaluation.fid.num_neighbours", problem, "give fewer, as 5")
        sets: dict[str, FeatureSet] = {"pixels": Pixels()}
        # weights other than the shipped ones are read even if unused, so that errors in them come before training
        if evaluation["extractor"]["weights"] not in SHIPPED or nums.get("resnet18"):
            sets["resnet18"] = context.classifier(evaluation, "extractor", nums.get("resnet18") or FID_IMAGES)
        other = context.unlike(sets["resnet18"]) if nums.get("resnet18") else None
        if other:
            weights, way = evaluation["extractor"]["weights"], context.way_to_classifier("extractor")
            notes.append(f"FID (resnet18): {weights!r} is {other.told}; {way}")
        by_class, judges = context.model.conditional, not (other and other.in_classes)
        return [cls(sets[name], num, neighbours, by_class, judges) for name, num in nums.items() if num], notes

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        known = {key: settings[key] for key in ("num_images", "num_neighbours")}
        return {"fid": {**known, "features": [name.removeprefix("fid/")]}}

    @classmethod
    def classifier_of(cls, name: str) -> Literal["extractor"]:
        return "extractor"

    @property
    def settings(self) -> dict[str, Any]:
        own = {"num_images": self.num_images, "num_neighbours": self.num_neighbours}
        return own | dict(self.features.identity)

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return tuple(column for column in BLOCKS[self.name] if self.judges or column.tag != "as_asked")

    def compute(self, context: Context) -> dict[str, Any]:
        block, num = self.block(context), self.num_images
        images = self.features(context.reconstructed(num), "reconstructions", num).features
        reconstruction = {"reconstruction": self._real(context).distance(images)}
        return {**{name: block[name] for name in ("generation", "generation_se")}, **reconstruction, **block}

    def block(self, context: Context, sampler: Sampler | None = None) -> dict[str, Any]:
        """Compute the distances of images that are generated with a sampler, once for equal images.

        Args:
            sampler: None, and the sampler ``prior``: the model's prior.
        """
        own = sampler if sampler and sampler.name != "prior" else None
        what = "distances", self.name, digest(self.settings), self.by_class, self.judges, context.weights(), own
        return dict(context.once(what, lambda: self._distances(context, own)))

    def _distances(self, context: Context, sampler: Sampler | None) -> dict[str, Any]:
        real, generated = self._real(context), self.generated(context, sampler)
        with phase(f"distances, {self.features.name}", minor=True):
            block = real.block(generated.features, self.num_neighbours)
        if self.judges and generated.logits is not None:  # a second accuracy, from logits that are known already
            labels = context.data.test.labels[: self.num_images].cpu().numpy()
            block["as_asked"] = float((generated.logits.argmax(1) == labels).mean())
        return block | precision_check(self.features)

    def _real(self, context: Context) -> RealImages:
        """Return the real images to compare with: the same for the prior and all samplers."""
        num, data = self.num_images, context.data

        def make() -> RealImages:
            train = context.random_train(num)
            test, known = (context.real_features(self.features, split, num) for split in (data.test, train))
            labels = (data.test.labels[:num].cpu().numpy(), train.labels.cpu().numpy()) if self.by_class else None
            return RealImages(test.features, known.features, labels, data.class_names or ())

        return context.once(("real", self.name, digest(dict(self.features.identity)), num, self.by_class), make)

    def generated(self, context: Context, sampler: Sampler | None = None) -> Features:
        """Return the features of generated images with the labels of the test images."""
        labels = context.data.test.labels[: self.num_images]
        what = "generated images" + (f" ({sampler.name})" if sampler else "")
        return context.generated_features(self.features, labels, what, sampler=sampler)


def _by_default(
    context: Context, evaluation: Mapping[str, Any], nums: Mapping[str, int]
) -> tuple[dict[str, int], list[Note]]:
    """Return the numbers of images that are measured by default, and a note for what is left out, and why.

    What a note says turns a distance on does so: it names neither features that need more images than there are,
    nor a classifier that does not fit.

    Args:
        nums: by features, as by their number of images alone.
    """
    notes: list[Note] = []
    there, smaller = available(context)
    needed = {name: max(_dim(context, name), evaluation["fid"]["num_neighbours"]) for name in nums}
    enough = [name for name in nums if there > needed[name]]
    fits = [name for name in enough if name != "resnet18" or context.fits_shipped(evaluation, "extractor")]

    def told(names: Sequence[str], reason: str) -> None:
        notes.append(LeftOut("FID ({})", {name: [f"fid/{name}"] for name in names}, reason))

    def asking(names: Sequence[str]) -> str:
        only = f" 'evaluation.fid.features=[{','.join(names)}]'" if len(names) < len(nums) else ""
        return f"evaluation.fid.num_images={there}{only}"

    if misfit := [name for name in enough if name not in fits]:
        better = "for better ones, " if context.data.labelled else ""
        instead = f"distances are in pixels; {better}" if nums.get("pixels") else ""
        way = context.way_to_classifier("extractor")
        way += "" if nums["resnet18"] else f" with {asking(enough)}"
        told(misfit, f"{evaluation['extractor']['weights']!r} is {unlike_garments(context.data)}; {instead}{way}")
    if left_out := [name for name in fits if not nums[name]]:
        usual = min(FID_IMAGES, there)
        told(left_out, f"{usual:,} images are too few to compare models by it; {asking(fits)} turns it on")
    for name in (name for name in nums if name not in enough):
        told([name], f"it needs more than {needed[name]:,} images, and the {smaller} split holds {there:,}")
    return {name: 0 if name in misfit else num for name, num in nums.items()}, notes


def _dim(context: Context, features: Any) -> int:
    """Return the dimension of a set of features that a config names."""
    dims = {"resnet18": FashionResNet18.num_features, "pixels": math.prod(context.model.image_shape)}
    if not isinstance(features, str) or features not in dims:
        problem = f"no features {features!r}"
        raise ConfigError("evaluation.fid.features", problem, f"choose from {', '.join(FEATURES)}")
    return dims[features]


def available(context: Context) -> tuple[int, str]:
    """Return how many images there are on each side of a distance, and the split that has no more."""
    # the floor needs as many training images as test images
    return min((len(split), split.name) for split in (context.data.test, context.data.train))


def _num_images(context: Context, features: Any, asked: int | None) -> int:
    """Return the number of images for a distance in these features; 0 leaves it out."""
    key = "evaluation.fid.num_images"
    dim = _dim(context, features)
    largest, smaller = available(context)
    if asked is None:
        usual = min(FID_IMAGES, largest)
        return usual if usual >= MIN_RELIABLE and usual > dim else 0
    if asked > largest:
        raise ConfigError(
            key,
            f"{asked} images asked, but the {smaller} split holds {largest}",
            f"give {largest} or fewer, or 0 to leave FID out",
        )
    if 0 < asked <= dim:
        problem = f"{asked} images cannot give a covariance of {dim}-dimensional features ({features})"
        way_out = f"use more than {dim}, at best {min(FID_IMAGES, largest)}"
        if largest <= dim:
            needed = f"more than {dim} are needed, and the {smaller} split holds {largest}"
            way_out = f"{needed}: take more (data.num_{smaller})"
        raise ConfigError(key, problem, f"{way_out}, or 0 to leave FID out")
    return asked
