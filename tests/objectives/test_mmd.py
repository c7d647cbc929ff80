"""fmvae.objectives.mmd: kernels, the unbiased estimate of the squared MMD, InfoVAE and WAE."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.spatial.distance import cdist
from torch import Tensor
from torchmetrics.image.kid import maximum_mean_discrepancy

from fmvae.objectives import ELBO, Capacity, InfoVAE, Warmup, gaussian_kernel, imq_kernel, unbiased_mmd
from fmvae.objectives.mmd import KERNELS
from tests.objectives.tiny import (
    Fixed,
    assert_slopes_are_gradients,
    assert_vmap_changes_nothing,
    base,
    batch_for,
    called,
    from_config,
)

all_kernels = pytest.mark.parametrize("kernel", KERNELS)
VALUES = {  # of the kernels, for a squared distance and C
    "imq": lambda square, c: c / (c + square),
    "gaussian": lambda square, c: math.exp(-square / c),
}


def points(num: int, latent_dim: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, latent_dim, generator=generator, dtype=torch.float64)


def by_loops(kernel: str, a: Tensor, b: Tensor, bandwidth: float) -> float:
    """The unbiased estimate, pair by pair."""
    c = 2 * a.shape[1] * bandwidth**2

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        return sum(VALUES[kernel](sum((x[i] - y[j]) ** 2), c) for i, j in pairs) / len(pairs)

    first, second = a.numpy(), b.numpy()
    return mean(first, first, True) + mean(second, second, True) - 2 * mean(first, second, False)


# --- the estimate -------------------------------------------------------------------------------------------


@all_kernels
@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_the_estimate_is_that_of_a_double_loop(kernel, bandwidth):
    a, b = points(9), 1.5 * points(7, seed=1) + 0.5
    expected = by_loops(kernel, a, b, bandwidth)
    found = unbiased_mmd(a, b, KERNELS[kernel], bandwidth).item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert abs(found - by_loops(kernel, a, b, 2 * bandwidth)) > 1e-3  # control: another bandwidth


@all_kernels
def test_the_estimate_is_torchmetrics_of_scipys_distances(kernel):
    a, b = points(50), 1.5 * points(50, seed=1)

    def matrix(x: Tensor, y: Tensor) -> Tensor:
        squares = cdist(x.numpy(), y.numpy(), "sqeuclidean")
        return torch.from_numpy(np.vectorize(VALUES[kernel])(squares, 6.0))

    expected = maximum_mean_discrepancy(matrix(a, a), matrix(a, b), matrix(b, b))
    assert unbiased_mmd(a, b, KERNELS[kernel]).item() == pytest.approx(expected.item(), abs=1e-12)


@all_kernels
def test_float32_is_exact_to_a_millionth(kernel):
    a, b = points(128, 10), points(128, 10, seed=1)
    exact = unbiased_mmd(a, b, KERNELS[kernel]).item()
    assert unbiased_mmd(a.float(), b.float(), KERNELS[kernel]).item() == pytest.approx(exact, abs=1e-6)
    far = unbiased_mmd((a + 100).float(), (b + 100).float(), KERNELS[kernel]).item()  # no cancellation
    assert far == pytest.approx(exact, abs=1e-6)


def population(kernel: str, latent_dim: int, variance: float) -> float:
    """The squared MMD between N(0, 1) and N(0, variance), with bandwidth 1, by quadrature.

    The squared distance between two draws, divided by the sum of their variances, is chi-squared.
    """

    def mean(of_difference: float) -> float:
        def at(q: float) -> float:
            return VALUES[kernel](of_difference * q, 2 * latent_dim) * stats.chi2.pdf(q, latent_dim)

        return integrate.quad(at, 0, np.inf)[0]

    return mean(2) + mean(2 * variance) - 2 * mean(1 + variance)


@all_kernels
@pytest.mark.parametrize("variance", [1.0, 2.0])
def test_the_mean_estimate_is_the_squared_mmd(kernel, variance):
    """For equal distributions it is 0, for others positive. The biased estimate, with equal points, is not."""
    num, trials, latent_dim = 16, 4_000, 3
    a, b = points(2 * trials * num, latent_dim).unflatten(0, (2, trials, num))
    b = math.sqrt(variance) * b
    estimates = torch.vmap(lambda a, b: unbiased_mmd(a, b, KERNELS[kernel]))(a, b)
    error = (estimates.std() / math.sqrt(trials)).item()
    expected = population(kernel, latent_dim, variance)
    assert expected == pytest.approx(0, abs=1e-9) if variance == 1 else expected > 10 * error
    assert estimates.mean().item() == pytest.approx(expected, abs=4 * error)

    def biased(a: Tensor, b: Tensor) -> Any:
        return sum(w * KERNELS[kernel](x, y, 1.0).mean() for w, x, y in ((1, a, a), (1, b, b), (-2, a, b)))

    assert torch.vmap(biased)(a, b).mean().item() > expected + 20 * error


def test_the_gaussians_squared_mmd_has_a_closed_form():
    """The quadrature above, for the kernel for which it can be told: E exp(-d^2 / C) = (1 + 2 v / C)^(-D / 2)."""
    expected = [(1 + 2 * v / 6) ** -1.5 for v in (2.0, 4.0, 3.0)]
    assert population("gaussian", 3, 2.0) == pytest.approx(expected[0] + expected[1] - 2 * expected[2], rel=1e-9)


@pytest.mark.parametrize("kernel", [imq_kernel, gaussian_kernel])
def test_gradients_of_the_estimate_are_right_also_at_equal_points(kernel):
    a, b = points(5), points(4, seed=1)
    a[1] = a[0]  # where the distance itself has no derivative, and its square has 0
    b[0] = a[2]
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: unbiased_mmd(a, b, kernel, 0.7), a, atol=1e-6)


# --- the objective ------------------------------------------------------------------------------------------


@all_kernels
def test_alpha_0_and_lam_1_are_the_elbo(kernel):
    objective, model = InfoVAE(0.0, 1.0, kernel, beta=Warmup(4.0, fraction=0.5)), base(3)
    batch, numbers = batch_for(objective), objective.numbers(0.25)
    elbo = ELBO(beta=objective.beta)(model, batch._replace(noise=batch.noise[0]), numbers)
    assert torch.equal(objective(model, batch, numbers).loss, elbo.loss)
    # control: with more weight on the MMD, it isn't
    assert not torch.equal(InfoVAE(0.0, 2.0, kernel, beta=objective.beta)(model, batch, numbers).loss, elbo.loss)


@pytest.mark.parametrize("beta", [Warmup(3.0), Capacity(3.0, max_capacity=1.0)])
@pytest.mark.parametrize(("alpha", "lam"), [(0.0, 1000.0), (0.25, 5.0), (-1.0, 2.0), (-1.0, 3.0), (1.0, 50.0)])
def test_the_weights_are_the_papers(alpha, lam, beta):
    objective, model = InfoVAE(alpha, lam, beta=beta), base(3)
    batch, numbers = batch_for(objective), objective.numbers(1.0)
    loss, parts = objective(model, batch, numbers)[:2]
    assert [*parts] == ["recon", "kl", "mmd"]
    expected = parts["recon"] + (1 - alpha) * beta.penalty(parts["kl"], numbers) + (alpha + lam - 1) * parts["mmd"]
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)


def test_mmd_compares_draws_of_the_posteriors_with_the_second_noise():
    z = points(20, seed=1)
    objective, model = InfoVAE(), Fixed(points(20), z=z)
    prior = batch_for(objective, 20).noise[1]
    assert torch.equal(called(objective, model).parts["mmd"], unbiased_mmd(z, prior))
    model = base(3)
    batch = batch_for(objective)
    terms = objective(model, batch, {"beta": 1.0})
    other = objective(model, batch._replace(noise=torch.stack([batch.noise[0], -batch.noise[1]])), {"beta": 1.0})
    assert [name for name in terms.parts if not torch.equal(terms.parts[name], other.parts[name])] == ["mmd"]


def test_the_wae_does_not_depend_on_the_kl():
    objective, model = InfoVAE(alpha=1.0, lam=50.0), base(3)
    batch = batch_for(objective)
    losses = [objective(model, batch, {"beta": beta}).loss for beta in (0.0, 1.0, 100.0)]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    terms = objective(model, batch, {"beta": 1.0})
    torch.testing.assert_close(losses[0], terms.parts["recon"] + 50 * terms.parts["mmd"], rtol=1e-14, atol=0)


@all_kernels
def test_gradients_are_right(kernel):
    objective, model = InfoVAE(0.5, 20.0, kernel), base(3)
    batch, numbers = batch_for(objective), objective.numbers(1.0)
    assert_slopes_are_gradients(lambda: objective(model, batch, numbers).loss, list(model.parameters()))


@all_kernels
def test_under_vmap_it_is_what_it_is_alone(kernel):
    assert_vmap_changes_nothing(InfoVAE(0.5, 20.0, kernel))


@pytest.mark.parametrize("option", ["info_vae", "wae_mmd"])
def test_the_config_gives_the_constructors_defaults(option):
    name, objective = from_config(option)
    default = InfoVAE() if option == "info_vae" else InfoVAE(alpha=1.0, lam=100.0)
    assert isinstance(objective, InfoVAE)
    for attribute in ("kl_weight", "mmd_weight", "kernel", "bandwidth"):
        assert getattr(objective, attribute) == getattr(default, attribute)
    assert name == option.partition("_")[0]
    other = from_config(option, kernel="gaussian", bandwidth=2.0)[1]
    assert isinstance(other, InfoVAE)
    assert (other.kernel, other.bandwidth) == (gaussian_kernel, 2.0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"alpha": 1.5}, "alpha must be finite and <= 1, got 1.5"),
        ({"alpha": math.nan}, "alpha must be finite and <= 1, got nan"),
        ({"lam": 0.5}, "lam must be finite and >= 1 - alpha, here 1, got 0.5"),
        ({"lam": math.inf}, "lam must be finite and >= 1 - alpha, here 1, got inf"),
        ({"alpha": -2.0, "lam": 2.0}, "lam must be finite and >= 1 - alpha, here 3, got 2.0"),
        ({"kernel": "linear"}, "kernel must be one of imq, gaussian, got 'linear'"),
        ({"bandwidth": 0.0}, "bandwidth must be finite and > 0, got 0.0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        InfoVAE(**arguments)
