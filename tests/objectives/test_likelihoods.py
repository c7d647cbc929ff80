"""fmvae.objectives.likelihoods: densities that are densities, and the image each expects."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli

from fmvae.objectives import Bernoulli, ContinuousBernoulli, Gaussian, Laplace, LearnedGaussian, Likelihood

LIKELIHOODS = [Bernoulli(), ContinuousBernoulli(), Gaussian(0.2), Laplace(0.2), LearnedGaussian(start=0.2).eval()]
LOGITS = [-100.0, -30.0, -5.0, -0.1001, -0.0999, -1e-3, 0.0, 1e-6, 0.05, 1.0, 15.0, 20.0, 100.0]
all_likelihoods = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda it: type(it).__name__)
all_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def images(shape: tuple[int, ...] = (4, 1, 3, 5), scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Random logits and targets, float64."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.rand(shape, generator=generator, dtype=torch.float64)


def pixel(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=dtype)


def density(likelihood: Likelihood, logit: float, x: float, dtype: torch.dtype = torch.float64) -> float:
    return math.exp(-likelihood.nll(pixel(logit, dtype), pixel(x, dtype)).item())


# --- all of them --------------------------------------------------------------------------------------------


@all_likelihoods
def test_nll_is_summed_over_the_pixels_of_each_image(likelihood):
    logits, x = images((3, 2, 4, 5))
    nll = likelihood.nll(logits, x)
    assert nll.shape == (3,)
    single = likelihood.nll(logits.reshape(-1, 1, 1, 1), x.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(nll, single.reshape(3, -1).sum(1))


@all_likelihoods
@all_dtypes
def test_extreme_logits_give_finite_values_and_gradients(likelihood, dtype):
    logits = torch.tensor([-100.0, -1e4, -1e15, 0.0, 100.0, 1e4, 1e15], dtype=dtype)
    logits = logits.reshape(-1, 1, 1, 1).requires_grad_()
    for x in (0.0, 0.5, 1.0):
        nll = likelihood.nll(logits, torch.full_like(logits, x))
        (gradient,) = torch.autograd.grad(nll.sum() + likelihood.mean(logits).sum(), logits)
        assert nll.isfinite().all()
        assert gradient.isfinite().all()


@all_likelihoods
def test_nll_and_mean_have_the_right_gradients(likelihood):
    logits, x = images((2, 1, 2, 3))
    logits[0, 0, 0] = torch.tensor([0.0, 0.05, -0.05])  # where the continuous Bernoulli uses a series
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda it: likelihood.nll(it, x), logits)
    assert torch.autograd.gradcheck(likelihood.mean, logits)


@all_likelihoods
@all_dtypes
def test_mean_is_an_image_in_0_1_that_rises_with_the_logits(likelihood, dtype):
    logits = torch.linspace(-120, 120, 4801, dtype=dtype).reshape(1, 1, 1, -1)
    mean = likelihood.mean(logits)
    assert mean.shape == logits.shape
    assert ((mean >= 0) & (mean <= 1)).all()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12  # 1 / (1 - exp(-l)) - 1 / l cancels near the series
    assert (mean.diff() >= -tolerance).all()
    assert mean[..., 0].item() < 0.01
    assert mean[..., -1].item() > 0.99


def test_likelihood_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Likelihood()  # pyright: ignore[reportAbstractUsage]


# --- Bernoulli ----------------------------------------------------------------------------------------------


def test_bernoulli_nll_is_the_cross_entropy_of_the_sigmoid():
    logits, x = images()
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -(x.numpy() * np.log(p) + (1 - x.numpy()) * np.log(1 - p))
    np.testing.assert_allclose(Bernoulli().nll(logits, x).numpy(), expected.reshape(4, -1).sum(1), rtol=1e-12)
    np.testing.assert_allclose(Bernoulli().mean(logits).numpy(), p, rtol=1e-12)


@all_dtypes
@pytest.mark.parametrize(
    ("logit", "x", "expected"),
    [(100.0, 0.0, 100.0), (100.0, 0.25, 75.0), (100.0, 1.0, 0.0), (-100.0, 1.0, 100.0), (-100.0, 0.25, 25.0)],
)
def test_bernoulli_nll_is_exact_at_extreme_logits(logit, x, expected, dtype):
    nll = Bernoulli().nll(pixel(logit, dtype), pixel(x, dtype)).item()
    assert nll == pytest.approx(expected, rel=1e-6, abs=1e-30)


@all_dtypes
def test_bernoulli_by_probabilities_is_infinite_at_extreme_logits(dtype):
    """Why decoders return logits: log(1 - sigmoid(100)) is log(0)."""
    assert (1 - pixel(100.0, dtype).sigmoid()).log().item() == -math.inf
    assert Bernoulli().nll(pixel(100.0, dtype), pixel(0.0, dtype)).isfinite().all()


def test_bernoulli_is_a_probability_for_binary_pixels_only():
    bernoulli = Bernoulli()
    assert density(bernoulli, 0.7, 0.0) + density(bernoulli, 0.7, 1.0) == pytest.approx(1, rel=1e-12)
    assert integrate.quad(lambda x: density(bernoulli, 0.7, x), 0, 1)[0] < 0.6


# --- continuous Bernoulli -----------------------------------------------------------------------------------


def integrals(likelihood: Likelihood, logit: float, dtype: torch.dtype) -> tuple[float, float]:
    """Total probability and mean over [0, 1], by Gauss-Legendre quadrature on pieces that resolve e^100x."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(0, 1, 51)
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + half + half * nodes).ravel()
    mass = (half * weights).ravel()
    targets = torch.tensor(x, dtype=dtype).reshape(-1, 1, 1, 1)
    p = likelihood.nll(torch.full_like(targets, logit), targets).double().neg().exp().numpy()
    return float(mass @ p), float(mass @ (x * p))


@pytest.mark.parametrize("logit", [-20.0, -2.0, -0.05, 0.0, 0.05, 3.0, 20.0])
def test_continuous_bernoulli_integrates_to_1_by_scipy(logit):
    total, _ = integrate.quad(lambda x: density(ContinuousBernoulli(), logit, x), 0, 1, epsabs=1e-11)
    assert total == pytest.approx(1, abs=1e-9)


@all_dtypes
@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_1_and_to_its_mean(logit, dtype):
    total, mean = integrals(ContinuousBernoulli(), logit, dtype)
    tolerance = 3e-5 if dtype == torch.float32 else 1e-10
    assert total == pytest.approx(1, abs=tolerance)
    assert ContinuousBernoulli().mean(pixel(logit, dtype)).item() == pytest.approx(mean, abs=tolerance)


def test_continuous_bernoulli_by_clamped_probabilities_does_not_integrate_to_1():
    """The old bug: torch.distributions clamps p to the float's epsilon, so its normaliser stops growing."""

    class Clamped(ContinuousBernoulli):
        def nll(self, logits: Tensor, x: Tensor) -> Tensor:
            return -TorchContinuousBernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(1)

    total, _ = integrals(Clamped(), 30.0, torch.float32)
    assert total < 0.6
    total, _ = integrals(Clamped(), 100.0, torch.float64)
    assert total < 0.6


def test_continuous_bernoulli_agrees_with_torch_where_torch_is_right():
    logits, x = images(scale=1.5)
    reference = TorchContinuousBernoulli(logits=logits)
    torch.testing.assert_close(
        ContinuousBernoulli().nll(logits, x), -reference.log_prob(x).flatten(1).sum(1), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(ContinuousBernoulli().mean(logits), reference.mean, rtol=1e-9, atol=0)


def test_continuous_bernoulli_is_smooth_where_series_and_closed_form_meet():
    for sign in (-1, 1):
        below, above = (torch.tensor(sign * t, dtype=torch.float64) for t in (0.1 - 1e-12, 0.1 + 1e-12))
        for function in (
            ContinuousBernoulli().mean,
            lambda logit: ContinuousBernoulli().nll(logit.reshape(1, 1), torch.zeros(1, 1).double()),
        ):
            torch.testing.assert_close(function(below), function(above), rtol=0, atol=5e-12)


# --- Gaussian -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.05, 0.1, 1.0])
def test_gaussian_nll_is_scipys_around_the_sigmoid(sigma):
    logits, x = images()
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -stats.norm.logpdf(x.numpy(), loc=p, scale=sigma).reshape(4, -1).sum(1)
    np.testing.assert_allclose(Gaussian(sigma).nll(logits, x).numpy(), expected, rtol=1e-11)
    np.testing.assert_allclose(Gaussian(sigma).mean(logits).numpy(), p, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf])
def test_gaussian_refuses_an_impossible_sigma(sigma):
    with pytest.raises(ValueError, match="sigma must be finite and > 0, got"):
        Gaussian(sigma)


# --- Laplace ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.05, 0.1, 1.0])
def test_laplace_nll_is_scipys_and_torchs_around_the_sigmoid(scale):
    logits, x = images()
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -stats.laplace.logpdf(x.numpy(), loc=p, scale=scale).reshape(4, -1).sum(1)
    found = Laplace(scale).nll(logits, x)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11)
    of_torch = torch.distributions.Laplace(logits.sigmoid(), scale).log_prob(x)
    torch.testing.assert_close(found, -of_torch.flatten(1).sum(1), rtol=1e-11, atol=0)
    np.testing.assert_allclose(Laplace(scale).mean(logits).numpy(), p, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -0.1, math.nan, math.inf])
def test_laplace_refuses_an_impossible_scale(scale):
    with pytest.raises(ValueError, match="scale must be finite and > 0, got"):
        Laplace(scale)


# --- densities over the real line ---------------------------------------------------------------------------

ON_THE_LINE = {"gaussian": Gaussian(0.1), "laplace": Laplace(0.1), "learned": LearnedGaussian(start=0.1).eval()}


@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.7])
@pytest.mark.parametrize("name", ON_THE_LINE)
def test_a_density_over_the_line_integrates_to_1_and_to_its_mean(name, logit):
    likelihood = ON_THE_LINE[name]
    centre = likelihood.mean(pixel(logit)).item()

    def moment(power: int, wrong: float = 1.0) -> float:
        halves = ((centre - 6, centre), (centre, centre + 6))  # Laplace has a corner at its centre
        return sum(
            integrate.quad(lambda x: wrong * x**power * density(likelihood, logit, x), *half, epsabs=1e-12)[0]
            for half in halves
        )

    assert moment(0) == pytest.approx(1, abs=1e-9)
    assert moment(1) == pytest.approx(centre, abs=1e-9)
    assert moment(0, wrong=math.sqrt(2)) != pytest.approx(1, abs=0.1)  # a normaliser that is off would be seen


class _Twice(Bernoulli):
    """A user's likelihood on top of ours."""

    def nll(self, logits: Tensor, x: Tensor) -> Tensor:
        return 2 * super().nll(logits, x)


@pytest.mark.parametrize("kind", [Bernoulli, _Twice])
def test_in_a_stack_a_likelihood_has_the_bits_that_it_has_alone(kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 1, 28, 28, generator=generator) * 4
    x = torch.rand(3, 5, 1, 28, 28, generator=generator)

    def found(nll, by_run) -> tuple[Tensor, Tensor]:
        leaf = logits.clone().requires_grad_()
        values = by_run(nll)(leaf, x)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return values, gradient

    def in_turn(nll):
        return lambda many, images: torch.stack([nll(*one) for one in zip(many, images, strict=True)])

    likelihood = kind()
    alone = found(likelihood.nll, in_turn)
    assert all(map(torch.equal, alone, found(likelihood.stacked().nll, torch.vmap)))
    assert all(map(torch.equal, alone, found(likelihood.stacked().nll, in_turn)))
    assert not all(map(torch.equal, alone, found(likelihood.nll, torch.vmap)))  # the control: why there is another
    assert torch.equal(alone[0], found(likelihood.nll, in_turn)[0]), "stacked() leaves the likelihood as it is"
