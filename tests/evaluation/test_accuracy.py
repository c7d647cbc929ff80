"""Confusion and accuracies are torchmetrics' own, and those counted by hand."""

import json

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from fmvae.evaluation.accuracy import accuracies, accuracy_block, confusion

NAMES = ("a", "b", "c", "d", "e")


def guesses(num: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and logits (N, C) that are right more often in some classes; those are larger, too."""
    draw = np.random.default_rng(seed)
    share = np.arange(1, num_classes + 1)
    labels = draw.choice(num_classes, size=num, p=share / share.sum())
    logits = draw.normal(size=(num, num_classes))
    logits[np.arange(num), labels] += labels / 2
    return labels, logits


def of(class_: int, num_classes: int = 3) -> list[float]:
    return [float(c == class_) for c in range(num_classes)]


def test_confusion_is_that_counted_by_hand():
    labels = np.array([0, 0, 1, 2, 2, 2])
    logits = np.array([of(0), of(1), of(1), of(0), of(2), of(0)])
    assert confusion(labels, logits).tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 1]]


def test_accuracies_are_those_counted_by_hand_and_json_values():
    result = accuracies(np.array([[1, 1, 0], [0, 1, 0], [2, 0, 1]]), ("x", "y", "z"))
    assert result == {
        "overall": 3 / 6,
        "per_class": {"x": 1 / 2, "y": 1.0, "z": 1 / 3},
        "confusion": [[1, 1, 0], [0, 1, 0], [2, 0, 1]],
        "num_images": 6,
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["per_class"]) == ["x", "y", "z"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_agree_with_torchmetrics(dtype, seed):
    labels, logits = guesses(1000, 5, seed)
    counts = confusion(labels, logits.astype(dtype))
    asked, predicted = torch.from_numpy(labels), torch.from_numpy(logits.astype(dtype))
    expected = MulticlassConfusionMatrix(5)(predicted, asked)
    assert counts.tolist() == expected.tolist()
    assert counts.tolist() != expected.T.tolist()  # rows and columns can be told apart
    result = accuracies(counts, NAMES)
    per_class = MulticlassAccuracy(5, average=None)(predicted, asked)
    assert list(result["per_class"].values()) == pytest.approx(per_class.tolist(), rel=1e-6)
    assert result["overall"] == pytest.approx(MulticlassAccuracy(5, average="micro")(predicted, asked).item())
    assert result["overall"] != pytest.approx(per_class.mean().item(), rel=1e-3)  # not the mean over classes


def test_a_class_without_images_has_no_accuracy():
    labels, logits = guesses(200, 5)
    kept = labels != 3
    result = accuracies(confusion(labels[kept], logits[kept]), NAMES)
    assert result["per_class"]["d"] is None
    assert None not in [result["per_class"][name] for name in "abce"]
    assert result["overall"] == (logits[kept].argmax(1) == labels[kept]).mean()


@pytest.mark.parametrize("label", [-1, 5, 100])
def test_a_label_out_of_range_is_an_error(label):
    """As a bin, -1 would be counted for another class."""
    labels, logits = guesses(20, 5)
    labels[7] = label
    with pytest.raises(ValueError, match=rf"labels in \[.*{label}.* for 5 classes"):
        confusion(labels, logits)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int64])
def test_narrow_labels_do_not_overflow(dtype):
    labels, logits = guesses(500, 30)
    assert confusion(labels.astype(dtype), logits).tolist() == confusion(labels, logits).tolist()
    assert confusion(labels, logits).sum() == 500


def test_class_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError):
        accuracies(np.eye(3, dtype=int), ("x", "y"))


def test_a_block_holds_generated_and_real_images_apart():
    generated, real = guesses(100, 5, seed=1), guesses(150, 5, seed=2)
    block = accuracy_block(*generated, *real, NAMES)
    assert block == {
        "generated": accuracies(confusion(*generated), NAMES),
        "real": accuracies(confusion(*real), NAMES),
    }
    assert (block["generated"]["num_images"], block["real"]["num_images"]) == (100, 150)
