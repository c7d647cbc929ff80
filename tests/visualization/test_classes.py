"""Labels do what they say in a conditional model, and matrices and bars show the numbers they are given."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from fmvae import rng
from fmvae.data import CLASS_NAMES
from fmvae.data.split import to_float
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import class_accuracy, class_samples, confusion_matrix, style_transfer
from tests.visualization.helpers import means_of, random_split, seeded, shown, tick_labels, tile_at, visualizer


@pytest.fixture
def conditional():
    return seeded(ConditionalVAE, 3, hidden_dim=16)


def test_every_class_has_a_row_of_samples(conditional):
    figure = class_samples(visualizer(conditional, seed=4))
    array = shown(figure)
    assert array.shape == (10 * 29, 20 * 29)
    z = torch.randn(200, 3, generator=rng.stream(4, "sampling"))
    labels = torch.arange(10).repeat_interleave(20)
    means = means_of(conditional, z, labels)
    for index in (0, 19, 20, 105, 199):
        np.testing.assert_allclose(tile_at(array, *divmod(index, 20)), means[index], atol=1e-6)
    assert np.abs(tile_at(array, 9, 19) - means_of(conditional, z, 9 - labels)[199]).max() > 1e-3
    assert tick_labels(figure.axes[0].yaxis) == list(CLASS_NAMES)
    assert figure.get_suptitle().startswith("20 samples")


def test_one_style_is_decoded_with_every_label_and_its_own_is_the_reconstruction(conditional):
    split = random_split()
    x, labels = to_float(split.images[[3, 8, 1]]), split.labels[[3, 8, 1]]
    figure = style_transfer(visualizer(conditional), x, labels)
    array = shown(figure)
    assert array.shape == (3 * 29, 11 * 29)
    with torch.no_grad():
        mu, _ = conditional.eval().encode(x, labels)
    reconstructions = means_of(conditional, mu, labels)
    for row, label in enumerate(labels.tolist()):
        np.testing.assert_array_equal(tile_at(array, row, 0), x[row, 0])
        np.testing.assert_allclose(tile_at(array, row, 1 + label), reconstructions[row], atol=1e-6)
        for column in range(10):
            mean = means_of(conditional, mu[[row]], torch.tensor([column]))[0]
            np.testing.assert_allclose(tile_at(array, row, 1 + column), mean, atol=1e-6)
    assert np.abs(tile_at(array, 0, 1) - reconstructions[0]).max() > 1e-3
    (axes,) = figure.axes
    assert tick_labels(axes.xaxis) == ["original", *CLASS_NAMES]
    assert tick_labels(axes.yaxis) == [CLASS_NAMES[label] for label in labels]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    for frame, row, label in zip(frames, range(3), labels.tolist(), strict=True):
        centre = frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2
        np.testing.assert_allclose(centre, (13.5 + 29 * (label + 1), 13.5 + 29 * row), atol=0.6)


def test_a_model_without_labels_has_neither():
    shows, split = visualizer(seeded(BaseVAE, 2, hidden_dim=4)), random_split()
    with pytest.raises(ValueError, match="class_samples needs a conditional model"):
        class_samples(shows)
    with pytest.raises(ValueError, match="style_transfer needs a conditional model"):
        style_transfer(shows, to_float(split.images[:2]), split.labels[:2])


# --- classifier ---------------------------------------------------------------------------------------------


def test_the_matrix_is_annotated_with_counts_and_coloured_by_share_of_the_row():
    matrix = np.array([[8, 2, 0], [1, 0, 3], [0, 0, 0]])
    figure = confusion_matrix(matrix, ("a", "b", "c"), "A title", rows="asked class")
    axes = figure.axes[0]
    found = {text.get_position(): text.get_text() for text in axes.texts}
    assert found == {(column, row): str(matrix[row, column]) for row in range(3) for column in range(3)}
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0.25, 0, 0.75], [0, 0, 0]])
    assert (figure.get_suptitle(), axes.get_ylabel(), axes.get_xlabel()) == (
        "A title",
        "asked class",
        "predicted class",
    )
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == ["a", "b", "c"]
    assert axes.images[0].get_clim() == (0, 1)
    light = {text.get_position() for text in axes.texts if text.get_color() == "white"}
    assert light == {(0, 0), (2, 1)}  # on the dark cells
    assert confusion_matrix(torch.from_numpy(matrix), "abc", "A title").axes[0].texts[1].get_text() == "2"


@pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.ones((2, 2)), -np.ones((3, 3))])
def test_a_matrix_that_is_none_is_refused(matrix):
    with pytest.raises(ValueError, match="give counts of 3 x 3"):
        confusion_matrix(matrix, ("a", "b", "c"), "t")


def test_bars_are_the_accuracies_and_the_legend_has_their_means():
    generated, real = [0.5, 1.0, float("nan")], [0.9, 0.8, 0.7]
    axes = class_accuracy(generated, real, ("a", "b", "c")).axes[0]
    sides = [[bar.get_height() for bar in container] for container in axes.containers]  # type: ignore[union-attr]
    np.testing.assert_array_equal(sides, [generated, real])
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "generated images: 75.00% on average over classes",
        "real test images: 80.00% on average over classes",
    ]
    assert [text.get_text() for text in axes.texts] == ["50.0", "100.0", "", "90.0", "80.0", "70.0"]
    assert tick_labels(axes.xaxis) == ["a", "b", "c"]
    left, right = (container[0].get_x() for container in axes.containers)  # type: ignore[index]
    assert left < right


@pytest.mark.parametrize("generated", [[0.5, 0.5], [0.5, 0.5, 1.2], [-0.1, 0.5, 0.5], [float("nan")] * 3])
def test_accuracies_that_are_none_are_refused(generated):
    with pytest.raises(ValueError, match=r"generated images: give 3 accuracies in \[0, 1\]"):
        class_accuracy(generated, [0.5] * 3, ("a", "b", "c"))
