"""Figures follow the model's prior: units, quantiles, contours, rankings, pseudo-inputs; N(0, 1) is as before."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.contour import ContourSet
from PIL import Image
from scipy.stats import norm

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.models import (
    VAE,
    BaseVAE,
    ConditionalVAE,
    FlowPrior,
    MixturePrior,
    Posteriors,
    StandardPrior,
    VampPrior,
)
from fmvae.objectives import Density, StandardNormal
from fmvae.visualization import (
    check_figures,
    kl_per_dimension,
    latent_scatter,
    latent_traversal,
    prior_density,
    pseudo_inputs,
    result_animations,
    result_figures,
    traversal_animation,
)
from fmvae.visualization.density import SHARES, on_plane
from fmvae.visualization.latent import PRIOR_RADIUS, information_bound
from tests.visualization.helpers import (
    global_states,
    means_of,
    nearest,
    points_of,
    random_split,
    seeded,
    shown,
    tick_labels,
    tile_at,
    visualizer,
)

PRIORS = {
    "mixture": lambda z: MixturePrior(z, 3),
    "vamp": lambda z: VampPrior((1, 28, 28), 5),
    "flow": lambda z: FlowPrior(z, transforms=2, hidden=[8]),
}
HISTORY = [{"epoch": 1, "beta": 1.0, "train/objective": 3.0, "train/recon": 2.0, "train/kl": 1.0}]
MEAN, STD = [0.5, -2.0], [2.0, 0.25]


def with_prior(name: str, latent_dim: int, model_class: type[VAE] = BaseVAE) -> VAE:
    model = seeded(model_class, latent_dim, hidden_dim=8)
    with rng.seeded_init(1), torch.no_grad():
        model.latent_prior = PRIORS[name](latent_dim)
        for parameter in model.latent_prior.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def gaussian(model: VAE | None = None) -> VAE:
    """A model with the prior N(MEAN, STD^2), as a mixture of one component."""
    model = model or seeded(BaseVAE, 2, hidden_dim=16)
    prior = MixturePrior(2, 1)
    with torch.no_grad():
        prior.mu.copy_(torch.tensor([MEAN]))
        prior.logvar.copy_(2 * torch.tensor([STD]).log())
    model.latent_prior = prior
    return model


def settings(**changes) -> dict:
    return compose(["figures=default"])["figures"] | {"manifold_side": 3} | changes


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.one_in(2)
def test_every_figure_that_fits_the_prior_is_drawn(name, latent_dim, small_data):
    data, shows = small_data(), visualizer(with_prior(name, latent_dim))
    before = {key: tensor.clone() for key, tensor in shows.model.state_dict().items()}
    states = global_states()
    figures = dict(result_figures(shows, data, HISTORY, settings()))
    expected = {
        *("reconstructions", "samples", "latent_scatter", "traversal_prior", "traversal_posterior"),
        *("interpolations", "training_curves"),
        *(["latent_manifold", "prior_density"] if latent_dim == 2 else []),
        *(["pseudo_inputs"] if name == "vamp" else []),
    }
    assert set(figures) == expected
    assert len(list(result_animations(shows, data, settings()))) == 1
    for figure in figures.values():
        figure.draw_without_rendering()
    assert global_states() == states
    assert all(torch.equal(tensor, before[key]) for key, tensor in shows.model.state_dict().items())


@pytest.mark.parametrize("asked", ["kl_per_dimension", "prior_density", "pseudo_inputs"])
def test_figures_that_do_not_fit_the_prior_are_refused_in_one_line(asked, small_data):
    data = small_data()
    model = seeded(BaseVAE, 3, hidden_dim=4)
    if asked == "kl_per_dimension":
        check_figures(visualizer(model), data, settings(only=[asked]))  # N(0, 1) has it
        model.latent_prior = MixturePrior(3)
    with pytest.raises(ConfigError, match=f"^figures.only: '{asked}' is not a figure of .*; choose from [^\n]*$"):
        check_figures(visualizer(model), data, settings(only=[asked]))


def test_figures_called_by_hand_refuse_another_prior():
    posteriors = visualizer(gaussian()).posteriors(random_split())
    with pytest.raises(ValueError, match=r"only from the prior N\(0, 1\)"):
        kl_per_dimension(visualizer(gaussian()), posteriors)
    with pytest.raises(ValueError, match="has no pseudo-inputs: its prior is a MixturePrior"):
        pseudo_inputs(visualizer(gaussian()))
    shows = visualizer(seeded(BaseVAE, 3, hidden_dim=4))
    three = shows.posteriors(random_split())
    with pytest.raises(ValueError, match="z = 3: train with z = 2"):
        prior_density(shows, three)
    with pytest.raises(ValueError, match="max_tiles must be >= 1"):
        pseudo_inputs(visualizer(with_prior("vamp", 2)), 0)


# --- samples, traversals, the manifold ----------------------------------------------------------------------


def test_samples_are_of_the_models_prior():
    model = gaussian()
    array = shown(visualizer(model, seed=3).generate_samples(4))
    z = model.prior_density().sample(4, rng.stream(3, "sampling")).detach()
    for index, mean in enumerate(means_of(model, z)):
        np.testing.assert_allclose(tile_at(array, *divmod(index, 2)), mean, atol=1e-6)


def test_traversals_are_in_standard_deviations_around_the_prior_mean():
    model = gaussian()
    shows = visualizer(model)
    posteriors = shows.posteriors(random_split())
    order = np.argsort(-information_bound(posteriors), kind="stable").tolist()
    figure = latent_traversal(shows, posteriors, span=2.0, steps=5)
    for row, dimension in enumerate(order):
        z = torch.tensor([MEAN]).repeat(5, 1)
        z[:, dimension] += STD[dimension] * torch.tensor([-2.0, -1, 0, 1, 2])
        for column, mean in enumerate(means_of(model, z)):
            np.testing.assert_allclose(tile_at(shown(figure), row, column), mean, atol=1e-6)
    (axes,) = figure.axes
    assert tick_labels(axes.xaxis) == ["-2σ", "-1σ", "0σ", "1σ", "2σ"]
    assert "0 and σ: the prior's mean and standard deviation" in figure.get_supxlabel()
    assert "at the prior mean" in figure.get_supxlabel()
    bound = information_bound(posteriors)
    assert tick_labels(axes.yaxis) == [f"z{d}  MI ≤ {bound[d]:.2f}" for d in order]
    image = random_split().images[0] / 255
    figure = latent_traversal(shows, posteriors, image, 0, span=50.0)  # so wide that both lie within
    own = figure.axes[1]
    ((x, _),) = (line.get_data() for line in own.lines)
    standardized = (shows.encode_means(image[None], torch.tensor([0]))[0].numpy() - MEAN) / STD
    expected = np.interp(standardized[order], np.linspace(-50, 50, 9), own.get_xticks())
    np.testing.assert_allclose(np.asarray(x), expected, atol=1e-3)
    assert "absolute" not in figure.get_supxlabel()


def test_the_animation_starts_at_the_prior_mean():
    model = gaussian()
    shows = visualizer(model)
    posteriors = shows.posteriors(random_split())
    options = {"steps": 3, "scale": 1, "dimensions": [1]}
    frames = Image.open(io.BytesIO(traversal_animation(shows, posteriors, **options)))
    frames.seek(0)
    expected = np.rint(means_of(model, torch.tensor([[MEAN[0], MEAN[1] - 3 * STD[1]]]))[0] * 255)
    pixels = np.asarray(frames.convert("L")).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (28, 28))
    assert (np.abs(windows - expected).max((2, 3)) <= 1).sum() == 1
    model.latent_prior = StandardPrior()
    assert traversal_animation(shows, posteriors, **options) != traversal_animation(
        visualizer(gaussian(model)), posteriors, **options
    )


def test_more_dimensions_than_ten_are_ranked_by_the_bound_on_their_information():
    model = seeded(BaseVAE, 12, hidden_dim=4)
    model.latent_prior = MixturePrior(12, 3)
    shows = visualizer(model)
    posteriors = shows.posteriors(random_split())
    scale = torch.linspace(0.1, 4, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    wide = posteriors._replace(mu=torch.randn(60, 12, generator=torch.Generator().manual_seed(1)) * scale)
    figure = latent_traversal(shows, wide, steps=2)
    assert "Traversal of the 10 dimensions of largest MI bound" in figure.get_suptitle()
    order = np.argsort(-information_bound(wide), kind="stable")[:10]
    assert [name.split()[0] for name in tick_labels(figure.axes[0].yaxis)] == [f"z{d}" for d in order]


def test_the_bound_is_above_the_mutual_information_and_meets_it_for_gaussians():
    """For a Gaussian aggregate posterior it is the mutual information; for two clusters that is at most log 2."""
    generator = torch.Generator().manual_seed(0)
    num, sigma = 100_000, 0.5
    mu = torch.stack([torch.randn(num, generator=generator), 5.0 * (torch.arange(num) % 2)], 1).double()
    posteriors = Posteriors(mu, torch.full((num, 2), 2 * np.log(sigma)).double(), torch.zeros(num))
    gaussian_bound, of_clusters = information_bound(posteriors)
    assert gaussian_bound == pytest.approx(0.5 * np.log(1 + 1 / sigma**2), abs=0.01)
    assert of_clusters > np.log(2) + 0.5
    nothing = posteriors._replace(mu=torch.zeros(num, 2))
    np.testing.assert_allclose(information_bound(nothing), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_the_manifold_is_at_quantiles_of_the_prior(name):
    model = gaussian() if name == "mixture" else with_prior("flow", 2)
    figure = visualizer(model).latent_manifold(4)
    shares = (np.arange(4) + 0.5) / 4
    if name == "mixture":
        q0, q1 = (MEAN[d] + STD[d] * norm.ppf(shares) for d in (0, 1))
    else:
        with torch.no_grad():
            draws = model.prior_density().sample(200_000, torch.Generator().manual_seed(5)).numpy()
        q0, q1 = np.quantile(draws, shares, axis=0).T
    z = torch.tensor([[x, y] for y in q1[::-1] for x in q0], dtype=torch.float32)
    expected = means_of(model, z).reshape(4, 4, 28, 28).swapaxes(1, 2).reshape(112, 112)
    found = shown(figure)
    np.testing.assert_allclose(found, expected, atol=1e-5 if name == "mixture" else 5e-3)
    flat = norm.ppf(shares)
    z = torch.tensor([[x, y] for y in flat[::-1] for x in flat], dtype=torch.float32)
    other = means_of(model, z).reshape(4, 4, 28, 28).swapaxes(1, 2).reshape(112, 112)
    assert np.abs(found - other).max() > 2e-2  # those of N(0, 1) would be seen
    if name == "mixture":
        ticks, names = figure.axes[0].get_xticks(), tick_labels(figure.axes[0].xaxis)
        assert len(names) > 2
        below = norm.cdf((np.array(names, float) - MEAN[0]) / STD[0])
        np.testing.assert_allclose(ticks, below * 112 - 0.5, atol=1e-6)


# --- the scatter and the density ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["standard", *PRIORS])
def test_contours_hold_their_shares_of_the_prior(name):
    model = seeded(BaseVAE, 2, hidden_dim=4) if name == "standard" else with_prior(name, 2)
    density = model.prior_density()
    points = np.array([[-9.0, 0.0], [0.0, 12.0]])
    plane = on_plane(density, points)
    assert plane.z0[0] < -9
    assert plane.z1[-1] > 12
    with torch.no_grad():
        draws = density.sample(50_000, torch.Generator().manual_seed(7))
        p = density.log_prob(draws).exp()
        corner = density.log_prob(torch.tensor([[plane.z0[3], plane.z1[150]]])).exp()
    np.testing.assert_allclose(plane.p[150, 3], corner[0], rtol=1e-6)
    for level, share in zip(plane.levels, SHARES, strict=True):
        assert float((p > level).double().mean()) == pytest.approx(share, abs=0.012)
    if name == "standard":
        assert isinstance(density, StandardNormal)
        radius = torch.tensor([[PRIOR_RADIUS, 0.0]])
        assert plane.levels[0] == pytest.approx(float(density.log_prob(radius).exp()), rel=0.05)


def test_the_scatter_has_contours_for_two_dimensions_and_says_what_it_leaves_out():
    split = random_split()

    def scatter(model: VAE):
        shows = visualizer(model)
        return latent_scatter(shows, shows.posteriors(split))

    two = scatter(gaussian()).axes[0]
    assert not two.patches  # no circle
    _check_contours(two, two, gaussian().prior_density())
    for latent_dim in (1, 3):
        figure = scatter(with_prior("mixture", latent_dim))
        (axes,) = figure.axes
        assert not axes.patches
        assert not axes.lines
        assert figure.get_suptitle().endswith("\nthe prior is not N(0, 1), and is not drawn")
        legend = axes.get_legend()
        assert legend is not None
        assert not any("prior" in text.get_text() for text in legend.get_texts())
    figure = scatter(seeded(BaseVAE, 2, hidden_dim=16))
    (standard,) = figure.axes
    assert len(standard.patches) == 1
    assert not any(isinstance(artist, ContourSet) for artist in standard.collections)
    assert "not drawn" not in figure.get_suptitle()


def _check_contours(axes: Any, legend_of: Any, density: Density) -> None:
    """A line of the legend looks like the contour at the level that holds its share of the prior."""
    contours: Any = next(artist for artist in axes.collections if isinstance(artist, ContourSet))
    with torch.no_grad():
        p = density.log_prob(density.sample(50_000, torch.Generator().manual_seed(7))).exp().numpy()
    held = [(p > level).mean() for level in np.asarray(contours.levels)]
    assert held == pytest.approx([0.95, 0.8, 0.5], abs=0.012)
    texts = [text.get_text() for text in legend_of.get_legend().get_texts()]
    assert texts[-3:] == ["holds 50% of the prior", "holds 80% of the prior", "holds 95% of the prior"]
    lines = legend_of.get_legend().legend_handles[:-4:-1]  # 95, 80, 50
    assert [line.get_linewidth() for line in lines] == list(contours.get_linewidths())
    dashed = [dashes is not None for _, dashes in contours.get_linestyles()]
    assert dashed == [line.get_linestyle() == "--" for line in lines] == [True, False, False]
    assert len(set(zip(contours.get_linewidths(), dashed, strict=True))) == 3  # all three can be told apart


def test_the_density_stands_beside_the_posterior_means_on_the_same_axes():
    model, split = gaussian(), random_split()
    shows = visualizer(model)
    posteriors = shows.posteriors(split)
    figure = prior_density(shows, posteriors)
    left, right = figure.axes[:2]
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    mesh = next(artist for artist in left.collections if not isinstance(artist, ContourSet))
    values = np.asarray(mesh.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    plane = on_plane(model.prior_density(), posteriors.mu.numpy())
    assert abs(plane.z0[column] - MEAN[0]) < 0.1  # where the prior has its mean
    assert abs(plane.z1[row] - MEAN[1]) < 0.1
    for axes in (left, right):
        _check_contours(axes, right, model.prior_density())
    positions = np.asarray(next(a for a in right.collections if not isinstance(a, ContourSet)).get_offsets())
    assert sorted(nearest(positions, posteriors.mu.numpy())) == list(range(60))
    scattered, _ = points_of(latent_scatter(shows, posteriors))
    np.testing.assert_array_equal(positions, scattered)  # the same images, in the same order
    assert "60 test images: BaseVAE, z = 2" in figure.get_suptitle()
    few = prior_density(shows, posteriors, max_points=7).axes[1].collections[0]
    assert np.asarray(few.get_offsets()).shape == (7, 2)
    with pytest.raises(ValueError, match="max_points 0 of 60 images"):
        prior_density(shows, posteriors, max_points=0)


def test_a_narrow_peak_does_not_hide_the_rest_of_the_density():
    """Of two equal halves, one a thousand times as dense, both are in colour; a linear scale would show one."""
    model = gaussian()
    model.latent_prior = prior = MixturePrior(2, 2)
    with torch.no_grad():
        prior.mu.copy_(torch.tensor([[-3.0, 0.0], [3.0, 0.0]]))
        prior.logvar.copy_(2 * torch.tensor([[1.0, 1.0], [0.03, 0.03]]).log())
    shows = visualizer(model)
    figure = prior_density(shows, shows.posteriors(random_split()))
    (mesh,) = (artist for artist in figure.axes[0].collections if isinstance(artist, QuadMesh))
    density = model.prior_density()
    wide, far = density.log_prob(torch.tensor([[-3.0, 0.0], [-3.0, 9.0]])).exp().tolist()
    shade_wide, shade_far = np.asarray(mesh.norm(np.array([wide, far])))
    assert shade_wide > 0.3
    assert shade_far < 0
    assert wide / np.asarray(mesh.get_array()).max() < 0.01  # its shade on a linear scale
    assert figure.axes[2].get_ylabel() == "p(z), on a logarithmic scale"
    figure.draw_without_rendering()
    bar, panel = (figure.axes[i].get_window_extent() for i in (2, 0))
    assert 0 < panel.x0 - bar.x1 < 0.9 * figure.dpi  # inches, with ticks and a label between


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_of_the_manifold_are_pale_where_the_prior_has_no_mass(channels):
    """A prior on the diagonal: each dimension has its two quantiles, but only two of four corners have mass."""
    model = seeded(BaseVAE, 2, hidden_dim=16, image_shape=(channels, 28, 28))
    model.latent_prior = prior = MixturePrior(2, 2)
    with torch.no_grad():
        prior.mu.copy_(torch.tensor([[-3.0, -3.0], [3.0, 3.0]]))
        prior.logvar.copy_(2 * torch.full((2, 2), 0.5).log())
    shows = visualizer(model)

    def rendered(figure) -> np.ndarray:
        """The mean intensity of each tile (2, 2), as drawn."""
        file = io.BytesIO()
        figure.savefig(file, dpi=100)
        pixels = np.asarray(Image.open(file).convert("L")).astype(float)
        box = figure.axes[0].get_window_extent()
        rows = pixels[::-1][round(box.y0) + 5 : round(box.y1) - 5, round(box.x0) + 5 : round(box.x1) - 5][::-1]
        return np.array([[part.mean() for part in np.array_split(half, 2, 1)] for half in np.array_split(rows, 2)])

    figure = shows.latent_manifold(2)
    seen = rendered(figure)
    title = figure.axes[0].get_title()
    assert title == "Latent manifold: BaseVAE, z = 2\npale: outside the contour that holds 95% of the prior"
    assert figure.axes[0].get_xlabel() == "z0 (equal shares of the prior in each dimension alone)"
    figure.axes[0].images[1].remove()
    plain = rendered(figure)
    pale = np.array([[True, False], [False, True]])  # z1 upwards
    np.testing.assert_allclose(seen[~pale], plain[~pale], atol=0.01)
    np.testing.assert_allclose(seen[pale], 0.25 * plain[pale] + 0.75 * 255, atol=2)
    assert (seen - plain)[pale].min() > 50  # the control: it would be seen
    model.latent_prior = StandardPrior()
    standard = shows.latent_manifold(2).axes[0]
    assert len(standard.images) == 1
    assert (standard.get_title(), standard.get_xlabel()) == (
        "Latent manifold: BaseVAE, z = 2",
        "z0 (equal shares of the prior)",
    )


def test_pseudo_inputs_are_shown_as_images():
    model = with_prior("vamp", 2)
    figure = pseudo_inputs(visualizer(model))
    array, images = shown(figure), model.get_parameter("latent_prior.logits").detach().sigmoid()[:, 0].numpy()
    assert array.shape == (2 * 29, 3 * 29)
    for index in range(5):
        np.testing.assert_allclose(tile_at(array, *divmod(index, 3)), images[index], atol=1e-6)
    assert figure.get_suptitle() == "5 pseudo-inputs of the VampPrior\nBaseVAE, z = 2"
    few = pseudo_inputs(visualizer(model), 4)
    assert few.get_suptitle().startswith("4 of 5 pseudo-inputs")
    assert shown(few).shape == (2 * 29, 2 * 29)


def test_a_conditional_model_may_have_another_prior_that_does_not_encode():
    shows = visualizer(with_prior("flow", 2, ConditionalVAE))
    assert shown(shows.generate_samples(10)).shape == (10 * 29, 29)
    assert shown(shows.latent_manifold(2, label=3)).shape == (56, 56)
