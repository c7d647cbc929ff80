"""One measured number: its tag, how to print it, and which values are better. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Direction = Literal["lower", "higher"]
Place = Literal["table", "hparams", "curve", "status"]
EVERYWHERE: tuple[Place, ...] = ("table", "hparams", "curve")
NATS, SHARE = "nats per image", "share"
NEG_ELBO = "−ELBO"  # with the minus sign; streams write "-" where an encoding has none
STORED = ("tag", "header", "unit", "digits", "direction")  # fields stored in results for a user's measure
GROUPS = {"iwae": "test"}  # the prefix of a measure's tags, where it is not the measure's name


def group_of(name: str) -> str:
    """Return the prefix of the tags of a measure's numbers."""
    return GROUPS.get(name, name)


@dataclass(frozen=True)
class Column:
    """One number of a measure, and how to show it.

    Args:
        tag: its path in the measure's block, for example ``entropy`` or ``generated/overall``. Outside of the
            measure, the tag is prefixed with its group: ``accuracy/generated/overall``. ``{K}`` stands for any
            integer.
        header: the column's header in tables, and its name in titles of charts.
        unit: of the number; ``share`` is printed in per cent.
        digits: decimal places.
        direction: which values are better; None for neither. A search needs it.
        ranked: whether reports name and mark the best of it. False where the order says little of the model: a
            smaller beta gives a smaller recon, and unused latents a smaller TC.
        places: where it is shown, in addition to results.json, table.csv and TensorBoard's scalars: ``table`` (of
            a report), ``hparams`` (of TensorBoard), ``curve`` (against beta), ``status`` (one line per run of a
            sweep).
        chart: the title of its chart in TensorBoard's Custom Scalars; columns with equal titles share a chart.
        pattern: a regular expression for the tags on that chart, if there are more than this one.
        counted: the block of results.json with the number of images on which it is measured.
        floor: the tag of the score that a perfect model would have.
        split: the images that it is measured on, for titles.
        note: for a table's caption, with ``{header}``, ``{images}``, ``{floor}``, and ``{levels}`` of scores of
            disentanglement.
    """

    tag: str
    header: str
    unit: str = ""
    digits: int = 2
    direction: Direction | None = None
    places: tuple[Place, ...] = EVERYWHERE
    chart: str = ""
    pattern: str = ""
    counted: str = ""
    floor: str = ""
    note: str = ""
    split: str = "test set"
    ranked: bool = True

    @property
    def has_best(self) -> bool:
        """Whether reports name and mark the best of it."""
        return self.ranked and self.direction is not None

    @property
    def share(self) -> bool:
        return self.unit == SHARE

    def matches(self, tag: str) -> bool:
        return self._at(tag) is not None

    def at(self, tag: str) -> Column | None:
        """Return this column for a given tag, with its number in place of ``{K}``; None if it does not match."""
        if (found := self._at(tag)) is None:
            return None
        return replace(self, tag=tag, header=self.header.replace("{K}", found[1])) if found.groups() else self

    def _at(self, tag: str) -> re.Match[str] | None:
        before, slot, after = self.tag.partition("{K}")
        return re.fullmatch(re.escape(before) + r"(\d+)" * bool(slot) + re.escape(after), tag)

    def within(self, name: str) -> Column:
        """Return this column with its full tag, as a number of the measure ``name``."""
        tag = f"{group_of(name)}/{self.tag}"
        pattern = self.pattern or re.escape(tag).replace(re.escape("{K}"), "[0-9]+") + "$"
        return replace(self, tag=tag, pattern=pattern, counted=self.counted or name)

    def stored(self) -> dict[str, Any]:
        """Return the fields to store in the block of a user's measure."""
        return {key: getattr(self, key) for key in STORED}

    @classmethod
    def read(cls, stored: Any) -> Column | None:
        """Rebuild a column from a stored block; None if the value is not a column."""
        if not isinstance(stored, Mapping) or stored.keys() != set(STORED):
            return None
        texts = all(isinstance(stored[key], str) for key in ("tag", "header", "unit"))
        digits = type(stored["digits"]) is int and 0 <= stored["digits"] <= 20
        known = stored["direction"] in (None, "lower", "higher")
        return cls(**stored) if texts and digits and known else None
