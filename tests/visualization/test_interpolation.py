"""Between two images: the ends are their reconstructions, and the way is straight in the posterior means."""

import numpy as np
import pytest
import torch

from fmvae.data.split import Split, to_float
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import interpolations
from fmvae.visualization.interpolation import interpolation_pairs
from tests.visualization.helpers import means_of, random_split, seeded, shown, tick_labels, tile_at, visualizer

Images = tuple[torch.Tensor, torch.Tensor]


def ends(first: list[int], second: list[int]) -> tuple[Images, Images]:
    split = random_split()
    left, right = ((to_float(split.images[index]), split.labels[index]) for index in (first, second))
    return left, right


@pytest.mark.parametrize("model_class", [BaseVAE, ConditionalVAE])
def test_rows_run_straight_from_one_reconstruction_to_the_other(model_class):
    model = seeded(model_class, 5, hidden_dim=16)
    (left, left_labels), (right, right_labels) = first, second = ends([3, 4], [13, 8])  # of a class, and not
    figure = interpolations(visualizer(model), first, second, steps=5)
    with torch.no_grad():
        mu_left, mu_right = (model.eval().encode(*end)[0] for end in (first, second))
    array = shown(figure)
    assert array.shape == (2 * 29, 7 * 29)
    for row in range(2):
        np.testing.assert_array_equal(tile_at(array, row, 0), left[row, 0])
        np.testing.assert_array_equal(tile_at(array, row, 6), right[row, 0])
    for step, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
        means = means_of(model, (1 - share) * mu_left + share * mu_right, left_labels)
        for row in range(2):
            np.testing.assert_allclose(tile_at(array, row, 1 + step), means[row], atol=1e-6)
    reconstructions = means_of(model, mu_right, right_labels)
    np.testing.assert_allclose(tile_at(array, 0, 5), reconstructions[0], atol=1e-6)
    # across classes a conditional model ends with the left label
    same = np.abs(tile_at(array, 1, 5) - reconstructions[1]).max() < 1e-6
    assert same != model.conditional
    assert ("decoded as the left image's class" in figure.get_suptitle()) == model.conditional
    assert np.abs(tile_at(array, 0, 1) - tile_at(array, 0, 5)).max() > 1e-3
    (axes,) = figure.axes
    assert tick_labels(axes.yaxis) == ["Dress", "Coat → Bag"]
    assert tick_labels(axes.xaxis) == ["original", "0.00", "0.25", "0.50", "0.75", "1.00", "original"]


def test_within_classes_nothing_needs_saying():
    figure = interpolations(visualizer(seeded(ConditionalVAE, 2, hidden_dim=4)), *ends([0], [10]))
    assert "decoded as" not in figure.get_suptitle()


def test_pairs_are_of_a_class_and_then_of_two():
    split = random_split()
    first, second = interpolation_pairs(split, 4)
    assert split.labels[first].tolist() == [0, 1, 2, 3] * 2
    assert split.labels[second].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert (first != second).all()


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [([4], []), ([], []), ([4, 4], [(0, 1)]), ([4, 7], [(0, 1)]), ([4, 7, 4], [(0, 2), (0, 1)])],
)
def test_pairs_of_few_images(labels, pairs):
    split = Split("test", torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8), torch.tensor(labels).long())
    first, second = interpolation_pairs(split)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == pairs


def test_one_step_is_no_way():
    with pytest.raises(ValueError, match="steps must be >= 2, got 1"):
        interpolations(visualizer(seeded(BaseVAE, 2, hidden_dim=4)), *ends([0], [10]), 1)
