"""Densities of latents: mixtures against torch.distributions, quadrature and draws; N(0, 1) to the bit."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.special import ndtr, ndtri

from fmvae.objectives import Density, Mixture, StandardNormal, densities, kl_divergence

SHARES = torch.tensor([0.01, 0.2, 0.5, 0.77, 0.999], dtype=torch.float64)


def random_mixture(latent_dim: int, num_components: int = 4, dtype: torch.dtype = torch.float64) -> Mixture:
    generator = torch.Generator().manual_seed(latent_dim)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mu, logvar = 2 * normal(num_components, latent_dim), normal(num_components, latent_dim)
    return Mixture(mu.to(dtype), logvar.to(dtype), normal(num_components).log_softmax(0).to(dtype))


def of_torch(mixture: Mixture) -> MixtureSameFamily:
    components = Independent(Normal(mixture.mu, (0.5 * mixture.logvar).exp()), 1)
    return MixtureSameFamily(Categorical(logits=mixture.log_weights), components)


def points(*shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("latent_dim", [1, 2, 10])
def test_a_mixture_is_that_of_torch_in_any_shape(latent_dim):
    mixture, z = random_mixture(latent_dim), points(6, 5, latent_dim)
    expected = of_torch(mixture).log_prob(z)
    torch.testing.assert_close(mixture.log_prob(z), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.log_prob(z[0]), expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.log_prob(z[0, 0]), expected[0, 0], rtol=1e-12, atol=1e-12)
    assert mixture.log_prob(z[:0]).shape == (0, 5)
    equal = Mixture(mixture.mu, mixture.logvar, torch.full((4,), -math.log(4), dtype=torch.float64))
    assert (equal.log_prob(z) - expected).abs().max() > 1e-2  # other weights would be seen


def test_narrow_components_keep_their_digits_in_float32():
    """Multiplied out, (z - mu)^2 / sigma^2 would lose them all."""
    mu = torch.tensor([[300.0, -200.0]])
    narrow = Mixture(mu, torch.full((1, 2), -14.0), torch.zeros(1))
    z = mu + 2e-3 * torch.tensor([[1.0, -0.5]])
    double = Mixture(mu.double(), narrow.logvar.double(), narrow.log_weights.double())
    torch.testing.assert_close(narrow.log_prob(z).double(), double.log_prob(z.double()), rtol=1e-5, atol=0)
    torch.testing.assert_close(narrow.log_prob(z.double()), double.log_prob(z.double()))


def test_a_product_of_matrices_is_used_only_where_it_keeps_its_digits(monkeypatch):
    """In float64 without gradients, where the bound of 5,000 draws spends its time."""
    used, is_wide = [], Mixture._is_wide
    monkeypatch.setattr(Mixture, "_is_wide", lambda *args: used.append(is_wide(*args)) or used[-1])
    for latent_dim, logvar in ((40, -5.0), (2, -8.0), (2, -30.0)):
        mu = random_mixture(latent_dim, num_components=50).mu
        mixture = Mixture(mu, torch.full_like(mu, logvar), torch.zeros(50).double())
        z = mu + math.exp(logvar / 2) * points(*mu.shape)
        expected = mixture.log_prob(z)
        with torch.no_grad():
            torch.testing.assert_close(mixture.log_prob(z), expected, rtol=0, atol=1e-9)
    assert used == [True, True, False]
    monkeypatch.setattr(Mixture, "_is_wide", lambda *args: True)
    with torch.no_grad():
        assert (mixture.log_prob(z) - expected).abs().max() > 1e-4


NARROW = -16.0  # log variance of one of 50 components; the others have 0


@pytest.mark.parametrize(
    ("far_mu", "far_z", "narrowest", "wide"),
    [
        (1.0, 1.0, 0.0, True),
        (1e3, 1.0, 0.0, True),  # just below the limit: 2e6 * 2^-52
        (1.0, 1e3, 0.0, True),
        (1e4, 1.0, 0.0, False),
        (1.0, 1e4, 0.0, False),
        (1.0, 1.0, -12.0, True),
        (1.0, 1.0, NARROW, False),  # the mean over components is below the limit, and the loss in between
        (1.0, math.nan, 0.0, False),
        (1.0, math.inf, 0.0, False),
    ],
)
def test_the_loss_of_digits_is_estimated_for_the_worst_component_and_the_farthest_points(
    far_mu, far_z, narrowest, wide
):
    draw = torch.Generator().manual_seed(0)
    mu, z = (2 * torch.rand((50, 2), generator=draw, dtype=torch.float64) - 1 for _ in range(2))
    mu[0], z[0] = far_mu, far_z
    logvar = torch.zeros_like(mu)
    logvar[1] = narrowest
    mixture = Mixture(mu, logvar, torch.full((50,), -math.log(50), dtype=torch.float64))
    assert mixture._is_wide(z) is wide
    if wide:
        with torch.no_grad():
            error = (mixture.log_prob(z) - of_torch(mixture).log_prob(z)).abs()
        assert (error / of_torch(mixture).log_prob(z).abs().clamp(min=1.0)).max() < 1e-9


@pytest.mark.parametrize("latent_dim", [16, 256, 4096])
def test_many_dimensions_lose_no_more(latent_dim, monkeypatch):
    """Equal terms round alike, so their errors add up; the means are as far as the estimate allows."""
    draw = torch.Generator().manual_seed(2)

    def at(far: float, share: float, std: float) -> tuple[Mixture, Tensor]:
        mu = torch.full((1, latent_dim), far * (0.5 + 0.5 * share), dtype=torch.float64)
        mixture = Mixture(mu * std, torch.full_like(mu, 2 * math.log(std)), torch.zeros(1).double())
        return mixture, mixture.mu * (1 - 1e-3 * share)

    def largest_error() -> float:
        errors = []
        for share, scale in torch.rand((20, 2), generator=draw, dtype=torch.float64).tolist():
            tried = (at(far, share, scale + 0.1) for far in torch.logspace(4, -2, 300).tolist())
            mixture, z = next((mixture, z) for mixture, z in tried if mixture._is_wide(z))
            expected = mixture.log_prob(z)
            with torch.no_grad():
                errors.append((mixture.log_prob(z) - expected).abs().max().item())
        return max(errors)

    assert largest_error() < 1e-9
    monkeypatch.setattr(densities, "ROUNDING", 1e-9 * max(1.0, latent_dim / 64))  # as if they did not
    assert (largest_error() > 1e-9) == (latent_dim > 64)


def test_without_rows_and_with_few_components_memory_is_bounded(monkeypatch):
    mixture, z = random_mixture(40, num_components=1), points(77, 40)
    monkeypatch.setattr(Mixture, "_is_wide", lambda *args: True)
    monkeypatch.setattr(densities, "CACHED_BLOCK", 5 * 40)
    seen = []
    monkeypatch.setattr(torch, "cat", lambda parts, cat=torch.cat: seen.append(len(parts)) or cat(parts))
    with torch.no_grad():
        mixture.log_prob(z)
    assert seen == [16]  # 5 rows of 40 numbers, though there is one component
    monkeypatch.undo()
    with torch.no_grad():
        assert mixture.log_prob(z[:0]).shape == (0,)


def test_blocks_do_not_matter(monkeypatch):
    mixture, z = random_mixture(3), points(7, 11, 3)
    whole, seen = mixture.log_prob(z), []
    monkeypatch.setattr(densities, "BLOCK", 5 * mixture.mu.numel())
    monkeypatch.setattr(torch, "cat", lambda parts, cat=torch.cat: seen.append(len(parts)) or cat(parts))
    torch.testing.assert_close(mixture.log_prob(z), whole, rtol=1e-14, atol=1e-14)
    assert seen == [16]  # 77 rows, 5 at a time


@pytest.mark.parametrize(("dtype", "wide"), [(torch.float32, True), (torch.float64, False)])
@pytest.mark.parametrize("rows", [1, 2, 5, 77])
def test_without_gradients_small_blocks_have_the_same_bits(rows, dtype, wide, monkeypatch):
    """Measures and validation use them; numbers in results that were stored before must be found again."""
    mixture, z = random_mixture(40, num_components=50), points(7, 11, 40).to(dtype)
    whole, seen = mixture.log_prob(z), []
    monkeypatch.setattr(Mixture, "_is_wide", lambda *args: wide)
    monkeypatch.setattr(densities, "CACHED_BLOCK", rows * mixture.mu.numel())
    monkeypatch.setattr(torch, "cat", lambda parts, cat=torch.cat: seen.append(len(parts)) or cat(parts))
    with torch.no_grad():
        assert torch.equal(mixture.log_prob(z), whole)
    assert torch.equal(mixture.log_prob(z), whole)
    assert seen == [-(-77 // rows), 1]  # with gradients, one block: its gradients are rounded as before


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_a_mixture_integrates_to_one(latent_dim):
    mixture = random_mixture(latent_dim)
    axis = np.linspace(-25, 25, 1001)
    grid = torch.from_numpy(np.stack(np.meshgrid(*[axis] * latent_dim), axis=-1))
    density = mixture.log_prob(grid).exp().numpy()
    for _ in range(latent_dim):
        density = integrate.trapezoid(density, axis, axis=-1)
    assert float(density) == pytest.approx(1, abs=1e-9)


def test_draws_of_a_mixture_are_of_its_density_and_come_from_the_generator():
    mixture, other = random_mixture(2), random_mixture(2, num_components=3)
    state = torch.get_rng_state()
    z = mixture.sample(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(z, mixture.sample(20_000, torch.Generator().manual_seed(0)))
    foreign = other.sample(20_000, torch.Generator().manual_seed(0))
    for dimension in range(2):  # the probability integral transform is uniform
        own, control = (mixture.shares_below(draws)[:, dimension].numpy() for draws in (z, foreign))
        assert stats.kstest(own, "uniform").pvalue > 1e-3
        assert stats.kstest(control, "uniform").pvalue < 1e-9
    # both dimensions at once: the cross-entropy of the draws is the entropy, by quadrature
    axis = np.linspace(-25, 25, 1001)
    log_p = mixture.log_prob(torch.from_numpy(np.stack(np.meshgrid(axis, axis), axis=-1))).numpy()
    entropy = -integrate.trapezoid(integrate.trapezoid(np.exp(log_p) * log_p, axis), axis)
    of_draws, of_foreign = (-mixture.log_prob(draws) for draws in (z, foreign))
    standard_error = float(of_draws.std()) / math.sqrt(len(z))
    assert abs(of_draws.mean() - entropy) < 4 * standard_error < 0.05
    assert abs(of_foreign.mean() - entropy) > 0.2


def test_moments_and_quantiles_of_a_mixture():
    mixture = random_mixture(3, dtype=torch.float32)
    exact = of_torch(Mixture(*(part.double() for part in (mixture.mu, mixture.logvar, mixture.log_weights))))
    mean, std = mixture.moments()
    torch.testing.assert_close(mean, exact.mean)
    torch.testing.assert_close(std, exact.stddev)
    quantiles = mixture.quantiles(SHARES)
    assert quantiles.shape == (5, 3)
    torch.testing.assert_close(mixture.shares_below(quantiles), SHARES[:, None].expand(5, 3), rtol=0, atol=1e-12)
    for dimension in range(3):  # by integration, not by the distribution function
        marginal = Mixture(mixture.mu[:, [dimension]], mixture.logvar[:, [dimension]], mixture.log_weights)
        axis = torch.linspace(-30, float(quantiles[1, dimension]), 20_001, dtype=torch.float64)
        below = torch.trapezoid(marginal.log_prob(axis[:, None]).exp(), axis)
        assert float(below) == pytest.approx(0.2, abs=1e-6)


class ByDraws(Density):
    """N(0, 1) without a closed form."""

    def log_prob(self, z: Tensor) -> Tensor:
        return StandardNormal(self.latent_dim, z).log_prob(z)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(num, self.latent_dim, generator=generator)


def test_without_a_closed_form_the_statistics_are_those_of_draws_that_are_always_the_same():
    density, state = ByDraws(2, torch.empty(0)), torch.get_rng_state()
    mean, std = density.moments()
    num = densities.DRAWN // 2
    assert mean.abs().max() < 4 / math.sqrt(num)
    assert (std - 1).abs().max() < 4 / math.sqrt(2 * num)
    below = ndtr(density.quantiles(SHARES))
    assert ((below - SHARES[:, None]).abs() < 4 * (SHARES * (1 - SHARES) / num).sqrt()[:, None] + 1 / num).all()
    z = torch.tensor([[-1.0, 0.3], [0.0, 2.0]])
    assert (density.shares_below(z) - ndtr(z.double())).abs().max() < 4 * 0.5 / math.sqrt(num)
    torch.testing.assert_close(
        density.shares_below(density.quantiles(SHARES)), SHARES[:, None].expand(5, 2), rtol=0, atol=2 / num
    )
    assert torch.equal(ByDraws(2, torch.empty(0)).moments()[0], mean)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_standard_normal_is_exact():
    normal = StandardNormal(3, torch.empty(0))
    mean, std = normal.moments()
    assert mean.tolist() == [0, 0, 0]
    assert std.tolist() == [1, 1, 1]
    assert torch.equal(normal.quantiles(SHARES), ndtri(SHARES)[:, None].expand(5, 3))
    z = points(4, 3)
    assert torch.equal(normal.shares_below(z), ndtr(z))
    torch.testing.assert_close(normal.log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(1))


def test_a_mixture_of_standard_normals_gives_the_kl_of_each_draw_and_its_mean_is_the_closed_form():
    mixture = Mixture(torch.zeros(5, 3), torch.zeros(5, 3), torch.randn(5).log_softmax(0))
    mu, logvar = points(20_000, 3) / 3, points(20_000, 3).flip(0) / 3
    z = mu + torch.randn(mu.shape, generator=torch.Generator().manual_seed(1)) * (0.5 * logvar).exp()
    posterior = Normal(mu, (0.5 * logvar).exp())
    expected = (posterior.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(1)
    drawn = mixture.kl(mu, logvar, z)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)  # the weights are float32
    difference = drawn - kl_divergence(mu, logvar).sum(1)
    assert difference.mean().abs() < 4 * difference.std() / math.sqrt(len(mu))
    wider = Mixture(mixture.mu, mixture.logvar + 0.2, mixture.log_weights).kl(mu, logvar, z)
    off = wider - kl_divergence(mu, logvar).sum(1)
    assert off.mean().abs() > 4 * off.std() / math.sqrt(len(mu))  # another prior would be seen


def test_gradients_of_a_mixture_are_finite_differences():
    mixture, z = random_mixture(2), points(5, 2).requires_grad_()
    inputs = [part.requires_grad_() for part in (mixture.mu, mixture.logvar, mixture.log_weights)]
    assert torch.autograd.gradcheck(lambda z, *parts: Mixture(*parts).log_prob(z), (z, *inputs))
