"""The measured ELBO is its formula in double precision, and measuring leaves no trace."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from fmvae import rng
from fmvae.data import Split
from fmvae.evaluation import likelihood as module
from fmvae.evaluation import measure_elbo
from fmvae.models import (
    VAE,
    BaseVAE,
    BetaVAE,
    ConditionalVAE,
    ConvVAE,
    FlowPrior,
    MixturePrior,
    ResidualVAE,
    VampPrior,
)
from fmvae.objectives import ELBO, Bernoulli, BetaSchedule, Capacity, Constant, Gaussian, Likelihood, Warmup

MODELS = {
    "base": lambda: BaseVAE(2, hidden_dim=16),
    "conv": lambda: ConvVAE(3),
    "beta": lambda: BetaVAE(2),
    "residual": lambda: ResidualVAE(2, width=8),
    "conditional": lambda: ConditionalVAE(2, hidden_dim=16),
}


@pytest.fixture(scope="module")
def split(small_data) -> Split:
    return small_data(num_test=70).test


def made(name: str) -> VAE:
    with rng.seeded_init(0):
        return MODELS[name]()


def objective_of(beta: BetaSchedule | None = None, likelihood: Likelihood | None = None) -> ELBO:
    return ELBO(likelihood or Bernoulli(), beta or Constant(4.0))


def noise(seed: int = 0) -> torch.Generator:
    return rng.stream(seed, "evaluation")


def bce(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cross-entropy per image, of logits, in NumPy."""
    per_pixel = np.maximum(logits, 0) - logits * x + np.log1p(np.exp(-np.abs(logits)))
    return per_pixel.reshape(len(x), -1).sum(1)


@torch.no_grad()
def in_double(model: VAE, split: Split, batch: int = 10**9) -> dict[str, float]:
    """recon, kl and recon at the mean, with the model and every sum in float64, at the noise of ``noise()``."""
    model = copy.deepcopy(model).double().eval()
    generator, sums = noise(), np.zeros(3)
    for start in range(0, len(split), batch):
        x = split.images[start : start + batch].double() / 255
        labels = split.labels[start : start + batch]
        mu, logvar = model.encode(x, labels)
        epsilon = torch.randn(mu.shape, generator=generator)  # float32, as it is drawn
        z = mu + epsilon.double() * torch.exp(logvar / 2)
        kl = -0.5 * (1 + logvar - mu**2 - torch.exp(logvar)).sum(1)
        sampled, at_mean = (bce(model.decode(latent, labels).numpy(), x.numpy()) for latent in (z, mu))
        sums += [sampled.sum(), kl.numpy().sum(), at_mean.sum()]
    return dict(zip(("recon", "kl", "recon_at_mean"), sums / len(split), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_the_terms_are_the_formula_in_double_precision(name, split):
    model = made(name)
    expected = in_double(model, split)
    measured = measure_elbo(model, objective_of(), split, noise(), at_mean=True)
    assert {key: measured[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert measured["recon"] != pytest.approx(measured["recon_at_mean"], rel=1e-5)  # they are told apart


def test_the_comparison_sees_other_noise_and_other_weights(split):
    expected = in_double(made("base"), split)["recon"]
    assert measure_elbo(made("base"), objective_of(), split, noise(1))["recon"] != pytest.approx(
        expected, rel=1e-5
    )
    other = made("base")
    with torch.no_grad():
        other.get_parameter("decoder.2.bias").add_(1e-3)
    assert measure_elbo(other, objective_of(), split, noise())["recon"] != pytest.approx(expected, rel=1e-5)


def test_the_totals_are_made_of_the_terms(split):
    measured = measure_elbo(made("base"), objective_of(), split, noise(), at_mean=True)
    assert measured["objective"] == measured["recon"] + 4.0 * measured["kl"]
    assert measured["neg_elbo"] == measured["recon"] + measured["kl"]
    assert measured["objective_at_mean"] == measured["recon_at_mean"] + 4.0 * measured["kl"]


def test_without_at_mean_the_other_numbers_are_the_same(split):
    short = measure_elbo(made("base"), objective_of(), split, noise())
    full = measure_elbo(made("base"), objective_of(), split, noise(), at_mean=True)
    assert set(short) == {"objective", "recon", "kl", "neg_elbo"}
    assert short == {key: full[key] for key in short}


@pytest.mark.parametrize("beta", [Warmup(4.0, fraction=1.0), Constant(4.0)])
def test_the_final_beta_is_used_however_it_is_reached(beta, split):
    measured = measure_elbo(made("base"), objective_of(beta), split, noise())
    assert measured["objective"] == measured["recon"] + 4.0 * measured["kl"]


def test_the_capacity_objective_measures_the_mean_kl(split):
    measured = measure_elbo(made("base"), objective_of(Capacity(10.0, 3.0)), split, noise())
    assert measured["objective"] == pytest.approx(measured["recon"] + 10 * abs(measured["kl"] - 3))


def test_another_likelihood_is_measured_by_its_own_formula(split):
    model = made("base")
    measured = measure_elbo(model, objective_of(likelihood=Gaussian(0.5)), split, noise(), at_mean=True)
    x = split.images.double().numpy() / 255
    with torch.no_grad():
        mu, _ = model.encode(split.images.float() / 255)
        pictured = 1 / (1 + np.exp(-model.decode(mu).double().numpy()))
    per_pixel = 0.5 * ((x - pictured) / 0.5) ** 2 + np.log(0.5 * np.sqrt(2 * np.pi))
    assert measured["recon_at_mean"] == pytest.approx(per_pixel.reshape(len(x), -1).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [1, 7, 69])
def test_the_batch_size_does_not_matter_where_nothing_is_drawn(name, batch, split, monkeypatch):
    model = made(name)
    whole = measure_elbo(model, objective_of(), split, noise(), at_mean=True)
    monkeypatch.setattr(module, "EVALUATION_BATCH", batch)
    parts = measure_elbo(model, objective_of(), split, noise(), at_mean=True)
    for term in ("kl", "recon_at_mean"):
        assert parts[term] == pytest.approx(whole[term], rel=1e-6)
    expected = in_double(model, split, batch)
    assert parts["recon"] == pytest.approx(expected["recon"], rel=1e-5)  # and of the short last batch


def test_asking_again_gives_the_same_bits(split):
    model = made("beta")
    first, again = (measure_elbo(model, objective_of(), split, noise(), at_mean=True) for _ in range(2))
    assert first == again
    assert measure_elbo(model, objective_of(), split, noise(1)) != first


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training, split):
    model = made("beta").train(training)
    before: dict[str, Any] = copy.deepcopy(model.state_dict())
    global_state = torch.get_rng_state()
    measure_elbo(model, objective_of(), split, noise(), at_mean=True)
    assert all(module.training is training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), global_state)


def test_batch_norm_measures_with_what_it_has_learnt(split):
    """In training mode an image's numbers would depend on its neighbours."""
    model = made("beta").train()
    x = split.images[:8].float() / 255
    with torch.no_grad():
        for _ in range(5):
            model(x, generator=noise())
    measured = measure_elbo(model, objective_of(), split, noise())
    assert measured == measure_elbo(model.eval(), objective_of(), split, noise())
    with torch.no_grad():
        mu, logvar = model.train().encode(split.images.float() / 255)
    in_training_mode = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(1).mean().item()
    assert measured["kl"] != pytest.approx(in_training_mode, rel=1e-3)


def test_a_conditional_model_is_measured_with_the_images_own_labels(split):
    model = made("conditional")
    wrong = Split("wrong", split.images, (split.labels + 1) % 10)
    a, b = (measure_elbo(model, objective_of(), s, noise(), at_mean=True) for s in (split, wrong))
    assert a["recon_at_mean"] != b["recon_at_mean"]
    assert a["kl"] != b["kl"]


# --- other priors -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    "prior", [lambda: MixturePrior(2, 5), lambda: VampPrior((1, 28, 28), 5), lambda: FlowPrior(2, hidden=[8])]
)
def test_the_kl_follows_the_prior_at_the_same_draw(prior, split):
    model, asked = made("base"), []
    standard = measure_elbo(model, objective_of(), split, noise())
    with rng.seeded_init(1):
        model.latent_prior = prior()
        for parameter in model.latent_prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    density, find = model.prior_density(), model.prior_density
    model.prior_density = lambda: asked.append(1) or find()
    measured = measure_elbo(model, objective_of(), split, noise())
    assert len(asked) == 1
    mu, logvar = model.eval().encode(split.images.float() / 255)
    epsilon = torch.randn(mu.shape, generator=noise())
    posterior = torch.distributions.Normal(mu.double(), (0.5 * logvar.double()).exp())
    z = mu.double() + epsilon.double() * posterior.stddev
    kl = (posterior.log_prob(z).sum(1) - density.log_prob(z)).mean().item()
    assert measured["kl"] == pytest.approx(kl, rel=1e-5)
    assert measured["kl"] != pytest.approx(standard["kl"], rel=1e-2)
    assert measured["recon"] == standard["recon"]  # the posteriors' draws do not depend on the prior
    assert measured["neg_elbo"] == measured["recon"] + measured["kl"]


def test_objectives_are_measured_in_evaluation_mode_and_keep_their_own(split):
    class Likelihood(Bernoulli):
        def nll(self, logits, x):
            seen.append(objective.training)
            return super().nll(logits, x)

    seen: list[bool] = []
    objective = objective_of(likelihood=Likelihood()).train()
    objective.network = torch.nn.Linear(1, 1).eval()
    modes = [layer.training for layer in objective.modules()]
    measure_elbo(made("base"), objective, split, noise(), at_mean=True)
    assert seen
    assert not any(seen)
    assert [layer.training for layer in objective.modules()] == modes
    assert any(modes)
    assert not all(modes)
