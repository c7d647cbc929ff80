"""The block ``accuracy``: how often a classifier recognises the requested class in generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from fmvae.errors import ConfigError
from fmvae.evaluation.accuracy import accuracy_block
from fmvae.evaluation.features import Features, FeatureSet
from fmvae.evaluation.frechet import MIN_RELIABLE
from fmvae.evaluation.measure import Context
from fmvae.evaluation.notes import LeftOut, Note
from fmvae.evaluation.planned import Planned
from fmvae.evaluation.precision import precision_check
from fmvae.evaluation.samplers import Sampler
from fmvae.evaluation.suitability import unlike_garments
from fmvae.weights import SHIPPED

PER_CLASS = 500  # generated images of each class by default


class Accuracy(Planned):
    """The accuracy of a classifier on ``num_per_class`` generated images of each class."""

    name = "accuracy"
    needs = ("labels", "conditional model")
    takes_minutes = True
    off: ClassVar = {"accuracy": {"num_per_class": 0}}
    way_in = "take a conditional model, and give evaluation.accuracy.num_per_class"

    def __init__(self, judge: FeatureSet, num_per_class: int):
        self.judge, self.num_per_class = judge, num_per_class

    @classmethod
    def planned(cls, context: Context, evaluation: Mapping[str, Any]) -> tuple[Sequence[Self], list[Note]]:
        notes: list[Note] = []
        asked, weights = evaluation["accuracy"]["num_per_class"], evaluation["accuracy"]["weights"]
        if asked and not context.model.conditional:
            raise ConfigError(
                "evaluation.accuracy.num_per_class",
                f"{asked} images of each class asked of {type(context.model).__name__}, which takes no labels",
                "leave it null, or evaluate a conditional model",
            )
        num = (asked or 0) if context.model.conditional else 0
        if asked is None and context.model.conditional:
            num = PER_CLASS
            if not context.fits_shipped(evaluation, "accuracy"):
                num = 0
                way = context.way_to_classifier("accuracy")
                notes.append(_left_out(f"{weights!r} is {unlike_garments(context.data)}; {way}"))
            elif len(context.data.test) < MIN_RELIABLE:
                num = 0
                hint = f"evaluation.accuracy.num_per_class={PER_CLASS} turns it on"
                notes.append(_left_out(f"by default it is not measured with so few test images; {hint}"))
        # weights other than the shipped ones are read even if unused, so that errors in them come early
        if num or weights not in SHIPPED:
            num_images = (num or PER_CLASS) * (context.data.num_classes or 1)
            judge = context.classifier(evaluation, "accuracy", num_images)
            return [cls(judge, num)] * bool(num), notes
        return [], notes

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"accuracy": {"num_per_class": settings["num_per_class"]}}

    @classmethod
    def classifier_of(cls, name: str) -> Literal["accuracy"]:
        return "accuracy"

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_per_class": self.num_per_class, **self.judge.identity}

    def compute(self, context: Context) -> dict[str, Any]:
        test = context.data.test
        asked, made = self.generated(context)
        real = context.real_features(self.judge, test, len(test))
        assert made.logits is not None
        assert real.logits is not None
        names = context.data.class_names or ()
        block = accuracy_block(asked.cpu().numpy(), made.logits, test.labels.cpu().numpy(), real.logits, names)
        return block | precision_check(self.judge)

    def generated(self, context: Context, sampler: Sampler | None = None) -> tuple[Tensor, Features]:
        """Return the classes that are asked for (N,), and the features and logits of as many generated images."""
        classes = torch.arange(context.data.num_classes, device=context.device)
        asked = classes.repeat_interleave(self.num_per_class)
        what = "generated images of each class" + (f" ({sampler.name})" if sampler else "")
        return asked, context.generated_features(self.judge, asked, what, part=1, sampler=sampler)


def _left_out(reason: str) -> LeftOut:
    return LeftOut("the accuracy of generated images", {Accuracy.name: [Accuracy.name]}, reason)
