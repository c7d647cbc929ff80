"""What a classifier's card says of the data that it knows, and when these are the data to measure."""

from typing import Any

import numpy as np
import pytest

from fmvae.data import ImageData
from fmvae.evaluation.suitability import difference, unlike_garments
from fmvae.weights import card_of


def data(
    names: list[str] | None = None, *, seed: int = 0, side: int = 4, kind: type = ImageData, **more: Any
) -> ImageData:
    images = np.random.default_rng(seed).integers(0, 256, (30, side, side), dtype=np.uint8)
    made = ImageData.from_arrays(images, np.arange(30) % 3, names, **more)
    made.__class__ = kind
    return made


class Mine(ImageData):
    """Data of another class."""


def card(of: ImageData, **changes: Any) -> dict[str, Any]:
    """As a classifier's run writes it."""
    node = {"_target_": f"somewhere.{type(of).__name__}", "image_shape": list(of.image_shape)}
    node |= {"binarize": of.binarize} if of.binarize else {}
    return {
        "config": {"data": node},
        "test": {"per_class": dict.fromkeys(of.class_names or (), 0.5)},
        "provenance": {"data_sha256": of.sha256},
    } | changes


NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("theirs", "ours", "in_classes"),
    [
        (data(), data(), None),
        (data(NAMES), data(NAMES), None),
        (data(NAMES), data(), None),  # the same images, whatever their classes are called
        (data(NAMES), data(NAMES, seed=1), None),  # other images of the same classes
        (data(), data(seed=1), True),  # numbers say nothing
        (data(NAMES), data(NAMES[::-1], seed=1), True),
        (data(NAMES), data(seed=1), True),
        (data(NAMES, kind=Mine), data(NAMES), True),
        (data(NAMES), data(NAMES, seed=1, side=5), False),
        (data(NAMES), data(NAMES, binarize="static"), False),
        (data(NAMES, binarize="static"), data(NAMES, binarize="dynamic"), None),
    ],
)
def test_classes_are_the_same_if_the_files_or_the_names_are(theirs, ours, in_classes):
    found = difference(card(theirs), ours)
    assert (found and found.in_classes) == in_classes
    if found:
        assert found.told.startswith(f"a classifier of {type(theirs).__name__} (")
        assert "\n" not in found.told


def test_equal_labels_are_no_equal_data():
    """As when both are in the order of their classes."""
    ours, theirs = data(), data(seed=1)
    assert ours.sha256["test-labels"] == theirs.sha256["test-labels"]
    found = difference(card(theirs), ours)
    assert found is not None
    assert found.told == (
        "a classifier of ImageData (0, 1, 2, 1x4x4), and these data are other files of ImageData (0, 1, 2, 1x4x4)"
    )


def test_a_card_of_a_checkpoint_has_no_names_and_one_from_elsewhere_says_nothing():
    of = data(NAMES)
    checkpoint = {"config": card(of)["config"], "data_sha256": of.sha256}
    assert difference(checkpoint, of) is None
    found = difference(checkpoint, data(NAMES, seed=1))
    assert found is not None
    assert found.in_classes
    for nothing in ({}, {"layout": "model_state_dict, mean, std"}, {"config": 3}, {"config": {"data": None}}):
        assert difference(nothing, of) is None


def test_the_shipped_ones_say_that_they_know_garments():
    found = difference(card_of("sharp"), data())
    assert found is not None
    assert found.in_classes
    assert found.told.startswith(
        "a classifier of FashionMNISTManager (T-shirt/top, Trouser, ..., Ankle boot, 1x28x28)"
    )


def test_a_card_of_others_is_shown_in_one_short_line():
    told = card(data(), test={"per_class": {"a\n\x1b[31mb" * 50: 1, "ü": 1}})
    told["config"]["data"] |= {"_target_": "x.\x1b[2J" + "y" * 500}
    found = difference(told, data(seed=1))
    assert found is not None
    assert found.told.isprintable()
    assert len(found.told) < 200


def test_why_the_shipped_do_not_fit():
    assert unlike_garments(data()).endswith("these data are other images")
    assert unlike_garments(data(binarize="static")).endswith("black and white (data.binarize=static)")
