"""Generated images beside their nearest training images: right neighbours, and a model that copies is seen."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from fmvae.data.split import Split, to_float
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import Source, result_figures
from fmvae.visualization.neighbours import CHUNK, nearest_images, neighbours
from tests.visualization.helpers import seeded, shown, tile_at, visualizer
from tests.visualization.test_samples import SOURCES, settings


@pytest.fixture(scope="module")
def data(small_data):
    return small_data()


def of(images: torch.Tensor, name: str) -> Split:
    return Split(name, images, torch.zeros(len(images), dtype=torch.long))


def test_the_nearest_are_those_of_scipy_across_chunks():
    among = torch.randint(0, 256, (2 * CHUNK + 5, 1, 3, 4), dtype=torch.uint8)
    images = torch.rand(6, 1, 3, 4)
    images[0] = to_float(among[CHUNK + 1])  # a copy
    distances, found = nearest_images(images, among, 3)
    expected = cdist(images.flatten(1).double().numpy(), (to_float(among).flatten(1).double()).numpy())
    order = np.argsort(expected, axis=1)[:, :3]
    np.testing.assert_array_equal(found.numpy(), order)
    np.testing.assert_allclose(distances.numpy(), np.take_along_axis(expected, order, 1), rtol=1e-12)
    assert distances[0, 0] == 0
    assert found[0, 0] == CHUNK + 1


class Copies(BaseVAE):
    """Generates the training images themselves, in turn."""

    images: torch.Tensor

    def decode(self, z, labels=None):
        return torch.logit(self.images[: len(z)].double(), eps=1e-12).float()


def test_a_model_that_copies_is_seen_and_another_is_not(data):
    def medians(model) -> tuple[float, float]:
        title = neighbours(visualizer(model), data.train, data.test, SOURCES["gmm"]()).get_suptitle()
        words = " ".join(title.split()).replace(",", "").split()
        return float(words[words.index("distance") + 1]), float(words[-1])

    copies = seeded(Copies, 3, hidden_dim=8)
    copies.images = to_float(data.train.images)
    copied, real = medians(copies)
    assert copied == 0 < real
    other, same_real = medians(seeded(BaseVAE, 3, hidden_dim=8))
    assert other > 1
    assert same_real == real


@pytest.mark.parametrize("conditional", [False, True])
def test_the_rows_are_the_samples_and_their_neighbours(conditional, data):
    view = visualizer(seeded(ConditionalVAE if conditional else BaseVAE, 3, hidden_dim=8))
    drawn = dict(result_figures(view, data, [], settings(only=["neighbours_gmm"]), None, SOURCES))
    array = shown(drawn["neighbours_gmm"])
    labels = torch.arange(10) if conditional else None
    means = view.sample_means(10, labels, SOURCES["gmm"]())
    _, found = nearest_images(means, data.train.images, 3)
    for column in range(10):
        np.testing.assert_array_equal(tile_at(array, 0, column), means[column, 0].numpy())
        for rank in range(3):
            image = to_float(data.train.images[found[column, rank]])[0].numpy()
            np.testing.assert_array_equal(tile_at(array, rank + 1, column), image)
    assert "from a density of this test" in drawn["neighbours_gmm"].get_suptitle()


@pytest.mark.parametrize(("num_train", "num_test", "columns"), [(700, 90, 10), (700, 90, 7), (650, 4, 10)])
def test_the_title_says_of_how_many_images_its_numbers_are(num_train, num_test, columns, data):
    view = visualizer(seeded(BaseVAE, 3, hidden_dim=8))
    train, test = of(data.train.images[:num_train], "train"), of(data.test.images[:num_test], "test")
    title = " ".join(neighbours(view, train, test, SOURCES["gmm"](), columns).get_suptitle().split())
    assert f"{columns} images shown, against all {num_train} training images: median distance " in title
    real, _ = nearest_images(to_float(test.images[: min(columns, num_test)]), train.images, 1)
    assert title.endswith(f", of {min(columns, num_test)} test images {real.median():.2f}")


def test_it_is_left_out_or_refused_where_there_are_too_few_images(data):
    view = visualizer(seeded(BaseVAE, 3, hidden_dim=8))
    few = of(data.train.images[:2], "train")
    with pytest.raises(ValueError, match="2 training and 800 test images"):
        neighbours(view, few, data.test, Source("x", SOURCES["gmm"]().draw))
