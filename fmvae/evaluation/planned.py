"""The base classes of the measures that come with fmvae, which are built from the config group ``evaluation``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from fmvae.evaluation.columns import BLOCKS, Column
from fmvae.evaluation.measure import Context, Measure
from fmvae.evaluation.notes import Note


class BuiltIn(Measure):
    """A measure that comes with fmvae, built from the config group ``evaluation``.

    Attributes:
        off: the settings in ``evaluation`` that turn it off.
        way_in: how to turn it on, for error messages.
    """

    off: ClassVar[Mapping[str, Any]] = {}
    way_in: ClassVar[str] = ""

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return BLOCKS[self.name]

    @classmethod
    @abstractmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        """Yield the measures that ``evaluation`` requests, after checks; note those left out in ``context.notes``.

        Raises:
            ConfigError: a request does not fit the model or the data.
        """

    @classmethod
    def again(cls, name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings in ``evaluation`` that request only the stored block ``name`` of this kind."""
        return {}

    @classmethod
    def classifier_of(cls, name: str) -> Literal["extractor", "accuracy"] | None:
        """Return the part of ``evaluation`` that names the classifier of a block; None if it uses none."""
        return None


class Planned(BuiltIn):
    """A built-in measure whose plan others can ask for, to repeat it, as samplers do with other latents."""

    @classmethod
    def asked(cls, context: Context, evaluation: Mapping[str, Any]) -> Iterator[BuiltIn]:
        planned, notes = cls.planned(context, evaluation)
        context.notes += notes
        yield from planned

    @classmethod
    @abstractmethod
    def planned(cls, context: Context, evaluation: Mapping[str, Any]) -> tuple[Sequence[Self], list[Note]]:
        """Return the measures that ``evaluation`` requests, and a note for each that is left out.

        Raises:
            ConfigError: a request does not fit the model or the data.
        """
