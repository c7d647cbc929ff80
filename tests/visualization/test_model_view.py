"""What pictures ask of a model, of grey and RGB images, with classes and without."""

import numpy as np
import pytest
import torch

from fmvae.data.split import Split
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.objectives import Bernoulli
from fmvae.visualization import VAEVisualizer, latent_scatter, latent_traversal
from fmvae.visualization.interpolation import interpolation_pairs
from fmvae.visualization.model_view import ModelView
from fmvae.visualization.projector import MOST_PIXELS, projector_data
from fmvae.visualization.tiles import tile
from tests.visualization.helpers import seeded, shown, tick_labels

SHAPES = [(1, 6, 8), (3, 6, 8)]


def view(
    shape: tuple[int, ...] = (1, 6, 8), names: tuple[str, ...] | None = None, latent_dim: int = 2
) -> VAEVisualizer:
    model = seeded(BaseVAE, latent_dim, hidden_dim=8, image_shape=shape)
    return VAEVisualizer(model, Bernoulli(), class_names=names)


def images(num: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_hold_each_image_where_it_belongs_and_nothing_between(shape):
    channels, height, width = shape
    given = images(5, shape)
    array = tile(given, 3)
    assert array.shape == (2 * (height + 1), 3 * (width + 1), *[3] * (channels == 3))
    for index, image in enumerate(given):
        row, column = divmod(index, 3)
        y, x = row * (height + 1), column * (width + 1)
        own = array[y : y + height, x : x + width]
        expected = image[0] if channels == 1 else image.permute(1, 2, 0)
        np.testing.assert_array_equal(own, expected.numpy())
        assert np.isnan(array[y : y + height, x + width]).all()
        assert np.isnan(array[y + height, x : x + width]).all()
    assert np.isnan(array[height + 1 :, 2 * (width + 1) :]).all()  # the sixth tile


@pytest.mark.parametrize("channels", [2, 4])
def test_tiles_of_other_channels_are_refused(channels):
    with pytest.raises(ValueError, match=f"{channels} channels: pictures show 1"):
        tile(images(2, (channels, 4, 4)), 2)


def test_the_gap_between_rgb_tiles_is_white_and_the_images_keep_their_colours():
    given = images(2, (3, 6, 8))
    array = shown(view((3, 6, 8)).show_reconstructions(given))
    np.testing.assert_array_equal(array[:6, :8], given[0].permute(1, 2, 0).numpy())
    assert (array[:6, 8] == 1).all()


def test_images_without_labels_need_none_and_show_none():
    given = images(3, (1, 6, 8))
    figure = view().show_reconstructions(given)
    assert not tick_labels(figure.axes[0].xaxis)
    named = view(names=("a", "b"))
    assert tick_labels(named.show_reconstructions(given, torch.tensor([1, 0, 1])).axes[0].xaxis) == ["b", "a", "b"]
    with pytest.raises(ValueError, match="labels None"):  # with names, which image is what must be told
        named.show_reconstructions(given)
    posteriors = view().posteriors(Split("test", (given * 255).byte(), torch.zeros(3, dtype=torch.int64)))
    assert "(" not in latent_traversal(view(), posteriors, given[0]).get_suptitle()
    with pytest.raises(ValueError, match="an image without a label"):
        latent_traversal(named, posteriors, given[0])
    with pytest.raises(ValueError, match="on data without labels"):
        _ = view().names


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_the_scatter_of_unlabelled_images_has_one_colour(latent_dim):
    split = Split("test", (images(20, (1, 6, 8)) * 255).byte(), torch.zeros(20, dtype=torch.int64))

    def colours(visualizer: VAEVisualizer, labels: torch.Tensor) -> int:
        posteriors = visualizer.posteriors(split)._replace(labels=labels)
        axes = latent_scatter(visualizer, posteriors).axes[0]
        return len(np.unique(np.asarray(axes.collections[0].get_facecolor()), axis=0))

    assert colours(view(latent_dim=latent_dim), split.labels) == 1
    assert colours(view(names=("a", "b"), latent_dim=latent_dim), torch.arange(20) % 2) == 2


def test_pairs_of_unlabelled_images_are_the_first_ones_two_by_two():
    def pairs(num: int) -> list[tuple[int, int]]:
        split = Split("test", torch.zeros(num, 1, 2, 2, dtype=torch.uint8), torch.zeros(num, dtype=torch.int64))
        first, second = interpolation_pairs(split, 2, labelled=False)
        return list(zip(first.tolist(), second.tolist(), strict=True))

    assert pairs(100) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert pairs(5) == [(0, 1), (2, 3)]
    assert pairs(1) == []


def test_the_projector_takes_only_as_many_large_images_as_it_can_show():
    side = MOST_PIXELS // 2
    model = seeded(BaseVAE, 1, hidden_dim=1, image_shape=(1, 1, side))
    split = Split("test", torch.zeros(6, 1, 1, side, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))
    assert len(projector_data(VAEVisualizer(model, Bernoulli(), class_names=None), split).images) == 4
    small = Split("test", torch.zeros(6, 1, 6, 8, dtype=torch.uint8), split.labels)
    assert len(projector_data(view(), small).images) == 6


def test_a_view_says_what_the_model_is():
    model = seeded(ConditionalVAE, 3, num_classes=2, hidden_dim=8, image_shape=(3, 6, 8))
    seen = ModelView(model, Bernoulli(), class_names=["a", "b"], seed=5)
    assert (seen.latent_dim, seen.image_shape, seen.conditional, seen.seed) == (3, (3, 6, 8), True, 5)
    assert seen.names_of(torch.tensor([1, 0])) == ["b", "a"]
    assert view().names_of(torch.tensor([0, 0])) == ["", ""]
    later = seen.at_epoch(2)
    assert isinstance(later, ModelView)
    assert (later.name, seen.name) == ("ConditionalVAE, z = 3, epoch 2", "ConditionalVAE, z = 3")
    labels = torch.tensor([0, 1, 1])
    assert seen.sample_means(3, labels).shape == (3, 3, 6, 8)
    assert torch.equal(seen.sample_means(3, labels), seen.sample_means(3, labels))
