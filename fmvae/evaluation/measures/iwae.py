"""The block ``iwae``: the importance-weighted bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.likelihood import importance_weighted_bound
from fmvae.evaluation.measure import Context
from fmvae.evaluation.notes import Note
from fmvae.evaluation.planned import Planned


class ImportanceWeighted(Planned):
    """The bound with ``num_samples`` draws per image, on the first ``num_images`` test images."""

    name = "iwae"
    takes_minutes = True
    off: ClassVar = {"iwae": {"num_samples": 0}}
    way_in = "give evaluation.iwae.num_samples"

    def __init__(self, num_samples: int, num_images: int):
        self.num_samples, self.num_images = num_samples, num_images

    @classmethod
    def planned(cls, context: Context, evaluation: Mapping[str, Any]) -> tuple[Sequence[Self], list[Note]]:
        return [cls(**evaluation["iwae"])] if evaluation["iwae"]["num_samples"] else [], []

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"iwae": settings}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples, "num_images": self.num_images}

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        found = (column.at(f"iwae_{self.num_samples}") for column in BLOCKS[self.name])
        return tuple(column for column in found if column)

    def compute(self, context: Context) -> dict[str, Any]:
        num_images = min(self.num_images, len(context.data.test))
        bound = importance_weighted_bound(
            context.model,
            context.objective,
            context.data.test,
            context.noise(),
            num_samples=self.num_samples,
            num_images=num_images,
            partial=context.partials.of(self.name, self.settings),
        )
        return {f"iwae_{self.num_samples}": bound, "num_images": num_images}
