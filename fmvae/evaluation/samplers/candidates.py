"""The fits of a mixture, number by number and class by class: what is finished, and how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fmvae.common.phases import Phase, phase
from fmvae.errors import RunError
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.gaussians import FullGaussians

PARTS = ("weights", "means", "factors")
SECONDS = 10.0  # between two lines about classes of one number of components, at least
log = logging.getLogger("fmvae")


def as_tensors(densities: Sequence[FullGaussians], prefix: str = "") -> dict[str, Tensor]:
    """Return the densities of classes as named tensors."""
    return {
        f"{prefix}{label}.{part}": getattr(density, part)
        for label, density in enumerate(densities)
        for part in PARTS
    }


def from_tensors(tensors: Mapping[str, Tensor], num_classes: int, prefix: str = "") -> list[FullGaussians]:
    """Return the densities of classes from ``as_tensors``; KeyError if a part is missing."""
    return [FullGaussians(*(tensors[f"{prefix}{label}.{part}"] for part in PARTS)) for label in range(num_classes)]


class Finished:
    """The finished fits of a mixture, restored from a partial result with the same bits.

    Attributes:
        rows: of each number of components that is finished, as JSON values.
        densities: of the finished classes of the number that is being fitted.
        best: the densities of the best number so far, and ``chosen`` what is told of it.
        failed: the error of the last number that could not be fitted.
    """

    def __init__(self, partial: Partial):
        tensors, values = partial.read()
        self.rows: list[dict[str, Any]] = list(values.get("rows", []))
        self.notes: list[dict[str, Any]] = list(values.get("notes", []))
        self.chosen: dict[str, Any] = values.get("chosen", {})
        self.failed = RunError(*values["failed"]) if values.get("failed") else None
        self.best = from_tensors(tensors, values.get("num_best", 0), "best.")
        self.densities = from_tensors(tensors, len(self.notes), "now.")

    def add(self, density: FullGaussians, note: dict[str, Any]) -> None:
        """Add the fit of a class, and how it went."""
        self.densities.append(density)
        self.notes.append(note)

    def compare(self, number: int, value: float) -> None:
        """End a number of components, whose mean log-likelihood of validation draws is ``value``."""
        self.rows.append({"num_components": number, "held_out": value, "fits": self.notes})
        if not self.chosen or value > self.chosen["held_out"]:
            self.best, self.chosen = self.densities, {"num_components": number, "held_out": value}
        self.densities, self.notes = [], []

    def fail(self, number: int, error: RunError) -> None:
        """End a number of components that cannot be fitted."""
        self.failed, self.densities, self.notes = error, [], []
        self.rows.append({"num_components": number, "problem": error.problem})

    def keep_if_due(self, partial: Partial) -> None:
        """Write all of it, if the last time is long enough ago."""
        if not partial.is_due:
            return
        failed = [str(self.failed.subject), self.failed.problem, self.failed.way_out] if self.failed else None
        values = {"rows": self.rows, "notes": self.notes, "chosen": self.chosen, "failed": failed}
        tensors = as_tensors(self.best, "best.") | as_tensors(self.densities, "now.")
        partial.keep(tensors, {**values, "num_best": len(self.best)})


class Progress:
    """Say which number of components is being fitted, to which class, and how many fits are done."""

    def __init__(self, classes: Sequence[int | None], numbers: Sequence[int], done: Finished):
        self.classes, self.numbers = classes, numbers
        total, before = len(classes) * len(numbers), len(classes) * len(done.rows) + len(done.densities)
        if before:
            log.info("  sampler gmm: continuing after %d of %d fits", before, total)
        self.phase = phase("gmm", total, done=before, counted=True, minor=True)
        self._number, self._told = 1, time.monotonic()

    def tell(self, current: Phase, number: int, label: int | None) -> None:
        """Show what is fitted next. The log has a line for each number but 1, and for classes that take long."""
        what = f"{number} component{'s' * (number > 1)}"
        what += "" if label is None else f", class {label + 1} of {len(self.classes)}"
        current.now(what)
        if number != self._number or time.monotonic() - self._told >= SECONDS:
            self._number, self._told = number, time.monotonic()
            place = self.numbers.index(number)
            fit = place * len(self.classes) + (label or 0) + 1
            log.info("  sampler gmm: %s (fit %d of %d)", what, fit, len(self.numbers) * len(self.classes))
