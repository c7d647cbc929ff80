"""A traversal's tiles are what the decoder says at those latents, in the order of KL, in figure and GIF alike."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.models.posterior import Posteriors
from fmvae.objectives import ContinuousBernoulli
from fmvae.visualization import latent_traversal, traversal_animation
from fmvae.visualization.traversal import value_name
from tests.visualization.helpers import means_of, random_split, seeded, shown, tick_labels, tile_at, visualizer


def posteriors_with_kl(latent_dim: int, largest: list[int]) -> Posteriors:
    """Posteriors whose dimensions have the larger KL the earlier they stand in ``largest``."""
    mu = torch.zeros(5, latent_dim)
    for rank, dimension in enumerate(largest):
        mu[:, dimension] = 3.0 - 0.2 * rank
    return Posteriors(mu, torch.zeros_like(mu), torch.zeros(5, dtype=torch.int64))


ORDER = [2, 0, 3, 1]


@pytest.fixture
def base():
    return seeded(BaseVAE, 4, hidden_dim=16)


@pytest.fixture
def posteriors():
    return posteriors_with_kl(4, ORDER)


def test_from_the_prior_each_row_varies_one_dimension_around_zero(base, posteriors):
    figure = latent_traversal(visualizer(base), posteriors, span=2.0, steps=7)
    array = shown(figure)
    assert array.shape == (4 * 29, 7 * 29)
    values = [-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3, 2]
    for row, dimension in enumerate(ORDER):
        z = torch.zeros(7, 4)
        z[:, dimension] = torch.tensor(values)
        means = means_of(base, z)
        for column in range(7):
            np.testing.assert_allclose(tile_at(array, row, column), means[column], atol=1e-6)
    wrong = means_of(base, torch.eye(4)[[ORDER[1]]] * -2)[0]
    assert np.abs(tile_at(array, 0, 0) - wrong).max() > 1e-3
    labels = [f"z{dimension}  KL {0.5 * (3 - 0.2 * rank) ** 2:.2f}" for rank, dimension in enumerate(ORDER)]
    (axes,) = figure.axes
    assert tick_labels(axes.yaxis) == labels
    assert tick_labels(axes.xaxis) == ["-2", "-1.33", "-0.667", "0", "0.667", "1.33", "2"]
    assert "prior mean" in figure.get_suptitle()
    assert "BaseVAE, z = 4" in figure.get_suptitle()


@pytest.mark.parametrize("model_class", [BaseVAE, ConditionalVAE])
def test_from_an_image_the_others_stay_at_its_posterior_mean_and_the_label_is_kept(model_class, posteriors):
    model, split = seeded(model_class, 4, hidden_dim=16), random_split()
    image, label = to_float(split.images[8]), 8
    figure = latent_traversal(visualizer(model), posteriors, image, label)
    with torch.no_grad():
        mu, _ = model.eval().encode(image[None], torch.tensor([label]))
    left, array = shown(figure, 0), shown(figure, 1)
    np.testing.assert_array_equal(tile_at(left, 0, 0), image[0])
    np.testing.assert_allclose(tile_at(left, 1, 0), means_of(model, mu, torch.tensor([label]))[0], atol=1e-6)
    assert array.shape == (4 * 29, 9 * 29)
    labels = torch.full((9,), label)
    for row, dimension in enumerate(ORDER):
        z = mu.repeat(9, 1)
        z[:, dimension] = torch.linspace(-3, 3, 9)
        for column, mean in enumerate(means_of(model, z, labels)):
            np.testing.assert_allclose(tile_at(array, row, column), mean, atol=1e-6)
    if model.conditional:
        other = means_of(model, mu, torch.tensor([3]))[0]
        assert np.abs(tile_at(left, 1, 0) - other).max() > 1e-3
    assert "absolute" in figure.get_supxlabel()
    assert "Bag" in figure.get_suptitle()
    # the mark of an image's own value: where that value is on the axis
    ((x, _),) = (line.get_data() for line in figure.axes[1].lines)
    expected = np.interp(mu[0, ORDER], np.linspace(-3, 3, 9), figure.axes[1].get_xticks())
    np.testing.assert_allclose(np.asarray(x), expected, atol=1e-3)


def test_an_own_value_beyond_the_span_is_not_marked(base, posteriors):
    split = random_split()
    marks = [
        len(np.asarray(figure.axes[1].lines[0].get_xdata()))
        for span in (1e-6, 100.0)
        if (figure := latent_traversal(visualizer(base), posteriors, to_float(split.images[0]), 0, span=span))
    ]
    assert marks == [0, 4]


def test_a_traversal_goes_through_the_likelihood(base, posteriors):
    likelihood = ContinuousBernoulli()
    array = shown(latent_traversal(visualizer(base, likelihood=likelihood), posteriors))
    with torch.no_grad():
        logits = base.eval().decode(torch.zeros(1, 4))
    np.testing.assert_allclose(tile_at(array, 0, 4), likelihood.mean(logits)[0, 0], atol=1e-6)
    assert np.abs(tile_at(array, 0, 4) - logits.sigmoid()[0, 0].numpy()).max() > 1e-3


def test_chosen_dimensions_are_shown_by_kl_and_many_are_cut_at_ten(posteriors):
    figure = latent_traversal(visualizer(seeded(BaseVAE, 4, hidden_dim=4)), posteriors, dimensions=[1, 2])
    assert [name.split()[0] for name in tick_labels(figure.axes[0].yaxis)] == ["z2", "z1"]
    wide, order = seeded(BaseVAE, 12, hidden_dim=4), [11, 5, 3]
    shows, known = visualizer(wide), posteriors_with_kl(12, order)
    names = [name.split()[0] for name in tick_labels(latent_traversal(shows, known).axes[0].yaxis)]
    assert len(names) == 10
    assert names[:3] == ["z11", "z5", "z3"]
    everything = latent_traversal(shows, known, dimensions=list(range(12)))
    assert len(tick_labels(everything.axes[0].yaxis)) == 12


@pytest.mark.parametrize("dimensions", [[12], [0, -1], [10], [True], [1.0], ["z1"]])
def test_a_dimension_that_does_not_exist_is_an_error(dimensions):
    shows = visualizer(seeded(BaseVAE, 10, hidden_dim=4))
    with pytest.raises(ConfigError) as caught:
        latent_traversal(shows, posteriors_with_kl(10, []), dimensions=dimensions)
    assert caught.value.subject == "figures.traversal.dimensions"
    assert f"dimension {dimensions[-1]!r} of a model with z = 10" in caught.value.problem
    assert caught.value.way_out == "give 0 to 9"


def test_no_dimensions_and_a_model_of_one(posteriors):
    with pytest.raises(ConfigError, match=r"an empty list; give 0 to 3"):
        latent_traversal(visualizer(seeded(BaseVAE, 4, hidden_dim=4)), posteriors, dimensions=[])
    one = visualizer(seeded(BaseVAE, 1, hidden_dim=4))
    assert shown(latent_traversal(one, posteriors_with_kl(1, []))).shape == (29, 9 * 29)
    with pytest.raises(ConfigError, match=r"give 0$"):
        latent_traversal(one, posteriors_with_kl(1, []), dimensions=[1])


def test_spans_steps_and_labels_out_of_range_are_errors(base, posteriors):
    for span, steps in ((0.0, 9), (float("nan"), 9), (3.0, 1)):
        with pytest.raises(ValueError, match="span > 0 and 2 steps"):
            latent_traversal(visualizer(base), posteriors, span=span, steps=steps)
    with pytest.raises(ValueError, match="leave it out"):
        latent_traversal(visualizer(base), posteriors, label=1)
    with pytest.raises(ValueError, match="needs one"):
        latent_traversal(visualizer(seeded(ConditionalVAE, 4, hidden_dim=4)), posteriors)
    with pytest.raises(ValueError, match="give its label"):
        latent_traversal(visualizer(base), posteriors, torch.zeros(1, 28, 28))


def test_the_method_finds_posteriors_and_image_itself(base):
    split = random_split()
    shows = visualizer(base)
    by_hand = latent_traversal(shows, shows.posteriors(split), to_float(split.images[7]), 7)
    np.testing.assert_array_equal(shown(shows.latent_traversal(split, 7), 1), shown(by_hand, 1))
    assert shown(shows.latent_traversal(split, steps=3)).shape == (4 * 29, 3 * 29)


def test_values_are_named_without_minus_zero():
    assert [value_name(value) for value in (-3.0, -1e-12, 0.75)] == ["-3", "0", "0.75"]


# --- animation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 5])
def test_the_animation_goes_there_and_back_forever(base, posteriors, steps):
    image = to_float(random_split().images[0])  # from zero all tiles would be one in the middle
    options = {"steps": steps, "scale": 3, "milliseconds": 70}
    content = traversal_animation(visualizer(base), posteriors, image, 0, **options)
    with torch.no_grad():
        mu, _ = base.eval().encode(image[None])
    gif = Image.open(io.BytesIO(content))
    assert gif.format == "GIF"
    assert getattr(gif, "n_frames", 1) == 2 * steps - 2
    assert (gif.info["loop"], gif.info["duration"]) == (0, 70)
    order = [*range(steps), *range(steps - 2, 0, -1)]
    values = torch.linspace(-3, 3, steps)
    places = []
    for frame, step in enumerate(order):
        gif.seek(frame)
        pixels = np.asarray(gif.convert("L")).astype(int)
        z = mu.repeat(4, 1)
        z[range(4), ORDER] = values[step]
        expected = np.rint(means_of(base, z) * 255).repeat(3, axis=1).repeat(3, axis=2)  # (4, 84, 84)
        places.append([_place(pixels, image) for image in expected])
    assert all(each == places[0] for each in places), "tiles stand still"
    rows, columns = zip(*places[0], strict=True)
    assert len(set(rows)) == 1
    assert min(np.diff(columns)) >= 84, "tiles do not overlap, and stand in the order of KL"


def _place(pixels: np.ndarray, wanted: np.ndarray) -> tuple[int, int]:
    """Where an array lies in a larger one, to within rounding; an error if that is not one place."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, wanted.shape)[:, :, ::7, ::7]
    rows, columns = np.nonzero((np.abs(windows - wanted[::7, ::7]) <= 1).all((2, 3)))
    ((row, column),) = zip(rows.tolist(), columns.tolist(), strict=True)
    assert np.abs(pixels[row : row + len(wanted), column : column + wanted.shape[1]] - wanted).max() <= 1
    return row, column


def test_the_animation_is_wide_enough_for_its_heading_and_starts_where_it_is_told(posteriors):
    model = seeded(ConditionalVAE, 4, hidden_dim=8)
    shows = visualizer(model)
    sizes = []
    for name in ("short", "a name that is longer than any row of tiles: " * 3):
        shows.name = name
        sizes.append(Image.open(io.BytesIO(traversal_animation(shows, posteriors, label=1, dimensions=[0]))).size)
    assert sizes[1][0] > sizes[0][0]
    assert traversal_animation(shows, posteriors, label=1) != traversal_animation(shows, posteriors, label=2)
    image = to_float(random_split().images[1])
    assert traversal_animation(shows, posteriors, image, 1) != traversal_animation(shows, posteriors, label=1)
