"""Points stand where the posteriors are, principal components are an eigendecomposition's, and KL is counted."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex

from fmvae.data import CLASS_NAMES
from fmvae.data.split import Split, to_float
from fmvae.models import BaseVAE, BetaVAE, ConditionalVAE, VampPrior
from fmvae.models.posterior import Posteriors
from fmvae.objectives import Bernoulli
from fmvae.visualization import VAEVisualizer, kl_per_dimension, latent_scatter
from fmvae.visualization.latent import ACTIVE_COLOUR, INACTIVE_COLOUR, PRIOR_INTERVAL, principal_components
from tests.visualization.helpers import nearest, points_of, random_split, seeded, tick_labels, visualizer
from tests.visualization.test_titles import cut_off


@pytest.fixture
def base():
    return seeded(BaseVAE, 2, hidden_dim=16)


@pytest.fixture
def split():
    return random_split()


def made_up(num_images: int, scales: list[float]) -> Posteriors:
    """Posteriors with a mean of 0.3 and these standard deviations of mu."""
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn(num_images, len(scales), generator=generator)
    mu = (mu - mu.mean(0)) / mu.std(0, correction=0) * torch.tensor(scales) + 0.3
    logvar = torch.rand(num_images, len(scales), generator=generator) - 1
    return Posteriors(mu, logvar, torch.arange(num_images) % 10)


@pytest.mark.parametrize("model_class", [BaseVAE, BetaVAE, ConditionalVAE])
def test_the_scatter_shows_each_posterior_mean_in_its_class_colour(model_class, split):
    model = seeded(model_class, 2)
    positions, colours = points_of(visualizer(model).latent_scatter(split))
    with torch.no_grad():
        mu = model.eval().encode(to_float(split.images), split.labels)[0].numpy()
    index = nearest(positions, mu)
    assert sorted(index) == list(range(len(split)))  # every image once
    tab10 = colormaps["tab10"](split.labels.numpy())[:, :3]
    np.testing.assert_array_equal(colours, tab10[index])
    assert not np.array_equal(colours, np.roll(tab10, 1, axis=0)[index])


def test_the_scatter_is_labelled_and_its_legend_outside(base, split):
    figure = visualizer(base).latent_scatter(split)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("z0", "z1", 1.0)
    assert figure.get_suptitle() == "Posterior means of 60 test images: BaseVAE, z = 2"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][:10] == list(CLASS_NAMES)
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    handles = [handle.get_color() for handle in legend.legend_handles[:10]]  # type: ignore[union-attr]
    np.testing.assert_allclose(handles, colormaps["tab10"](np.arange(10)))
    assert legend.get_texts()[-1].get_text() == "95% of the prior N(0, 1)\nlies in this circle"


@pytest.mark.parametrize(
    ("latent_dim", "words"), [(1, "lies between these lines"), (3, "projected like the means,")]
)
def test_the_legend_says_what_is_dashed(latent_dim, words, split):
    legend = visualizer(seeded(BaseVAE, latent_dim, hidden_dim=8)).latent_scatter(split).axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[-1].get_text().split("\n")[1] == words
    assert legend.legend_handles[-1].get_linestyle() == "--"  # type: ignore[union-attr]


def test_the_scatter_of_a_large_split_is_a_random_subset(base):
    unsorted = random_split(100)
    order = unsorted.labels.argsort(stable=True)
    by_class = Split("test", unsorted.images[order], unsorted.labels[order])
    positions, colours = points_of(visualizer(base).latent_scatter(by_class, max_points=50))
    assert len(positions) == 50
    assert len(np.unique(colours, axis=0)) == 10  # not the first classes alone
    with torch.no_grad():
        mu = base.eval().encode(to_float(by_class.images))[0].numpy()
    assert len(set(nearest(positions, mu))) == 50
    again, _ = points_of(visualizer(base).latent_scatter(by_class, max_points=50))
    np.testing.assert_array_equal(positions, again)
    other, _ = points_of(visualizer(base, seed=1).latent_scatter(by_class, max_points=50))
    assert not np.array_equal(positions, other)


def test_the_circle_holds_95_percent_of_the_prior(base, split):
    (circle,) = visualizer(base).latent_scatter(split).axes[0].patches
    z = np.random.default_rng(0).standard_normal((100_000, 2))
    assert abs((np.linalg.norm(z, axis=1) < circle.get_radius()).mean() - 0.95) < 0.005  # type: ignore[attr-defined]


def test_the_scatter_refuses_nothing_to_show(base, split):
    with pytest.raises(ValueError, match="max_points 0 of 60 images"):
        visualizer(base).latent_scatter(split, max_points=0)
    with pytest.raises(ValueError, match="of 0 images"):
        visualizer(base).latent_scatter(Split("test", split.images[:0], split.labels[:0]))


@pytest.mark.parametrize("latent_dim", [3, 10])
def test_more_dimensions_are_projected_onto_principal_components(latent_dim):
    scales = [0.2 + dimension for dimension in range(latent_dim)]
    posteriors = made_up(300, scales)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((latent_dim, latent_dim)))
    mu = posteriors.mu.numpy() @ rotation.astype(np.float32)
    shows = visualizer(seeded(BaseVAE, latent_dim, hidden_dim=4))
    figure = latent_scatter(shows, posteriors._replace(mu=torch.from_numpy(mu)))
    positions, colours = points_of(figure)

    # independent: eigenvectors of the covariance, up to their signs
    values, vectors = np.linalg.eigh(np.cov(mu.T.astype(np.float64), ddof=0))
    expected = (mu - mu.mean(0)) @ vectors[:, [-1, -2]]
    signs = [1, -1]
    matching = [(a, b) for a in signs for b in signs if _same_points(positions, expected * (a, b))]
    assert len(matching) == 1
    index = nearest(positions, expected * matching[0])
    tab10 = colormaps["tab10"](posteriors.labels.numpy())[:, :3]
    np.testing.assert_array_equal(colours, tab10[index])
    shares = values[[-1, -2]] / values.sum()
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"PC1  ({shares[0]:.1%} of variance)"
    assert axes.get_ylabel() == f"PC2  ({shares[1]:.1%} of variance)"
    origin = (-mu.mean(0)) @ vectors[:, [-1, -2]] * matching[0]
    np.testing.assert_allclose(axes.patches[0].get_center(), origin, atol=1e-4)  # type: ignore[attr-defined]


def _same_points(positions: np.ndarray, expected: np.ndarray) -> bool:
    distances = np.linalg.norm(positions[:, None] - expected[None], axis=2)
    return bool((distances.min(1) < 1e-4).all())


def test_components_have_a_fixed_sign_and_survive_points_that_are_one():
    points = np.random.default_rng(0).standard_normal((50, 4)) * [1, 5, 1, 3]
    coordinates, _, shares = principal_components(points)
    mirrored, _, _ = principal_components(-points)
    np.testing.assert_allclose(coordinates, -mirrored)  # the same axes, not the axes turned with the points
    assert shares[0] > shares[1] > 0
    for same in (np.ones((5, 4)), np.ones((1, 4))):
        coordinates, origin, shares = principal_components(same)
        np.testing.assert_array_equal(coordinates, 0)
        np.testing.assert_array_equal(shares, 0)
        assert np.isfinite(origin).all()


def test_one_dimension_is_a_strip_per_class(split):
    model = seeded(BaseVAE, 1, hidden_dim=16)
    figure = visualizer(model).latent_scatter(split)
    positions, colours = points_of(figure)
    with torch.no_grad():
        mu = model.eval().encode(to_float(split.images))[0][:, 0].numpy()
    index = np.abs(positions[:, :1] - mu[None]).argmin(1)
    np.testing.assert_allclose(positions[:, 0], mu[index], atol=1e-5)
    assert sorted(index) == list(range(len(split)))
    labels = split.labels.numpy()[index]
    assert np.abs(positions[:, 1] - labels).max() <= 0.35
    assert np.abs(positions[:, 1] - labels).std() > 0.05
    np.testing.assert_array_equal(colours, colormaps["tab10"](labels)[:, :3])
    axes = figure.axes[0]
    assert tick_labels(axes.yaxis) == list(CLASS_NAMES)
    assert [line.get_xdata()[0] for line in axes.lines] == [-PRIOR_INTERVAL, PRIOR_INTERVAL]  # type: ignore[index]
    z = np.random.default_rng(0).standard_normal(100_000)
    assert abs((np.abs(z) < PRIOR_INTERVAL).mean() - 0.95) < 0.005


# --- KL per dimension ---------------------------------------------------------------------------------------


def test_bars_are_the_mean_kl_sorted_and_active_units_are_marked():
    posteriors = made_up(200, [0.05, 2.0, 0.11, 1.0])  # variances 0.0025, 4, 0.0121, 1: the first is inactive
    figure = kl_per_dimension(visualizer(seeded(BaseVAE, 4, hidden_dim=4)), posteriors)
    normal = torch.distributions.Normal
    posterior = normal(posteriors.mu.double(), (0.5 * posteriors.logvar.double()).exp())
    expected = torch.distributions.kl_divergence(posterior, normal(0.0, 1.0)).mean(0).numpy()
    order = np.argsort(-expected)
    (axes,) = figure.axes
    bars = axes.patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], expected[order], rtol=1e-6)  # type: ignore
    assert tick_labels(axes.xaxis) == [f"z{dimension}" for dimension in order]
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert colours == [INACTIVE_COLOUR if dimension == 0 else ACTIVE_COLOUR for dimension in order]
    assert "3 of 4 units active" in figure.get_suptitle()
    assert f"{expected.sum():.2f} nats" in figure.get_suptitle()
    assert axes.get_ylabel() == "KL (nats per image)"


@pytest.mark.parametrize(("num_classes", "prior"), [(62, "standard"), (62, "vamp"), (1000, "standard")])
def test_the_names_of_many_classes_leave_room_for_the_panel(num_classes, prior, monkeypatch):
    model = seeded(BaseVAE, 2, hidden_dim=8)
    if prior == "vamp":
        model.latent_prior = VampPrior((1, 28, 28), 3)
    names = [f"class {i}" for i in range(num_classes)]
    shows = VAEVisualizer(model, Bernoulli(), class_names=names, name="base, z = 2")
    split = random_split(200)

    def drawn() -> tuple[float, float, list[str]]:
        """Inches beyond an edge, the panel's smaller side, and the legend."""
        figure = shows.latent_scatter(split)
        beyond, axes = cut_off(figure), figure.axes[0]
        side = min(axes.get_window_extent().width, axes.get_window_extent().height) / figure.dpi
        legend = axes.get_legend()
        assert legend
        return beyond, side, [text.get_text() for text in legend.get_texts()]

    beyond, side, told = drawn()
    assert beyond == 0
    assert side > 4
    assert told[:2] == names[:2]
    assert any("95" in text for text in told[-4:])  # what is drawn besides is named, too
    assert ("and 922 more" in told) == (num_classes == 1000)
    monkeypatch.setattr("fmvae.visualization.tiles.ENTRY", 0.001)  # the control: one column
    beyond, side, _ = drawn()
    assert beyond > 0
