"""fmvae.objectives.elbo: both terms of the ELBO, in nats per image."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from fmvae.models import VAEOutput
from fmvae.objectives import (
    ELBO,
    Batch,
    Bernoulli,
    Capacity,
    Constant,
    ELBOTerms,
    Gaussian,
    StandardNormal,
    Terms,
    Warmup,
    elbo_terms,
    kl_divergence,
    vae_loss,
)

finite = st.floats(-20, 20)


def batch(num: int = 5, latent_dim: int = 3, size: int = 4, dtype: torch.dtype = torch.float64):
    """logits, x, mu, logvar of ``num`` images of one channel."""
    generator = torch.Generator().manual_seed(0)
    shape = (num, 1, size, size)
    logits = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    x = torch.rand(shape, generator=generator, dtype=dtype)
    mu, logvar = torch.randn(2, num, latent_dim, generator=generator, dtype=dtype)
    return logits, x, mu, logvar


# --- the KL term --------------------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions_in_each_dimension():
    _, _, mu, logvar = batch(100)
    expected = torch_kl(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, logvar), expected, rtol=1e-12, atol=1e-14)


def test_kl_is_the_mean_log_ratio_of_the_densities():
    """Monte Carlo, to five standard errors: no closed form is trusted here."""
    mu, logvar = torch.tensor([[0.7, -1.5]]).double(), torch.tensor([[-1.2, 0.4]]).double()
    posterior, prior = Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = posterior.mean + posterior.stddev * noise
    ratio = posterior.log_prob(z) - prior.log_prob(z)
    error = 5 * ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - kl_divergence(mu, logvar)[0]).abs() < error).all()
    # negative control: the KL the other way round is told apart
    assert ((ratio.mean(0) - torch_kl(prior, posterior)[0]).abs() > error).all()


def test_kl_of_the_prior_is_zero():
    assert torch.equal(kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3))


@given(finite, finite)
def test_kl_is_never_negative(mu, logvar):
    assert kl_divergence(torch.tensor(mu), torch.tensor(logvar)) >= 0


def test_kl_near_the_prior_is_neither_negative_nor_lost_in_rounding():
    """Collapsed dimensions live here; ``1 + logvar - mu^2 - exp(logvar)`` cancels to noise, of which sign the
    processor says."""
    logvar = torch.logspace(-5, -2, 1000)
    logvar = torch.cat([-logvar, logvar])
    mu = torch.zeros_like(logvar)
    expected = kl_divergence(mu.double(), logvar.double()).float()
    kl = kl_divergence(mu, logvar)
    assert (kl > 0).all()
    torch.testing.assert_close(kl, expected, rtol=0.02, atol=0)

    naive = -0.5 * (1 + logvar - mu.square() - logvar.exp())
    assert (naive <= 0).any()
    assert not torch.allclose(naive, expected, rtol=0.02, atol=0)


def test_kl_gradients_are_right():
    _, _, mu, logvar = (t.requires_grad_() for t in batch(2))
    assert torch.autograd.gradcheck(kl_divergence, (mu, logvar))


# --- the objective ------------------------------------------------------------------------------------------


def test_terms_are_per_image_summed_over_pixels_and_latents():
    logits, x, mu, logvar = batch()
    terms = elbo_terms(Bernoulli(), logits, x, mu, logvar)
    assert isinstance(terms, ELBOTerms)
    log_p = np.log(1 / (1 + np.exp(-logits.numpy())))
    log_q = np.log(1 / (1 + np.exp(logits.numpy())))
    recon = -(x.numpy() * log_p + (1 - x.numpy()) * log_q)
    variance = np.exp(logvar.numpy())
    kl = 0.5 * (mu.numpy() ** 2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(terms.recon.numpy(), recon.reshape(5, -1).sum(1), rtol=1e-12)
    np.testing.assert_allclose(terms.kl.numpy(), kl.sum(1), rtol=1e-12)


def test_an_untrained_model_costs_784_log_2_nats_per_image():
    """Logits 0 say one half of every pixel; a mean over pixels or a sum over images would differ."""
    zeros = torch.zeros(7, 1, 28, 28)
    loss, recon, kl = vae_loss(zeros, torch.rand(7, 1, 28, 28), torch.zeros(7, 2), torch.zeros(7, 2))
    assert recon.item() == pytest.approx(784 * math.log(2), rel=1e-6)
    assert loss.item() == recon.item()
    assert kl.item() == 0


def test_terms_of_an_image_do_not_depend_on_the_other_images():
    everything = batch()
    terms = elbo_terms(Bernoulli(), *everything)
    for i in range(5):
        alone = elbo_terms(Bernoulli(), *(t[i : i + 1] for t in everything))
        torch.testing.assert_close(alone.recon[0], terms.recon[i])
        torch.testing.assert_close(alone.kl[0], terms.kl[i])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_vae_loss_is_recon_plus_beta_kl_averaged_over_images(beta):
    everything = batch()
    loss, recon, kl = vae_loss(*everything, beta=beta)
    terms = elbo_terms(Bernoulli(), *everything)
    assert loss.shape == recon.shape == kl.shape == ()
    assert recon.item() == pytest.approx(terms.recon.numpy().mean(), rel=1e-12)
    assert kl.item() == pytest.approx(terms.kl.numpy().mean(), rel=1e-12)
    assert loss.item() == pytest.approx(recon.item() + beta * kl.item(), rel=1e-12)


def test_vae_loss_does_not_depend_on_the_batch_size():
    everything = batch()
    once = vae_loss(*everything)
    logits, x, mu, logvar = (torch.cat([t, t]) for t in everything)
    twice = vae_loss(logits, x, mu, logvar)
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf])
def test_vae_loss_refuses_an_impossible_beta(beta):
    with pytest.raises(ValueError, match="beta must be finite and >= 0"):
        vae_loss(*batch(), beta=beta)


def test_vae_loss_gradients_are_right():
    logits, x, mu, logvar = batch(2, latent_dim=2, size=2)
    inputs = [t.requires_grad_() for t in (logits, mu, logvar)]
    assert torch.autograd.gradcheck(lambda a, b, c: vae_loss(a, x, b, c, beta=2.0)[0], inputs)


def test_the_default_objective_is_the_negative_elbo():
    objective = ELBO()
    assert isinstance(objective.likelihood, Bernoulli)
    assert objective.of_means(3.0, 2.0) == 5.0


class Fixed(torch.nn.Module):
    """Gives the same output for every batch, and remembers what it was called with."""

    def __init__(self, logits: torch.Tensor, mu: torch.Tensor, logvar: torch.Tensor):
        super().__init__()
        self.output = VAEOutput(logits, mu, logvar, mu)

    def forward(self, x: torch.Tensor, labels: torch.Tensor, *, noise: torch.Tensor) -> VAEOutput:
        self.called_with = (x, labels, noise)
        return self.output

    def prior_density(self) -> StandardNormal:
        return StandardNormal(self.output.mu.shape[1], self.output.mu)


def called(objective: ELBO, numbers: dict) -> Terms:
    """The objective of a model that gives ``batch()``."""
    logits, x, mu, logvar = batch()
    given = Batch(x, torch.zeros(len(x), dtype=torch.long), torch.zeros_like(mu), num_train=50)
    stub: Any = Fixed(logits, mu, logvar)  # no more than an ELBO calls
    return objective(stub, given, numbers)


def test_the_objective_uses_its_own_likelihood():
    logits, x, _, _ = batch()
    terms = called(ELBO(Gaussian(0.3)), {"beta": 1.0})
    assert torch.equal(terms.parts["recon"], Gaussian(0.3).nll(logits, x).mean())
    assert not torch.allclose(terms.parts["recon"], Bernoulli().nll(logits, x).mean())


def test_the_objective_asks_the_model_with_the_labels_and_noise_of_the_batch():
    logits, x, mu, logvar = batch()
    model: Any = Fixed(logits, mu, logvar)
    given = Batch(x, torch.arange(5), torch.ones_like(mu), num_train=50)
    ELBO()(model, given, {"beta": 1.0})
    assert [torch.equal(a, b) for a, b in zip(model.called_with, given[:3], strict=True)] == [True] * 3


def test_the_objective_follows_its_schedule_and_ends_at_the_final_weight():
    objective = ELBO(beta=Warmup(4.0, fraction=0.5))
    for progress, weight in ((0.0, 0.0), (0.25, 2.0), (1.0, 4.0)):
        terms = called(objective, objective.numbers(progress))
        assert terms.loss.item() == pytest.approx((terms.parts["recon"] + weight * terms.parts["kl"]).item())
    assert objective.of_means(3.0, 2.0) == 3.0 + 4.0 * 2.0


@pytest.mark.parametrize("beta", [Constant(2.0), Warmup(2.0), Capacity(2.0, max_capacity=5.0)])
def test_the_objective_takes_numbers_as_floats_and_as_tensors(beta):
    objective = ELBO(beta=beta)
    numbers = objective.numbers(0.2)
    as_tensors = {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
    assert called(objective, as_tensors).loss.item() == pytest.approx(called(objective, numbers).loss.item())


@pytest.mark.parametrize("beta", [Constant(2.0), Warmup(2.0), Capacity(2.0, max_capacity=5.0)])
def test_of_mean_terms_it_is_what_it_is_of_a_batch_at_the_end(beta):
    objective = ELBO(beta=beta)
    terms = called(objective, objective.numbers(1.0))
    recon, kl = (terms.parts[name].item() for name in ("recon", "kl"))
    assert objective.of_means(recon, kl) == pytest.approx(terms.loss.item())
