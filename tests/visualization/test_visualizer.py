"""The figures hold what the model says, and looking at a model leaves no trace."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fmvae import rng
from fmvae.data import CLASS_NAMES
from fmvae.data.split import Split, to_float
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE
from fmvae.objectives import Bernoulli, ContinuousBernoulli
from fmvae.visualization import VAEVisualizer
from tests.visualization.helpers import (
    global_states,
    means_of,
    points_of,
    random_split,
    seeded,
    shown,
    tick_labels,
    tile_at,
    visualizer,
)


@pytest.fixture
def base() -> VAE:
    return seeded(BaseVAE, 2, hidden_dim=16)


@pytest.fixture
def conditional() -> VAE:
    return seeded(ConditionalVAE, 2, hidden_dim=16)


@pytest.fixture
def split() -> Split:
    return random_split()


# --- reconstructions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", [BaseVAE, BetaVAE, ConditionalVAE])
def test_reconstructions_are_at_the_posterior_mean(model_class, split):
    model = seeded(model_class, 3)
    x, labels = to_float(split.images[:7]), split.labels[:7]
    figure = visualizer(model).show_reconstructions(x, labels)
    with torch.no_grad():
        mu, logvar = model.eval().encode(x, labels)
    array = shown(figure)
    assert array.shape == (2 * 29, 7 * 29)
    for column in range(7):
        np.testing.assert_array_equal(tile_at(array, 0, column), x[column, 0])
        np.testing.assert_allclose(tile_at(array, 1, column), means_of(model, mu, labels)[column], atol=1e-6)
    elsewhere = means_of(model, mu + (0.5 * logvar).exp(), labels)[0]  # one standard deviation off
    assert np.abs(tile_at(array, 1, 0) - elsewhere).max() > 1e-4


def test_reconstructions_go_through_the_likelihood(base, split):
    x, labels = to_float(split.images[:2]), split.labels[:2]
    likelihood = ContinuousBernoulli()
    array = shown(visualizer(base, likelihood=likelihood).show_reconstructions(x, labels))
    with torch.no_grad():
        logits = base.eval().decode(base.encode(x)[0])
    np.testing.assert_allclose(tile_at(array, 1, 0), likelihood.mean(logits)[0, 0], atol=1e-6)
    assert np.abs(tile_at(array, 1, 0) - logits.sigmoid()[0, 0].numpy()).max() > 1e-3


def test_reconstructions_wrap_after_ten_and_name_their_classes(base, split):
    x = to_float(split.images[:13])
    figure = visualizer(base).show_reconstructions(x, split.labels[:13])
    assert len(figure.axes) == 2
    assert tick_labels(figure.axes[0].xaxis) == list(CLASS_NAMES)
    assert tick_labels(figure.axes[1].xaxis) == list(CLASS_NAMES[:3])
    assert tick_labels(figure.axes[1].yaxis) == ["original", "reconstruction"]
    np.testing.assert_array_equal(tile_at(shown(figure, 1), 0, 2), x[12, 0])
    assert np.isnan(tile_at(shown(figure, 1), 0, 3)).all()
    assert np.isnan(tile_at(shown(figure, 1), 1, 3)).all()
    assert figure.axes[0].xaxis.get_ticks_position() == "top"
    # a name stands over the middle of its image
    np.testing.assert_allclose(figure.axes[0].get_xticks(), [13.5 + 29 * column for column in range(10)])


def test_not_square_images_are_tiled_whole():
    model = seeded(BaseVAE, 2, hidden_dim=4, image_shape=(1, 6, 9))
    x = torch.rand(3, 1, 6, 9, generator=torch.Generator().manual_seed(0))
    array = shown(visualizer(model).show_reconstructions(x, torch.tensor([0, 1, 2])))
    assert array.shape == (2 * 7, 3 * 10)
    np.testing.assert_array_equal(array[:6, 10:19], x[1, 0])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(0, 1, 28, 28), torch.zeros(0), r"images \(0, 1, 28, 28\)"),
        (torch.zeros(2, 28, 28), torch.zeros(2), r"images \(2, 28, 28\)"),
        (torch.zeros(2, 1, 28, 28), torch.zeros(3), r"labels \(3,\)"),
        (torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), torch.zeros(1), r"\[255, 255\].*scale"),
        (torch.full((1, 1, 28, 28), -0.5), torch.zeros(1), r"\[-0.5, -0.5\].*scale"),
        (torch.full((1, 1, 28, 28), torch.nan), torch.zeros(1), r"nan.*scale"),
        (torch.zeros(2, 1, 28, 28), torch.tensor([0, 10]), "label 10 with 10 class_names"),
        (torch.zeros(2, 1, 28, 28), torch.tensor([-1, 0]), "label -1"),
    ],
)
def test_reconstructions_refuse_what_they_cannot_show(base, images, labels, message):
    with pytest.raises(ValueError, match=message):
        visualizer(base).show_reconstructions(images, labels.long())


# --- samples ------------------------------------------------------------------------------------------------


def test_samples_are_decoder_means_of_the_seeded_prior(base):
    array = shown(visualizer(base, seed=3).generate_samples(7))  # 3 columns, 3 rows, two tiles left over
    z = torch.randn(7, 2, generator=rng.stream(3, "sampling"))
    assert array.shape == (3 * 29, 3 * 29)
    for index, mean in enumerate(means_of(base, z)):
        np.testing.assert_allclose(tile_at(array, *divmod(index, 3)), mean, atol=1e-6)
    assert np.isnan(array[58:, 29:]).all()


def test_samples_of_a_conditional_model_follow_the_classes(conditional):
    figure = visualizer(conditional).generate_samples(64)  # 64 // 10 = 6 to a row
    array = shown(figure)
    assert array.shape == (10 * 29, 6 * 29)
    labels = torch.arange(10).repeat_interleave(6)
    z = torch.randn(60, 2, generator=rng.stream(0, "sampling"))
    means = means_of(conditional, z, labels)
    for index, mean in enumerate(means):
        np.testing.assert_allclose(tile_at(array, *divmod(index, 6)), mean, atol=1e-6)
    assert tick_labels(figure.axes[0].yaxis) == list(CLASS_NAMES)
    np.testing.assert_allclose(figure.axes[0].get_yticks(), [13.5 + 29 * row for row in range(10)])
    wrong = means_of(conditional, z, labels.flip(0))
    assert np.abs(tile_at(array, 0, 0) - wrong[0]).max() > 1e-3


def test_a_conditional_model_shows_every_class_at_least_once(conditional):
    assert shown(visualizer(conditional).generate_samples(3)).shape == (10 * 29, 29)


def test_samples_depend_on_the_seed_alone(base):
    first = shown(visualizer(base, seed=1).generate_samples(9))
    torch.randn(5)
    np.testing.assert_array_equal(first, shown(visualizer(base, seed=1).generate_samples(9)))
    assert not np.array_equal(first, shown(visualizer(base, seed=2).generate_samples(9)), equal_nan=True)


@pytest.mark.parametrize("num_samples", [0, -1])
def test_no_samples_is_an_error(base, num_samples):
    with pytest.raises(ValueError, match=f"num_samples must be >= 1, got {num_samples}"):
        visualizer(base).generate_samples(num_samples)


# --- manifold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 4, 5])
def test_the_manifold_is_decoded_at_the_quantiles_of_the_prior(base, side):
    array = shown(visualizer(base).latent_manifold(side))
    assert array.shape == (28 * side, 28 * side)
    assert np.isfinite(array).all()
    quantiles = norm.ppf((np.arange(side) + 0.5) / side)
    for row in range(side):
        for column in range(side):
            z = torch.tensor([[quantiles[column], quantiles[side - 1 - row]]], dtype=torch.float32)  # z1 upwards
            np.testing.assert_allclose(tile_at(array, row, column, 28), means_of(base, z)[0], atol=1e-5)


def test_the_axes_of_the_manifold_are_ticked_where_the_values_are(base):
    axes = visualizer(base).latent_manifold(20).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z0 (equal shares of the prior)", "z1")
    values = [float(text) for text in tick_labels(axes.xaxis)]
    assert values == [-1.5, -1, -0.5, 0, 0.5, 1, 1.5]
    # the centre of tile i is at the quantile (i + 0.5) / side, and so is a tick of that value
    np.testing.assert_allclose((axes.get_xticks() + 0.5) / (20 * 28), norm.cdf(values))
    np.testing.assert_allclose((axes.get_yticks() + 0.5) / (20 * 28), 1 - norm.cdf(values))


def test_the_manifold_of_a_conditional_model_is_of_one_class(conditional):
    figure = visualizer(conditional).latent_manifold(3, label=8)
    middle = means_of(conditional, torch.zeros(1, 2), torch.tensor([8]))[0]
    np.testing.assert_allclose(tile_at(shown(figure), 1, 1, 28), middle, atol=1e-6)
    assert "Bag" in figure.axes[0].get_title()
    other = shown(visualizer(conditional).latent_manifold(3, label=0))
    assert np.abs(tile_at(other, 1, 1, 28) - middle).max() > 1e-3


@pytest.mark.parametrize("label", [None, -1, 10])
def test_the_manifold_of_a_conditional_model_needs_a_class(conditional, label):
    with pytest.raises(ValueError, match=rf"label {label}: .* \[0, 10\)"):
        visualizer(conditional).latent_manifold(3, label)


def test_the_manifold_refuses_a_needless_label_and_an_empty_grid(base):
    with pytest.raises(ValueError, match=r"label 3 .* leave it out"):
        visualizer(base).latent_manifold(3, label=3)
    with pytest.raises(ValueError, match="side must be >= 1, got 0"):
        visualizer(base).latent_manifold(0)


@pytest.mark.parametrize("latent_dim", [1, 3, 10])
def test_only_a_plane_is_drawn_as_a_manifold(latent_dim):
    with pytest.raises(ValueError, match=f"z = {latent_dim}: train with z = 2"):
        visualizer(seeded(BaseVAE, latent_dim, hidden_dim=4)).latent_manifold(2)


# --- what all share -----------------------------------------------------------------------------------------

METHODS = {
    "show_reconstructions": lambda shows, split: shows.show_reconstructions(
        to_float(split.images[:3]), split.labels[:3]
    ),
    "generate_samples": lambda shows, split: shows.generate_samples(4),
    "latent_manifold": lambda shows, split: shows.latent_manifold(2),
    "latent_scatter": lambda shows, split: shows.latent_scatter(split),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_looking_leaves_no_trace(method, training, split):
    model = seeded(BetaVAE, 2).train(training)  # its batch norm would keep statistics of what it saw
    frozen = next(layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    frozen.train(not training)  # a layer in a mode of its own keeps it
    modes = [layer.training for layer in model.modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states, grad = global_states(), torch.is_grad_enabled()
    METHODS[method](visualizer(model), split)
    assert global_states() == states
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled() == grad
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_shown_does_not_depend_on_the_mode_the_model_is_in(method, split):
    model = seeded(BetaVAE, 2)
    arrays = []
    for training in (True, False):
        figure = METHODS[method](visualizer(model.train(training)), split)
        arrays.append(points_of(figure)[0] if method == "latent_scatter" else shown(figure))
    np.testing.assert_array_equal(*arrays)


def test_the_mode_is_restored_after_an_error(base, split, monkeypatch):
    def fail(*_):
        raise RuntimeError("no decoder")

    monkeypatch.setattr(base.train(), "decode", fail)
    with pytest.raises(RuntimeError, match="no decoder"):
        visualizer(base).generate_samples(4)
    assert base.training


@pytest.mark.parametrize("method", METHODS)
def test_titles_name_the_model(method, base, split):
    figure = METHODS[method](visualizer(base), split)
    title = figure.axes[0].get_title() or figure.get_suptitle()
    assert "BaseVAE, z = 2" in title


def test_models_it_cannot_show_are_refused():
    with pytest.raises(ValueError, match=r"image_shape \(2, 8, 8\): pictures show 1 channel"):
        visualizer(seeded(BaseVAE, 2, hidden_dim=4, image_shape=(2, 8, 8)))
    with pytest.raises(ValueError, match="ConditionalVAE takes labels: name each class"):
        VAEVisualizer(seeded(ConditionalVAE, 2, hidden_dim=4), Bernoulli(), class_names=None)
    with pytest.raises(ValueError, match="10 class_names, 4 classes"):
        visualizer(seeded(ConditionalVAE, 2, num_classes=4, hidden_dim=4))


def test_pyplot_is_not_imported():
    code = "import sys, fmvae.visualization; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
