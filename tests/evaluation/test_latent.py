"""The latent measures are their closed forms, on posteriors whose moments and classes are known."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from fmvae import rng
from fmvae.evaluation import latent as module
from fmvae.evaluation import measure_elbo
from fmvae.evaluation.latent import fit_probe, latent_measures, probe_accuracy
from fmvae.models import BaseVAE, Posteriors, encode_split
from fmvae.objectives import ELBO

NUM_CLASSES = 3
M = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
S = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.7]], dtype=torch.float64)
EXPLAINED = 0.6  # share of S that is the variance of mu, of the diagonal


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def posteriors(mu, logvar=None, labels=None) -> Posteriors:
    mu = torch.as_tensor(mu)
    logvar = torch.zeros_like(mu) if logvar is None else torch.as_tensor(logvar)
    return Posteriors(mu, logvar, torch.zeros(len(mu), dtype=torch.int64) if labels is None else labels)


def with_moments(mean: torch.Tensor, covariance: torch.Tensor, num: int = 500) -> Posteriors:
    """Posteriors whose mixture has exactly this mean and covariance, with variances that differ between images."""
    raw = random().normal(size=(num, len(mean)))
    raw -= raw.mean(0)
    raw = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / num)).T  # exactly white
    of_mu = covariance - torch.diag((1 - EXPLAINED) * covariance.diagonal())
    mu = mean + torch.from_numpy(raw) @ torch.linalg.cholesky(of_mu).T
    shares = torch.linspace(0.5, 1.5, num, dtype=torch.float64)[:, None]  # of mean 1
    return posteriors(mu, (shares * (1 - EXPLAINED) * covariance.diagonal()).log())


def measured(test: Posteriors, train: Posteriors | None = None, num_classes: int = NUM_CLASSES) -> dict:
    return latent_measures(train or test, test, num_classes)


def clusters(
    num: int, *, distance: float, dim: int = 5, num_classes: int = NUM_CLASSES, seed: int = 0
) -> Posteriors:
    """Gaussian clusters around scaled unit vectors, on dimensions of very different scale and offset."""
    draw = random(seed)
    labels = draw.integers(num_classes, size=num)
    mu = distance * np.eye(num_classes, dim)[labels] + draw.normal(size=(num, dim))
    mu = mu * 10.0 ** np.arange(-2, dim - 2) + 3
    return posteriors(mu.astype(np.float32), labels=torch.from_numpy(labels))


def test_kl_per_dimension_sums_to_the_measured_kl(small_data):
    data = small_data(num_test=70)
    with rng.seeded_init(0):
        model = BaseVAE(4, hidden_dim=16)
    test = encode_split(model, data.test)
    result = measured(test, encode_split(model, data.train), num_classes=10)
    kl = measure_elbo(model, ELBO(), data.test, rng.stream(0, "evaluation"))["kl"]
    assert sum(result["kl_per_dimension"]) == pytest.approx(kl, rel=1e-6)
    assert sum(result["kl_per_dimension"][:-1]) != pytest.approx(kl, rel=1e-3)
    assert result["num_images"] == 70
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_each_dimension_has_its_own_kl():
    test = with_moments(M, S)
    expected = kl_divergence(Normal(test.mu, (test.logvar / 2).exp()), Normal(0.0, 1.0)).mean(0)
    assert measured(test)["kl_per_dimension"] == pytest.approx(expected.tolist(), rel=1e-12)
    assert len({round(kl, 3) for kl in expected.tolist()}) == 3


def test_float32_posteriors_are_measured_in_float64():
    """Around a far mean, float32 squares lose the variance; float64 ones of the same numbers do not."""
    mu = (1000 + 0.2 * random().normal(size=(400, 2))).astype(np.float32)
    result = measured(posteriors(mu))
    assert result["mu_variance"] == pytest.approx(mu.astype(np.float64).var(0).tolist(), rel=1e-9)
    assert (mu**2).mean(0) - mu.mean(0) ** 2 != pytest.approx(mu.astype(np.float64).var(0), rel=1e-3)


@pytest.mark.parametrize(("deviations", "active"), [([0.0, 0.0], 0), ([0.099, 0.101], 1), ([0.101, 2.0], 2)])
def test_units_are_active_above_a_variance_of_a_hundredth(deviations, active):
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50)[:, None]
    result = measured(posteriors(5 + signs * torch.tensor(deviations), labels=torch.arange(100) % 3))
    assert result["active_units"] == active
    assert result["mu_variance"] == pytest.approx([d**2 for d in deviations])


def test_the_variance_of_the_posteriors_makes_no_unit_active():
    assert measured(posteriors(torch.zeros(10, 2), torch.full((10, 2), 3.0)))["active_units"] == 0


def test_the_aggregate_posterior_against_the_prior():
    result = measured(with_moments(M, S))
    prior = MultivariateNormal(torch.zeros_like(M), torch.eye(3, dtype=torch.float64))
    assert result["aggregate_mean_norm"] == pytest.approx(math.sqrt(1.25), rel=1e-12)
    squares = 1.0**2 + 0.3**2 + 2 * (0.6**2 + 0.3**2)  # of the elements of S - I
    assert result["aggregate_covariance_gap"] == pytest.approx(math.sqrt(squares), rel=1e-12)
    expected = kl_divergence(MultivariateNormal(M, S), prior).item()
    assert result["aggregate_kl"] == pytest.approx(expected, rel=1e-12)
    assert kl_divergence(prior, MultivariateNormal(M, S)).item() != pytest.approx(expected, rel=0.1)
    unlinked = Independent(Normal(M, S.diagonal().sqrt()), 1)
    given = MultivariateNormal(M, S)
    entropies = (unlinked.entropy() - given.entropy()).item()
    assert result["gaussian_total_correlation"] == pytest.approx(entropies, rel=1e-12)


def test_an_aggregate_that_is_the_prior_has_no_gap():
    result = measured(with_moments(torch.zeros_like(M), torch.eye(3, dtype=torch.float64)))
    gaps = [result[key] for key in ("aggregate_mean_norm", "aggregate_covariance_gap", "aggregate_kl")]
    assert [*gaps, result["gaussian_total_correlation"]] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize("rho", [-0.5, 0.3, 0.55])
def test_total_correlation_of_two_correlated_gaussians(rho):
    scales = torch.tensor([3.0, 0.1], dtype=torch.float64)
    correlation = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    result = measured(with_moments(torch.zeros(2).double(), correlation * scales * scales[:, None]))
    assert result["gaussian_total_correlation"] == pytest.approx(-0.5 * math.log(1 - rho**2), rel=1e-9)


def test_the_moments_are_those_of_draws_from_the_mixture():
    test = with_moments(M, S, num=50)
    draw = random(7)
    index = draw.integers(50, size=400_000)
    mu, deviation = test.mu.numpy()[index], np.exp(test.logvar.numpy() / 2)[index]
    z = mu + deviation * draw.normal(size=mu.shape)
    result = measured(test)
    assert np.linalg.norm(z.mean(0)) == pytest.approx(result["aggregate_mean_norm"], abs=0.01)
    gap = np.linalg.norm(np.cov(z.T) - np.eye(3))
    assert gap == pytest.approx(result["aggregate_covariance_gap"], abs=0.03)
    assert np.linalg.norm(np.cov(mu.T) - np.eye(3)) != pytest.approx(gap, abs=0.1)  # means alone miss a part


def test_linearly_dependent_latents_are_no_error():
    mu = random().normal(size=(100, 1)) * np.array([[1.0, 1.0, -2.0]])
    result = measured(posteriors(mu, np.full((100, 3), -40.0)))
    assert result["gaussian_total_correlation"] > 30
    assert math.isfinite(result["aggregate_kl"])


def test_one_latent_dimension():
    result = measured(posteriors([[1.0], [-1.0], [1.0], [-1.0]], torch.full((4, 1), math.log(2.0))))
    assert result["aggregate_covariance_gap"] == pytest.approx(2, rel=1e-6)
    assert result["aggregate_kl"] == pytest.approx(0.5 * (3 - 1 - math.log(3)), rel=1e-6)
    assert result["gaussian_total_correlation"] == pytest.approx(0, abs=1e-12)
    assert len(result["kl_per_dimension"]) == len(result["mu_variance"]) == result["active_units"] == 1


def probe_loss(weights: torch.Tensor, inputs: np.ndarray, labels: torch.Tensor) -> torch.Tensor:
    """The probe's objective, written again."""
    logits = torch.from_numpy(inputs) @ weights
    return F.cross_entropy(logits, labels) + 0.5 * module.PROBE_L2 * weights.square().sum()


def fitted_by_torch(inputs: np.ndarray, labels: torch.Tensor, num_classes: int) -> np.ndarray:
    weights = torch.zeros(inputs.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=3000, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = probe_loss(weights, inputs, labels)
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach().numpy()


@pytest.mark.parametrize("distance", [1.0, 8.0])  # overlapping, separable
@pytest.mark.parametrize("missing", [False, True])
def test_the_probe_is_the_minimum_another_optimiser_finds(distance, missing, monkeypatch):
    train = clusters(600, distance=distance)
    mu = train.mu.double().numpy()
    inputs = np.column_stack([(mu - mu.mean(0)) / mu.std(0), np.ones(600)])
    num_classes = NUM_CLASSES + missing
    expected = fitted_by_torch(inputs, train.labels, num_classes)
    weights = fit_probe(inputs, train.labels.numpy(), num_classes)
    assert weights == pytest.approx(expected, abs=0.05 * np.abs(expected).max())
    agreed = (inputs @ weights).argmax(1) == (inputs @ expected).argmax(1)
    assert agreed.mean() > 0.995
    there = torch.from_numpy(weights).requires_grad_()
    probe_loss(there, inputs, train.labels).backward()
    assert there.grad is not None
    assert there.grad.abs().max() <= 1.01e-5  # what the fit promises
    monkeypatch.setattr(module, "PROBE_L2", 1e-2)
    other = fit_probe(inputs, train.labels.numpy(), num_classes)
    assert other != pytest.approx(expected, abs=0.05 * np.abs(expected).max())


def test_the_probe_finds_separable_classes_and_nothing_in_random_labels():
    train, test = (clusters(2000, distance=8.0, seed=seed) for seed in (0, 1))
    assert probe_accuracy(train, test, NUM_CLASSES) > 0.995
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    random_train, random_test = (p._replace(labels=p.labels[order]) for p in (train, test))
    assert probe_accuracy(random_train, random_test, NUM_CLASSES) == pytest.approx(1 / 3, abs=0.05)
    assert probe_accuracy(train, test._replace(labels=(test.labels + 1) % 3), NUM_CLASSES) < 0.005


def test_the_scale_of_the_latents_does_not_matter_to_the_probe():
    """A penalty on the weights of unstandardised latents would silence the dimensions of small scale."""
    train, test = (clusters(2000, distance=8.0, seed=seed) for seed in (0, 1))
    tiny_train, tiny_test = (p._replace(mu=p.mu * 2.0**-20) for p in (train, test))
    expected = probe_accuracy(train, test, NUM_CLASSES)
    assert probe_accuracy(tiny_train, tiny_test, NUM_CLASSES) == expected > 0.99


def test_the_probe_sees_the_labels_of_training_only():
    """Labels that mean something in the test split alone are not learnt from it."""
    train, test = (clusters(500, distance=8.0, seed=seed) for seed in (0, 1))
    renamed = test._replace(labels=test.labels.roll(1))
    assert probe_accuracy(train, renamed, NUM_CLASSES) < 0.5
    assert probe_accuracy(renamed, renamed, NUM_CLASSES) < 0.5
    assert probe_accuracy(train, test, NUM_CLASSES) > 0.99


def test_a_class_that_training_lacks_is_never_predicted():
    train, test = (clusters(900, distance=8.0, seed=seed) for seed in (0, 1))
    lacking = Posteriors(*(part[train.labels != 1] for part in train))
    share = (test.labels != 1).double().mean().item()
    assert probe_accuracy(lacking, test, NUM_CLASSES) == pytest.approx(share, abs=0.01)
    assert probe_accuracy(train, test, NUM_CLASSES) > share + 0.2


def test_constant_latents_leave_the_commonest_class():
    train = posteriors(np.full((100, 2), 0.3, np.float32), labels=torch.tensor([2] * 60 + [0] * 40))
    test = posteriors(np.full((50, 2), 0.3, np.float32), labels=torch.tensor([2] * 20 + [1] * 30))
    result = measured(test, train)
    assert result["linear_probe_accuracy"] == 20 / 50
    assert result["active_units"] == 0


def test_a_dimension_that_training_holds_constant_is_ignored():
    """Rounding apart it says nothing; divided by its deviation, the test values would drown the rest."""
    train, test = (clusters(500, distance=8.0, seed=seed) for seed in (0, 1))
    tiny = 1 + torch.arange(500)[:, None] % 2 * 1.2e-7
    with_constant = train._replace(mu=torch.cat([train.mu, tiny], 1))
    wild = test._replace(
        mu=torch.cat([test.mu, 50 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))], 1)
    )
    assert probe_accuracy(with_constant, wild, NUM_CLASSES) == probe_accuracy(train, test, NUM_CLASSES) > 0.99


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(IndexError):
        probe_accuracy(clusters(50, distance=1.0), clusters(50, distance=1.0), 2)


def test_asking_again_gives_the_same_numbers():
    train, test = (clusters(300, distance=1.0, seed=seed) for seed in (0, 1))
    assert latent_measures(train, test, 3) == latent_measures(train, test, 3) != latent_measures(test, train, 3)
