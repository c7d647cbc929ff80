"""Fitted samplers are the densities that they say: closed forms, scipy, quadrature, and draws."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fmvae import rng
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.samplers.aggregate import AggregateSampler
from fmvae.evaluation.samplers.base import VAL_DRAWS, Latents, Sampler
from fmvae.evaluation.samplers.flow import FlowSampler
from fmvae.evaluation.samplers.gaussians import FullGaussians
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.evaluation.samplers.two_stage import TwoStageSampler
from tests.chi_squared import cells, p_value
from tests.evaluation.samplers.latents import clusters, generator, normal_latents

SMALL: dict[str, Callable[..., Sampler]] = {
    "gmm": lambda c=0: GaussianMixtureSampler(c, num_components=4),
    "flow": lambda c=0: FlowSampler(c, transforms=2, hidden=[16], bins=6, epochs=6),
    "two_stage": lambda c=0: TwoStageSampler(c, hidden=[32, 32], epochs=24),
    "aggregate": AggregateSampler,
}
DENSITIES = ("gmm", "flow")
WIDE = {1: (18, 4800), 2: (18, 432)}  # cells that hold all clusters, and points of an axis
FITS: dict[Any, tuple[Sampler, Latents, Latents]] = {}


def fitted(name: str, dim: int, classes: int = 0) -> tuple[Sampler, Latents, Latents]:
    """A sampler of clusters, and the posteriors that it was fitted to; made once for all tests."""
    if (key := (name, dim, classes)) not in FITS:
        train, val = clusters(2000, dim, seed=1), clusters(1000, dim, seed=2)
        sampler = SMALL[name](classes)
        sampler.fit(train, val, 0)
        FITS[key] = sampler, train, val
    return FITS[key]


# --- one Gaussian ---------------------------------------------------------------------------------------------


def test_one_component_is_the_aggregates_mean_and_covariance():
    train, val = clusters(300, 3), clusters(50, 3, seed=1)
    sampler = GaussianMixtureSampler(num_components=1)
    sampler.fit(train, val, 0)
    tensors, _ = sampler.state()
    mu, var = train.mu.double().numpy(), train.logvar.double().exp().numpy()
    covariance = np.cov(mu.T, bias=True) + np.diag(var.mean(0))
    found = tensors["0.factors"][0].numpy()
    np.testing.assert_allclose(tensors["0.means"][0], mu.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found @ found.T, covariance, rtol=0, atol=1e-12)
    assert np.abs(np.cov(mu.T, bias=True) - covariance).max() > 0.01  # without the posteriors' variances
    z = generator_normal(20, 3)
    expected = stats.multivariate_normal(mu.mean(0), covariance).logpdf(z.numpy())  # type: ignore[arg-type]
    np.testing.assert_allclose(sampler.log_prob(z), expected, rtol=1e-12)


def generator_normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(5), dtype=torch.float64)


# --- held-out likelihood --------------------------------------------------------------------------------------


def gain(sampler: Sampler, train: Latents, val: Latents, test: Tensor) -> tuple[float, float]:
    """The mean gain in log-likelihood of test draws over N(0, 1), and its standard error."""
    sampler.fit(train, val, 0)
    usual = torch.from_numpy(stats.norm.logpdf(test.numpy()).sum(1))
    gains = sampler.log_prob(test) - usual
    return gains.mean().item(), gains.std().item() / math.sqrt(len(test))


@pytest.mark.parametrize("name", DENSITIES)
def test_held_out_likelihood_beats_the_standard_normal_where_it_can(name):
    test = clusters(2000, 2, seed=3).draw(generator(4))
    better, noise = gain(SMALL[name](), clusters(1000, 2, seed=1), clusters(500, 2, seed=2), test)
    assert better > 1 > 5 * noise
    of_normal = [normal_latents(num, 2, seed=seed) for num, seed in ((2000, 1), (500, 2), (2000, 3))]
    control, noise = gain(SMALL[name](), of_normal[0], of_normal[1], of_normal[2].draw(generator(4)))
    assert control < 3 * noise
    assert control > -0.05
    print(f"{name}: {better:.3f} nats over N(0, 1); of N(0, 1) itself {control:.4f}")


# --- a known mixture ------------------------------------------------------------------------------------------


def test_a_known_mixture_is_recovered():
    weights, means = np.array([0.2, 0.3, 0.5]), np.array([[-4.0, 0.0], [3.0, 3.0], [2.0, -4.0]])
    covariances = np.array([[[1.0, 0.6], [0.6, 0.8]], [[0.3, -0.2], [-0.2, 0.5]], [[2.0, 0.0], [0.0, 0.1]]])
    random = np.random.default_rng(0)
    label = random.choice(3, 30_000, p=weights)
    noise = np.einsum("kij,kj->ki", np.linalg.cholesky(covariances)[label], random.normal(size=(30_000, 2)))
    points = torch.from_numpy(means[label] + noise)
    train = Latents(points, torch.full_like(points, -40.0), torch.zeros(len(points), dtype=torch.long))
    sampler = GaussianMixtureSampler(num_components=3)
    sampler.fit(train, train, 0)
    tensors, _ = sampler.state()
    order = [int((tensors["0.means"] - torch.from_numpy(mean)).norm(dim=1).argmin()) for mean in means]
    assert sorted(order) == [0, 1, 2]
    factors = tensors["0.factors"][order].numpy()
    np.testing.assert_allclose(tensors["0.weights"][order], weights, atol=0.01)
    np.testing.assert_allclose(tensors["0.means"][order], means, atol=0.05)
    np.testing.assert_allclose(factors @ factors.transpose(0, 2, 1), covariances, atol=0.06)
    wrong = GaussianMixtureSampler(num_components=2)  # control: it has no place for the third
    wrong.fit(train, train, 0)
    assert (wrong.log_prob(points).mean() - sampler.log_prob(points).mean()).item() < -0.3


@pytest.mark.parametrize(("start", "number"), [(0, 1), (1, 3)])
def test_of_several_numbers_the_best_on_validation_draws_is_taken(start, number):
    """With three clusters and few points, thirty components fit their noise."""
    train, val = clusters(240, 2, seed=1), clusters(2000, 2, seed=2)
    asked = [1, 3, 30, 500][start:]
    if number == 1:
        train, val = normal_latents(240, 2, seed=1), normal_latents(2000, 2, seed=2)
    sampler = GaussianMixtureSampler(num_components=asked)
    sampler.fit(train, val, 0)
    tensors, meta = sampler.state()
    values = {row["num_components"]: row["held_out"] for row in meta["candidates"]}
    assert list(values) == asked[:-1]  # 500 exceed the images
    assert meta["num_components"] == len(tensors["0.weights"]) == number == max(values, key=values.__getitem__)
    draws = val.draw(rng.stream(0, "samplers", VAL_DRAWS))
    assert sampler.log_prob(draws).mean().item() == pytest.approx(values[number], abs=1e-12)
    best_in_training = max(asked[:-1], key=lambda n: _training_value(n, train, val))
    assert best_in_training == 30  # control: chosen by the training draws, it would be another


def _training_value(number: int, train: Latents, val: Latents) -> float:
    sampler = GaussianMixtureSampler(num_components=number)
    sampler.fit(train, val, 0)
    return sampler.log_prob(train.draw(rng.stream(0, "samplers", 0))).mean().item()


# --- log_prob -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3])
def test_log_prob_is_scipys(dim):
    sampler, _, _ = fitted("gmm", dim)
    tensors, _ = sampler.state()
    z = 3 * generator_normal(40, dim)
    each = []
    for weight, mean, factor in zip(
        *(tensors[f"0.{k}"].numpy() for k in ("weights", "means", "factors")), strict=True
    ):
        each.append(np.log(weight) + stats.multivariate_normal(mean, factor @ factor.T).logpdf(z.numpy()))
    expected = np.logaddexp.reduce(each, axis=0)
    np.testing.assert_allclose(sampler.log_prob(z), expected, rtol=1e-11)
    assert np.abs(np.mean(each, axis=0) - expected).max() > 0.1
    assert torch.equal(sampler.log_prob(z.view(5, 8, dim)), sampler.log_prob(z).view(5, 8))


def test_draws_have_the_covariances_of_their_components():
    """The clusters of the other tests are round, so a factor and its transpose look alike."""
    factors = torch.tensor([[[1.0, 0.0], [2.0, 0.5]], [[0.3, 0.0], [-0.9, 0.1]]], dtype=torch.float64)
    means = torch.tensor([[-20.0, 0.0], [20.0, 0.0]], dtype=torch.float64)
    density = FullGaussians(torch.tensor([0.25, 0.75], dtype=torch.float64), means, factors)
    z = density.sample(40_000, generator())
    for label, factor in enumerate(factors):
        own = z[torch.cdist(z, means).argmin(1) == label]
        assert len(own) == pytest.approx(40_000 * [0.25, 0.75][label], rel=0.03)
        torch.testing.assert_close(own.T.cov(), factor @ factor.T, rtol=0.05, atol=0.02)
        assert (own.T.cov() - factor.T @ factor).abs().max() > 0.5


def test_blocks_change_nothing(monkeypatch):
    sampler, z = fitted("gmm", 3)[0], generator_normal(50, 3)
    before, draws = sampler.log_prob(z), sampler.sample(50, None, generator())
    monkeypatch.setattr("fmvae.objectives.densities.BLOCK", 100)
    monkeypatch.setattr("fmvae.evaluation.samplers.gaussians.BLOCK", 30)
    torch.testing.assert_close(sampler.log_prob(z), before, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(sampler.sample(50, None, generator()), draws, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("name", DENSITIES)
def test_the_density_integrates_to_one_and_draws_are_of_it(name, dim):
    sampler, train, _ = fitted(name, dim)
    edges, mass = cells(sampler.log_prob, dim, *WIDE[dim])
    assert mass.sum() == pytest.approx(1, abs=2e-4)
    assert mass.max() < 0.9
    draws = sampler.sample(20_000, None, generator())
    assert (draws.dtype, draws.shape) == (torch.float64, (20_000, dim))
    one = GaussianMixtureSampler(num_components=1)  # control: the right mean and covariance, and another shape
    one.fit(train, train, 0)
    own, foreign = (p_value(each, edges, mass) for each in (draws, one.sample(20_000, None, generator())))
    assert own > 1e-3
    assert foreign < 1e-9
    print(f"{name}, {dim}: integral {mass.sum():.6f}, p = {own:.2f}, of one Gaussian {foreign:.1e}")


def energy(a: Tensor, b: Tensor) -> float:
    """The energy distance of two samples (Székely & Rizzo 2013); 0 in expectation for equal distributions."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return (2 * torch.cdist(a, b).mean() - within(a) - within(b)).item()


@pytest.mark.parametrize("name", ["two_stage", "aggregate"])
def test_draws_of_samplers_without_a_density_are_like_the_aggregate_posterior(name):
    sampler, train, val = fitted(name, 2)
    one = GaussianMixtureSampler(num_components=1)
    one.fit(train, val, 0)
    wanted = clusters(2000, 2, seed=7).draw(generator(8))
    floor = energy(clusters(2000, 2, seed=9).draw(generator(10)), wanted)
    own, control = (energy(each.sample(2000, None, generator()), wanted) for each in (sampler, one))
    print(f"{name}: energy distance {own:.4f}, one Gaussian {control:.4f}, two samples {floor:.4f}")
    assert control > 0.05
    assert own < control / 2
    assert name != "aggregate" or abs(own) < 0.01


def test_the_aggregate_is_of_the_training_posteriors_and_not_their_means():
    train = clusters(5, 3)
    sampler = AggregateSampler()
    sampler.fit(train, train, 0)
    z = sampler.sample(6000, None, generator())
    nearest = torch.cdist(z, train.mu.double()).argmin(1)
    mean, covariance = train.moments()
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.15)
    torch.testing.assert_close(z.T.cov(), covariance, rtol=0, atol=0.3)
    assert len(nearest.unique()) == 5
    residual = z - train.mu.double()[nearest]
    variances = torch.bincount(nearest).double() / len(z) @ train.logvar.double().exp()
    torch.testing.assert_close(residual.square().mean(0), variances, rtol=0.1, atol=0)
    copied = AggregateSampler()
    copied.fit(train._replace(logvar=torch.full_like(train.logvar, -60.0)), train, 0)
    points = copied.sample(100, None, generator())
    assert torch.cdist(points, train.mu.double()).amin(1).max() < 1e-6


# --- conditional models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_draws_of_a_class_follow_that_class_only(name):
    """Each cluster is a class; the clusters are far apart."""
    sampler, _, val = fitted(name, 2, classes=3)
    labels = torch.arange(3).repeat_interleave(400)[torch.randperm(1200, generator=generator(3))]
    z = sampler.sample(1200, labels, generator())
    centres = torch.stack([val.mu[val.labels == label].double().mean(0) for label in range(3)])
    assert (torch.cdist(z, centres).argmin(1) == labels).double().mean() > 0.97
    for label in range(3):
        own, other = (val.of_class(each).draw(generator(6)) for each in (label, (label + 1) % 3))
        drawn = z[labels == label]
        assert energy(drawn, own) < 0.1 < energy(drawn, other)
    if sampler.density:
        draws = val.draw(generator(6))
        own = sampler.log_prob(draws, val.labels)
        other = sampler.log_prob(draws, (val.labels + 1) % 3)
        assert (own > other).double().mean() > 0.97
        pair = sampler.log_prob(draws[:5].expand(2, 5, 2), torch.tensor([[0], [1]]))
        torch.testing.assert_close(pair[1], sampler.log_prob(draws[:5], torch.ones(5, dtype=torch.long)))
    with pytest.raises(ValueError, match="needs labels"):
        sampler.sample(3, None, generator())
    with pytest.raises(ValueError, match=r"in \[0, 3\)"):
        sampler.sample(1, torch.tensor([3]), generator())


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("name", DENSITIES)
def test_the_density_of_each_class_integrates_to_one(name, dim):
    sampler, _, _ = fitted(name, dim, classes=3)
    for label in range(3):
        edges, mass = cells(partial(sampler.log_prob, labels=torch.tensor(label)), dim, *WIDE[dim])
        draws = sampler.sample(5000, torch.full((5000,), label), generator())
        assert mass.sum() == pytest.approx(1, abs=1e-3)
        assert p_value(draws, edges, mass) > 1e-3


def test_a_class_without_components_of_others():
    """The mixture of a class is the one that its images alone would give."""
    sampler, train, val = fitted("gmm", 2, classes=3)
    tensors, _ = sampler.state()
    alone = GaussianMixtureSampler(3, num_components=4)
    moved = train._replace(mu=train.mu + 50 * (train.labels != 1)[:, None])
    alone.fit(moved, val, 0)
    assert torch.equal(alone.state()[0]["1.means"], tensors["1.means"])
    assert not torch.equal(alone.state()[0]["0.means"], tensors["0.means"])


def test_a_class_without_training_images_is_drawn_from_the_standard_normal():
    train = clusters(300, 2)
    some = Latents(*(part[train.labels != 1] for part in train))
    labels = torch.ones(4000, dtype=torch.long)
    for name in ("gmm", "aggregate"):
        sampler = SMALL[name](3)
        sampler.fit(some, train, 0)
        z = sampler.sample(4000, labels, generator())
        assert stats.kstest(z.numpy().ravel(), "norm").pvalue > 1e-3
        assert stats.kstest(sampler.sample(4000, 0 * labels, generator()).numpy().ravel(), "norm").pvalue < 1e-9


def test_an_unconditional_sampler_ignores_labels():
    sampler, z = fitted("gmm", 2)[0], generator_normal(4, 2)
    labels = torch.tensor([0, 9, 3, 1])
    assert torch.equal(sampler.log_prob(z, labels), sampler.log_prob(z))
    assert torch.equal(sampler.sample(4, labels, generator()), sampler.sample(4, None, generator()))


# --- what cannot be fitted ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_cannot_be_fitted_is_said_in_one_line(monkeypatch):
    train = clusters(30, 2)
    with pytest.raises(
        ConfigError, match=r"^evaluation\.gmm\.num_components: 31 components, but there are 30 train"
    ):
        GaussianMixtureSampler(num_components=31).fit(train, train, 0)
    with pytest.raises(
        ConfigError, match=r"10 training images of the smallest class; give a number of at most 10$"
    ):
        GaussianMixtureSampler(3, num_components=[11, 20]).fit(train, train, 0)
    same = train._replace(mu=train.mu[:1].expand(30, 2), logvar=torch.full_like(train.logvar, -2.0))
    monkeypatch.setattr("fmvae.evaluation.samplers.gmm.REGULARISATION", 0.0)
    monkeypatch.setattr(Latents, "draw", lambda latents, generator: latents.mu.double())  # of one point
    with pytest.raises(RunError, match=r"^sampler gmm: 2 components cannot be fitted \(Fitting the mixture"):
        GaussianMixtureSampler(num_components=2).fit(same, same, 0)
    chosen = GaussianMixtureSampler(num_components=[1, 2])
    chosen.fit(same, same, 0)
    assert [row.keys() for row in chosen.state()[1]["candidates"]][1] == {"num_components", "problem"}
    assert chosen.state()[1]["num_components"] == 1
    monkeypatch.undo()
    GaussianMixtureSampler(num_components=30).fit(train, train, 0)  # a component for each point: still a density
    broken = train._replace(mu=train.mu / 0)
    for name in ("gmm", "flow", "two_stage"):
        with pytest.raises(RunError, match=rf"^sampler {name}: latent dimension 0 .*; leave it out"):
            SMALL[name]().fit(broken, broken, 0)
    beyond = train._replace(logvar=torch.full_like(train.logvar, 2000.0))  # of validation images alone
    with pytest.raises(RunError, match=r"^sampler gmm: 1 components cannot be fitted .*; leave gmm out"):
        GaussianMixtureSampler(num_components=1).fit(train, beyond, 0)
    with pytest.raises(TypeError, match="two_stage is not a density"):
        fitted("two_stage", 2)[0].log_prob(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="factors"):
        FullGaussians(torch.ones(2) / 2, torch.zeros(2, 3), torch.eye(3)[None])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_of_the_latents_do_not_matter(scale):
    """Regularisation and tolerances are in units of each dimension's standard deviation."""
    train, val = clusters(500, 2, seed=1), clusters(200, 2, seed=2)
    z = generator_normal(30, 2)
    scaled = [
        part._replace(mu=part.mu.double() * scale, logvar=part.logvar + 2 * math.log(scale))
        for part in (train, val)
    ]
    own, other = (GaussianMixtureSampler(num_components=4) for _ in range(2))
    own.fit(train, val, 0)
    other.fit(scaled[0], scaled[1], 0)
    torch.testing.assert_close(
        other.log_prob(z * scale) + 2 * math.log(scale), own.log_prob(z), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("num_components", [1, [1, 3]])
def test_collapsed_latents_are_fitted_by_the_default(num_components, monkeypatch):
    """Dimensions that are equal, or never vary, fail no run that asked for no sampler by name."""
    train = clusters(60, 3)
    equal = train.mu[:, :1].expand(60, 3).clone()
    equal[:, 2] = 1.0
    collapsed = train._replace(mu=equal, logvar=torch.full_like(train.logvar, -2000.0))
    sampler = GaussianMixtureSampler(num_components=num_components)
    sampler.fit(collapsed, collapsed, 0)
    z = sampler.sample(500, None, torch.Generator().manual_seed(0))
    assert (z[:, 0] - z[:, 1]).abs().max() < 0.02 * z[:, 0].std()
    assert (z[:, 2] - 1).abs().max() < 0.01
    monkeypatch.setattr("fmvae.evaluation.samplers.gmm.REGULARISATION", 0.0)  # control
    with pytest.raises(RunError, match="1 components cannot be fitted"):
        GaussianMixtureSampler(num_components=1).fit(collapsed, collapsed, 0)


def test_factors_are_inverted_once_and_give_the_same_bits(monkeypatch):
    density, z = fitted("gmm", 3)[0]._densities[0], generator_normal(50, 3)  # type: ignore[attr-defined]
    parts = density.weights, density.means, density.factors
    calls, plain = [], torch.linalg.solve_triangular
    monkeypatch.setattr(torch.linalg, "solve_triangular", lambda *a, **k: calls.append(1) or plain(*a, **k))
    once = FullGaussians(*parts)
    with torch.inference_mode():
        first = once.log_prob(z)
    assert torch.equal(once.log_prob(z), first)
    assert len(calls) == 1
    assert torch.equal(FullGaussians(*parts).log_prob(z), first)
    assert len(calls) == 2  # control: another mixture, other factors
    assert once.log_prob(z.float()).dtype == torch.float32
    inverse = plain(parts[2], torch.eye(3, dtype=torch.float64), upper=False)
    assert torch.equal(once._whitened(z)[0], inverse)
    leaf = z.clone().requires_grad_()
    once.log_prob(leaf).sum().backward()
    assert leaf.grad is not None
