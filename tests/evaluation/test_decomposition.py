"""The parts of the KL are the formulas' over all posteriors: brute force, quadrature, and what they add up to."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.evaluation.decomposition import decompose_kl, log_aggregate
from fmvae.evaluation.registry import merged, nothing
from fmvae.experiments.search_target import check_objective, directions
from fmvae.models import BaseVAE, ConditionalVAE, encode_split
from fmvae.models.priors import Prior
from fmvae.objectives import ELBO
from fmvae.objectives.densities import Density, StandardNormal

PARTS = ("mi", "tc", "dimension_wise")


def made(num: int, dim: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Posteriors (num, dim) in float64, of very different widths."""
    draw = torch.Generator().manual_seed(seed)
    mu, logvar = torch.randn(2, num, dim, generator=draw, dtype=torch.float64)
    return spread * mu, logvar - 2


def drawn(mu: Tensor, logvar: Tensor, num: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of images (num,), draws from their posteriors, and log N(z; 0, I)."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(len(mu), (num,), generator=draw)
    noise = torch.randn(num, mu.shape[1], generator=draw, dtype=torch.float64)
    z = mu[images] + noise * (logvar[images] / 2).exp()
    return images, z, torch.from_numpy(norm.logpdf(z.numpy()).sum(1))


def log_sum(logs: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(logsumexp(logs, axis=axis))


def brute_force(mu: Tensor, logvar: Tensor, images: Tensor, z: Tensor, log_prior: Tensor) -> dict[str, np.ndarray]:
    """The parts of each draw, from the whole array of S x N x D densities."""
    each = norm.logpdf(z.numpy()[:, None], mu.numpy()[None], np.exp(logvar.numpy() / 2)[None])
    own = each.sum(2)[np.arange(len(z)), images.numpy()]
    joint = log_sum(each.sum(2), 1) - math.log(len(mu))
    product = (log_sum(each, 1) - math.log(len(mu))).sum(1)
    return {"mi": own - joint, "tc": joint - product, "dimension_wise": product - log_prior.numpy()}


# --- the formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [None, (7, 33)])
def test_the_parts_are_those_of_brute_force(tile):
    mu, logvar = made(500, 6)
    images, z, log_prior = drawn(mu, logvar, 60)
    found = decompose_kl(mu, logvar, images, z, log_prior, tile=tile)
    expected = brute_force(mu, logvar, images, z, log_prior)
    assert list(found) == [*(f"{name}{end}" for name in (*PARTS, "kl") for end in ("", "_se"))]
    for name, draws in {**expected, "kl": sum(expected.values())}.items():
        assert found[name] == pytest.approx(draws.mean(), abs=1e-9), name
        assert found[f"{name}_se"] == pytest.approx(draws.std(ddof=1) / math.sqrt(60), abs=1e-9), name


def test_wrong_mixtures_are_told_apart():
    """Negative controls: the own image left out, weights of 1 / (N - 1), a batch in place of all images."""
    mu, logvar = made(500, 6)
    images, z, log_prior = drawn(mu, logvar, 60)
    found = decompose_kl(mu, logvar, images, z, log_prior)
    each = norm.logpdf(z.numpy()[:, None], mu.numpy()[None], np.exp(logvar.numpy() / 2)[None]).sum(2)
    own = each[np.arange(60), images.numpy()]
    others = each.copy()
    others[np.arange(60), images.numpy()] = -np.inf
    wrong = (
        log_sum(others, 1) - math.log(499),
        log_sum(each, 1) - math.log(499),
        log_sum(each[:, images.unique().numpy()], 1) - math.log(len(images.unique())),
    )
    right = log_sum(each, 1) - math.log(500)
    assert found["mi"] == pytest.approx((own - right).mean(), abs=1e-9)
    for joint in wrong:
        assert abs(found["mi"] - (own - joint).mean()) > 1e-3


@pytest.mark.parametrize("dim", [1, 2, 10])
def test_the_parts_add_up_to_the_kl_of_the_same_draws(dim):
    mu, logvar = made(300, dim, spread=3.0)
    images, z, log_prior = drawn(mu, logvar, 200)
    found = decompose_kl(mu.float(), logvar.float(), images, z, log_prior)
    mu, logvar = mu.float().double(), logvar.float().double()
    posterior = torch.distributions.Normal(mu[images], (logvar[images] / 2).exp())
    kl = (posterior.log_prob(z).sum(1) - log_prior).mean().item()
    assert sum(found[name] for name in PARTS) == pytest.approx(kl, abs=1e-9)
    assert found["kl"] == pytest.approx(kl, abs=1e-9)


def test_one_dimension_against_quadrature():
    """MI and dimension-wise KL are integrals over q(z), of posteriors in few numbers; TC is exactly 0."""
    mu, logvar = made(40, 1)
    images, z, log_prior = drawn(mu, logvar, 20_000)
    found = decompose_kl(mu, logvar, images, z, log_prior)
    grid = np.linspace(-12, 12, 60_001)
    each = norm.logpdf(grid[:, None], mu[:, 0].numpy(), np.exp(logvar[:, 0].numpy() / 2))
    aggregate = log_sum(each, 1) - math.log(40)
    weights = np.exp(aggregate)
    assert np.trapezoid(weights, grid) == pytest.approx(1, abs=1e-9)
    entropies = 0.5 * (1 + math.log(2 * math.pi) + logvar[:, 0].numpy())
    mi = -np.trapezoid(weights * aggregate, grid) - entropies.mean()
    dimension_wise = np.trapezoid(weights * (aggregate - norm.logpdf(grid)), grid)
    assert abs(found["mi"] - mi) < 4 * found["mi_se"] < 0.1 * mi
    assert abs(found["dimension_wise"] - dimension_wise) < 4 * found["dimension_wise_se"] < 0.2 * dimension_wise
    assert (found["tc"], found["tc_se"]) == (0.0, 0.0)
    closed = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean().item()
    assert mi + dimension_wise == pytest.approx(closed, abs=1e-6)  # control of the quadrature


def lattice(rho: float) -> tuple[Tensor, Tensor]:
    """900 posteriors of equal width whose means are a grid: independent dimensions, or tilted by rho."""
    steps = torch.from_numpy(norm.ppf((np.arange(30) + 0.5) / 30))
    first, second = (part.flatten() for part in torch.meshgrid(steps, steps, indexing="ij"))
    mu = torch.stack([first, rho * first + math.sqrt(1 - rho**2) * second], 1)
    return mu, torch.full_like(mu, math.log(0.25))


def test_independent_dimensions_have_no_total_correlation():
    mu, logvar = lattice(0.0)
    found = decompose_kl(mu, logvar, *drawn(mu, logvar, 3000))
    assert abs(found["tc"]) < 1e-9  # the mixture is the product of two mixtures, so at every draw
    mu, logvar = made(4000, 2)  # means drawn independently, widths too
    found = decompose_kl(mu, logvar, *drawn(mu, logvar, 3000))
    assert abs(found["tc"]) < 4 * found["tc_se"] + 0.02


@pytest.mark.parametrize("rho", [0.6, 0.95])
def test_correlated_means_against_quadrature_in_two_dimensions(rho):
    mu, logvar = lattice(rho)
    found = decompose_kl(mu, logvar, *drawn(mu, logvar, 4000))
    line = np.linspace(-5.5, 5.5, 221)
    one, two = (norm.pdf(line[:, None], mu[:, j].numpy(), 0.5) for j in range(2))
    joint = one @ two.T / len(mu)
    product = np.outer(one.mean(1), two.mean(1))
    area = (line[1] - line[0]) ** 2
    assert joint.sum() * area == pytest.approx(1, abs=1e-6)
    expected = (joint * np.log(joint / product)).sum() * area
    assert expected > 0.1
    assert abs(found["tc"] - expected) < 4 * found["tc_se"] < 0.3 * expected


def test_the_standard_errors_are_the_spread_of_repeated_draws():
    mu, logvar = made(200, 3)
    found = [decompose_kl(mu, logvar, *drawn(mu, logvar, 100, seed)) for seed in range(300)]
    for name in (*PARTS, "kl"):
        spread = np.std([block[name] for block in found], ddof=1)
        said = np.mean([block[f"{name}_se"] for block in found])
        assert spread == pytest.approx(said, rel=0.15), name
    # negative control: the parts of a draw are correlated, so their errors do not add up as independent ones do
    independent = math.sqrt(sum(np.mean([block[f"{name}_se"] for block in found]) ** 2 for name in PARTS))
    assert np.std([block["kl"] for block in found], ddof=1) != pytest.approx(independent, rel=0.15)


# --- how it is computed ---------------------------------------------------------------------------------------


def test_tiles_and_threads_change_rounding_only():
    mu, logvar = made(901, 5)
    images, z, log_prior = drawn(mu, logvar, 101)
    usual = decompose_kl(mu, logvar, images, z, log_prior)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            assert decompose_kl(mu, logvar, images, z, log_prior) == usual
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    for tile in ((1, 100), (101, 1), (7, 90), (101, 901), (200, 4000)):
        some = decompose_kl(mu[:, :2], logvar[:, :2], images, z[:, :2], log_prior, tile=tile)
        assert some == pytest.approx(
            decompose_kl(mu[:, :2], logvar[:, :2], images, z[:, :2], log_prior), rel=1e-12
        )


def test_densities_that_underflow_and_overflow_are_summed_exactly():
    """Draws far from every mean, and posteriors so narrow that a density exceeds the largest float64."""
    mu, logvar = made(50, 40)
    z = torch.full((3, 40), 60.0, dtype=torch.float64)
    for spread in (logvar, logvar - 40):
        each = norm.logpdf(z.numpy()[:, None], mu.numpy(), np.exp(spread.numpy() / 2))
        joint, marginals = log_aggregate(mu, spread, z)
        assert np.exp(joint.numpy()) == pytest.approx(0, abs=0)
        np.testing.assert_allclose(joint, log_sum(each.sum(2), 1) - math.log(50), rtol=1e-12)
        np.testing.assert_allclose(marginals, log_sum(each, 1) - math.log(50), rtol=1e-12)
    narrow = logvar - 60
    joint, _ = log_aggregate(mu, narrow, mu[:3])
    assert torch.isfinite(joint).all()
    assert joint.min() > 1000


# --- the measure ----------------------------------------------------------------------------------------------


def settings(num_samples: int, **others: Any) -> dict[str, Any]:
    usual = compose(["evaluation.cache=null"])["evaluation"]
    return nothing(usual) | {"decomposition": {"num_samples": num_samples}} | others


def evaluator(model, data, num_samples: int = 400, **others: Any) -> Evaluator:
    return Evaluator(model, ELBO(), data, seed=3, settings=settings(num_samples, **others))


def model_of(kind: Any = BaseVAE) -> Any:
    with rng.seeded_init(0):
        model = kind(3, hidden_dim=16)
    with torch.no_grad():
        model.mu.weight.mul_(20)
    return model


@pytest.mark.parametrize("kind", [BaseVAE, ConditionalVAE])
@pytest.mark.parametrize("num_samples", [150, 500])  # fewer draws than training images, and more
def test_the_block_is_of_all_training_images(kind, num_samples, small_data):
    model, data = model_of(kind), small_data(num_train=400, num_test=50)
    block = dict(evaluator(model, data, num_samples).measure())["decomposition"]
    assert block["settings"] == {"num_samples": num_samples}
    assert (block["num_draws"], block["num_images"]) == (num_samples, 300)
    order = torch.randperm(300, generator=rng.stream(0, "evaluation"))
    images = order.repeat(2)[:num_samples]
    mu, logvar, _ = encode_split(model, data.train)
    mu, logvar = mu.detach().double(), logvar.detach().double()
    noise = torch.randn(num_samples, 3, generator=rng.stream(3, "evaluation", 1), dtype=torch.float64)
    z = mu[images] + noise * (logvar[images] / 2).exp()
    expected = brute_force(mu, logvar, images, z, torch.from_numpy(norm.logpdf(z.numpy()).sum(1)))
    assert {name: block[name] for name in PARTS} == pytest.approx(
        {name: draws.mean() for name, draws in expected.items()}, abs=1e-9
    )
    assert block["mi"] > 0.3
    assert sum(block[name] for name in PARTS) == pytest.approx(block["kl"], abs=1e-9)
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    again = evaluator(model, data, num_samples).compute("decomposition")
    assert again == block


class Shifted(Density):
    """N(1, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        assert z.dtype == torch.float64  # not rounded to the precision of the prior's weights
        return StandardNormal(z.shape[1], z).log_prob(z - 1)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        return 1 + torch.randn(num, 3, generator=generator)


class ShiftedPrior(Prior):
    def density(self, model) -> Density:
        return Shifted(3, torch.empty(0))


def test_another_prior_changes_the_dimension_wise_kl_only(small_data):
    model, data = model_of(), small_data(num_train=200, num_test=50)
    usual = evaluator(model, data).compute("decomposition")
    model.latent_prior = ShiftedPrior()
    other = evaluator(model, data).compute("decomposition")
    assert [other[name] for name in ("mi", "tc")] == [usual[name] for name in ("mi", "tc")]
    assert abs(other["dimension_wise"] - usual["dimension_wise"]) > 0.5
    assert sum(other[name] for name in PARTS) == pytest.approx(other["kl"], abs=1e-9)


def test_with_another_prior_the_latents_are_not_compared_with_the_standard_one(small_data):
    model, data = model_of(), small_data(num_train=200, num_test=50)
    usual = evaluator(model, data, latent=True)
    model.latent_prior = ShiftedPrior()
    other = evaluator(model, data, latent=True)
    gone = {"kl_per_dimension", "aggregate_kl", "aggregate_mean_norm", "aggregate_covariance_gap"}
    measured = usual.compute("latent"), other.compute("latent")
    assert measured[0].keys() - measured[1].keys() == gone
    assert measured[1].items() <= measured[0].items()
    tags = [{column.tag for column in made.measures["latent"].columns} for made in (usual, other)]
    assert tags[0] - tags[1] == gone - {"kl_per_dimension"}


def test_a_single_draw_is_refused_and_none_leaves_it_out(small_data):
    model, data = model_of(), small_data(num_train=200, num_test=50)
    with pytest.raises(ConfigError, match=r"^evaluation\.decomposition\.num_samples: one draw.*2 or more"):
        evaluator(model, data, 1)
    assert list(evaluator(model, data, 0).plan()) == ["test"]
    with pytest.raises(ConfigError, match=r"^evaluation\.decomposition\.num_samples: -1 is not a whole number"):
        compose(["evaluation.decomposition.num_samples=-1"])


def test_a_search_goes_by_its_numbers(small_data):
    config = compose(["objective=decomposition/tc"])
    tags = [column.tag for column in evaluator(model_of(), small_data()).columns()]
    check_objective(config, tags)
    assert directions(config) == ("minimize",)
    with pytest.raises(ConfigError, match=r"evaluation\.decomposition\.num_samples, as 2000"):
        check_objective(config, ["test/neg_elbo"])
    with pytest.raises(ConfigError, match="neither low nor high"):
        directions(compose(["objective=decomposition/mi"]))


def test_it_is_off_in_the_fast_evaluation():
    assert compose(["evaluation=fast"])["evaluation"]["decomposition"] == {"num_samples": 0}
    usual = compose([])["evaluation"]
    assert usual["decomposition"] == {"num_samples": 2000}
    assert merged(usual, {"decomposition": {"num_samples": 5}}) == {"decomposition": {"num_samples": 5}}
