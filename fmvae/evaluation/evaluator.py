"""Compute all measures of a model on the test split, as ``(name, value)`` for the caller to record."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeGuard

import torch

from fmvae.common.phases import phase
from fmvae.common.streams import HAD_A_BAR
from fmvae.data import ImageData
from fmvae.errors import FmvaeError, RunError, of_the_machine
from fmvae.evaluation.columns import Column, numbers
from fmvae.evaluation.measure import Context, Measure
from fmvae.evaluation.notes import LeftOut
from fmvae.evaluation.registry import OWN, Own, built_in, own_measures
from fmvae.evaluation.samplers import check_samplers
from fmvae.models import VAE
from fmvae.models.modes import in_evaluation_mode
from fmvae.objectives import Objective

log = logging.getLogger("fmvae")


class Evaluator:
    """Measure a trained model on the test split; the same model always gives the same numbers.

    The constructor checks the settings and computes nothing. On small datasets, measures that need thousands of
    images are computed only if the settings give their number of images.

    Args:
        seed: the run's seed; posterior and prior draws come from its streams.
        settings: the config group ``evaluation``.
        untrained: makes the model as it was before training, a level to compare with; None: no such level.
        trains_classifier: the command that trains a classifier of these data, for messages; None leaves their
            names to the user.

    Attributes:
        measures: by name, in the order of computation.
        own: the user's own measures among them.

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
        untrained: Callable[[], VAE] | None = None,
        trains_classifier: str | None = None,
    ):
        cache = Path(settings["cache"]) if settings["cache"] else None
        self.context = Context(model, objective, data, seed=seed, cache=cache)
        self.context.untrained = untrained
        self.context.trains_classifier = trains_classifier or self.context.trains_classifier
        check_samplers(settings, model, data)
        self.measures: dict[str, Measure] = {made.name: made for made in built_in(self.context, settings)}
        self.own: dict[str, Own] = {}
        for own in own_measures(settings):
            name = own.measure.name
            if missing := [need for need in own.measure.needs if need not in self.context.offers]:
                reason = f"it needs {', '.join(missing)}"
                self.context.notes.append(LeftOut(name, {name: [name]}, reason))
                continue
            self.measures[name], self.own[name] = own.measure, own

    def plan(self) -> dict[str, tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
        """Return for each measure's name all settings that its value depends on, and a function to compute it."""
        return {
            name: (self._settings(name), lambda measure=measure: measure.compute(self.context))
            for name, measure in self.measures.items()
        }

    def columns(self) -> list[Column]:
        """Return the columns of all planned measures, with full tags."""
        return [column.within(name) for name, measure in self.measures.items() for column in measure.columns]

    def measure(
        self, stored: Mapping[str, Any] | None = None, others: Collection[str] | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each measure of the plan as ``(name, block)``.

        A block contains its values and ``settings``. A block in ``stored`` with the same settings is not computed
        again if it has a number for each of the measure's columns, which an earlier version may not have measured;
        the caller must ensure that it belongs to the same model and data.

        Args:
            stored: blocks by name, of an earlier call.
            others: names of the blocks that the caller keeps if they are not measured now; by default those in
                ``stored``. The log says so of measures that are left out.
        """
        stored = stored or {}
        there = stored if others is None else others
        for note in self.context.notes:
            for line in note.lines(there) if isinstance(note, LeftOut) else [note]:
                log.info("%s", line)
        kept = {name: stored[name] for name in self.measures if self._is_whole(stored.get(name), name)}
        names = [name for name in self.measures if name not in kept]
        try:
            with phase("measures", len(names), counted=True) if names else nullcontext() as all_of_them:
                for name in self.measures:
                    if name in kept:
                        yield name, dict(kept[name])
                        continue
                    assert all_of_them
                    all_of_them.now(name)
                    if self.measures[name].takes_minutes:
                        log.info("  measuring %s", name, extra={HAD_A_BAR: True})
                    with phase(f"measured {name}", bar=False):
                        block = self.compute(name)
                    all_of_them.advance()
                    yield name, block
        finally:
            self.context.forget()

    def _is_whole(self, stored: Any, name: str) -> TypeGuard[Mapping[str, Any]]:
        """Whether a stored block has the measure's settings and all its numbers."""
        if not isinstance(stored, Mapping) or not self._told(name).items() <= stored.items():
            return False
        return not self._missing(name, stored)

    def _missing(self, name: str, block: Mapping[str, Any]) -> list[str]:
        """Return the tags of the measure's columns without a number in the block."""
        there = dict(numbers(block))
        return [column.tag for column in self.measures[name].columns if column.tag not in there]

    def compute(self, name: str) -> dict[str, Any]:
        """Compute the block of one planned measure."""
        with in_evaluation_mode(self.context.model, self.context.objective), torch.inference_mode():
            block = self._computed(name) if name in self.own else self.measures[name].compute(self.context)
        return {**block, **self._told(name)}

    def _settings(self, name: str) -> dict[str, Any]:
        return self.own[name].settings if name in self.own else self.measures[name].settings

    def _told(self, name: str) -> dict[str, Any]:
        """Return a block's metadata: settings, and for a user's measure its columns, for readers of the file."""
        columns = [column.stored() for column in self.measures[name].columns]
        told = {"columns": columns} if name in self.own else {}
        return {**told, "settings": self._settings(name)}

    def _computed(self, name: str) -> dict[str, Any]:
        """Compute a user's measure, converted to JSON and back.

        Raises:
            RunError: the measure fails, or does not return a block with the numbers of its columns.
        """
        measure, key = self.measures[name], f"{OWN}.{name}"
        way_out = f"correct {type(measure).__module__}.{type(measure).__name__}, or leave {key} out"
        try:
            block = json.loads(json.dumps(measure.compute(self.context), allow_nan=False))
        except FmvaeError:
            raise
        except Exception as error:
            if failed := of_the_machine(error):
                raise failed from None
            raise RunError(key, f"{type(error).__name__}: {error}", way_out) from error
        if not isinstance(block, dict) or {"settings", "columns"} & block.keys():
            raise RunError(
                key, "it must return a mapping of names to numbers, and none named settings or columns", way_out
            )
        if missing := self._missing(name, block):
            raise RunError(key, f"it does not return {', '.join(missing)}, which its columns name", way_out)
        return block
