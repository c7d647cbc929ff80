"""Whether a classifier was trained on the data that are measured, by what its card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fmvae.common.class_names import LONGEST, readable
from fmvae.common.text import one_line
from fmvae.data import ImageData


class TrainedOn(NamedTuple):
    """Labelled images that a classifier learnt, or that are measured.

    Attributes:
        kind: the name of the dataset's class.
        class_names: empty if not known.
        image_shape: (C, H, W); empty if not known.
        binarized: whether they were made black and white.
        sha256: digests of their content by name; empty if not known.
    """

    kind: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    binarized: bool
    sha256: Mapping[str, Any]

    @classmethod
    def by_card(cls, card: Mapping[str, Any]) -> TrainedOn | None:
        """Return what the card of weights or of a checkpoint says; None if nothing, as of a foreign file."""
        try:
            node = card["config"]["data"]
            return cls(
                str(node["_target_"]).rpartition(".")[2],
                tuple(card.get("test", {}).get("per_class", ())),
                tuple(node.get("image_shape") or ()),
                bool(node.get("binarize")),
                dict(card.get("provenance", {}).get("data_sha256") or card.get("data_sha256") or {}),
            )
        except (LookupError, TypeError, ValueError, AttributeError):  # a card may hold anything
            return None

    @classmethod
    def of(cls, data: ImageData) -> TrainedOn:
        shape = data.image_shape
        return cls(type(data).__name__, data.class_names or (), shape, bool(data.binarize), data.sha256)

    def __str__(self) -> str:
        told = [_listed(self.class_names)] if self.class_names else []
        told += ["x".join(map(str, self.image_shape))] if self.image_shape else []
        told += ["black and white"] if self.binarized else []
        return f"{one_line(self.kind)[:LONGEST]} ({', '.join(told)})" if told else one_line(self.kind)[:LONGEST]


class Difference(NamedTuple):
    """How the data that a classifier was trained on differ from those that are measured.

    Attributes:
        told: both, as the end of a sentence about the weights.
        in_classes: whether its classes are not those of the data, so that its predictions mean nothing for them.
    """

    told: str
    in_classes: bool


def difference(card: Mapping[str, Any], data: ImageData) -> Difference | None:
    """Compare the data of a classifier's card with those to measure; None if they are the same, or not known.

    Classes are the same if the class of the dataset is, and either a file's digest, or the names of the classes.
    Names that only number the classes, as for files of one's own without names, are equal for any data.
    """
    theirs, ours = TrainedOn.by_card(card), TrainedOn.of(data)
    if theirs is None:
        return None
    same = theirs.kind == ours.kind
    if same and theirs.sha256 and not _share(theirs.sha256, ours.sha256):
        numbers = tuple(map(str, range(data.num_classes)))
        same = theirs.class_names == ours.class_names != numbers
    shape = theirs.image_shape or ours.image_shape
    if same and (shape, theirs.binarized) == (ours.image_shape, ours.binarized):
        return None
    there = "other files of " if str(theirs) == str(ours) else ""
    return Difference(f"a classifier of {theirs}, and these data are {there}{ours}", not same)


def unlike_garments(data: ImageData) -> str:
    """Return why the shipped classifiers do not fit data, as the end of a sentence about them."""
    black = f"black and white (data.binarize={data.binarize})" if data.binarize else "other images"
    return f"a classifier of Fashion-MNIST, and these data are {black}"


def _share(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether a file is in both; labels do not count, as other images may have the same."""
    return any("label" not in name and second.get(name) == digest for name, digest in first.items())


def _listed(names: Sequence[str]) -> str:
    shown = readable([str(name) for name in names])
    return ", ".join(shown if len(shown) < 5 else (*shown[:2], "...", shown[-1]))
