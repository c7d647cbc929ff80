"""fmvae.objectives.tcvae: the estimates of q(z) against the paper's formulas, and the objective."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from fmvae.objectives import BetaTCVAE, Warmup, kl_divergence
from fmvae.objectives.tcvae import log_aggregate, log_weights
from fmvae.training.precision import in_precision
from tests.objectives.tiny import (
    base,
    batch_of,
    batched_and_alone,
    conditional,
    gradients,
    gradients_are_right,
    with_pseudo_inputs,
)

MODELS = {"base": base, "conditional": conditional, "prior of encoded images": with_pseudo_inputs}


def posteriors(num: int, latent_dim: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draws, means and log-variances, each (num, latent_dim), in float64."""
    generator = torch.Generator().manual_seed(seed)
    mu, logvar, noise = torch.randn(3, num, latent_dim, generator=generator, dtype=torch.float64)
    return mu + noise * (0.5 * logvar).exp(), mu, logvar


# --- the paper's formulas, as loops -------------------------------------------------------------------------


def density(z: float, mu: float, logvar: float) -> float:
    return math.exp(-0.5 * (z - mu) ** 2 / math.exp(logvar)) / math.sqrt(2 * math.pi * math.exp(logvar))


def by_loops(estimate: str, draws: Any, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """log q(z) (B,) and log q(z_j) (B, D), in the order of Chen et al. 2018, app. C: n*, then the M others."""
    z, mu, logvar = (tensor.tolist() for tensor in draws)
    batch, dims = len(z), len(z[0])
    N, M = num_train, batch - 1
    joint, marginals = np.zeros(batch), np.zeros((batch, dims))
    for i in range(batch):
        others = [(i + 1 + m) % batch for m in range(M)]
        weight = {i: 1 / N} | dict.fromkeys(others, 1 / M)
        weight[others[0]] = (N - M) / (N * M)
        if estimate == "mws":
            weight = dict.fromkeys(range(batch), 1 / (N * batch))
        q = [[density(z[i][d], mu[j][d], logvar[j][d]) for d in range(dims)] for j in range(batch)]
        joint[i] = math.log(sum(weight[j] * math.prod(q[j]) for j in range(batch)))
        for d in range(dims):
            marginals[i, d] = math.log(sum(weight[j] * q[j][d] for j in range(batch)))
    return joint, marginals


def stride_weights(batch: int, num_train: int) -> Tensor:
    """As published code fills the flattened matrix, with a stride of B: they are columns, not diagonals."""
    M = batch - 1
    weights = torch.full((batch, batch), 1 / M, dtype=torch.float64)
    weights.view(-1)[:: M + 1] = 1 / num_train
    weights.view(-1)[1 :: M + 1] = (num_train - M) / (num_train * M)
    weights[M - 1, 0] = (num_train - M) / (num_train * M)
    return weights.log()


def weights_in_each_dimension(draws: Any, weights: Tensor) -> tuple[Tensor, Tensor]:
    """As published code adds them before the sum over dimensions: they count D times in log q(z)."""
    z, mu, logvar = draws
    pairs = Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]) + weights[:, :, None]
    return pairs.sum(2).logsumexp(1), pairs.logsumexp(1)


def estimated(estimate: Any, draws: Any, num_train: int) -> tuple[Tensor, Tensor]:
    z, mu, logvar = draws
    return log_aggregate(z, mu, logvar, log_weights(estimate, len(z), num_train, z))


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("estimate", ["mss", "mws"])
def test_the_estimates_are_the_formulas_of_the_paper(estimate, batch):
    draws = posteriors(batch, 3)
    joint, marginals = estimated(estimate, draws, 40)
    expected = by_loops(estimate, draws, 40)
    np.testing.assert_allclose(joint, expected[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(marginals, expected[1], rtol=0, atol=1e-9)


def test_both_faults_of_published_code_are_told_apart():
    draws = posteriors(7, 3)
    joint, marginals = by_loops("mss", draws, 40)
    wrong, wrong_marginals = log_aggregate(*draws, stride_weights(7, 40))
    assert np.abs(wrong.numpy() - joint).max() > 0.1
    assert np.abs(wrong_marginals.numpy() - marginals).max() > 0.1
    wrong, right = weights_in_each_dimension(draws, log_weights("mss", 7, 40, draws[0]))
    assert np.abs(wrong.numpy() - joint).min() > 0.1
    np.testing.assert_allclose(right, marginals, rtol=0, atol=1e-9)  # only the joint is wrong


@pytest.mark.parametrize(
    ("batch", "num_train"), [(1, 40), (2, 2), (2, 40), (5, 5), (5, 40), (128, 54_000), (6, 4)]
)
def test_the_stratified_weights_add_up_to_one(batch, num_train):
    """(6, 4): a batch of another split, larger than the training split, counts as the whole set."""
    weights = log_weights("mss", batch, num_train, torch.zeros(1, dtype=torch.float64)).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(batch, dtype=torch.float64), rtol=0, atol=1e-13)
    assert (weights.diagonal() == weights[0, 0]).all()
    assert weights[0, 0] == pytest.approx(1.0 if batch == 1 else 1 / max(num_train, batch))


# --- what they estimate -------------------------------------------------------------------------------------


def toy(seed: int) -> tuple[tuple[float, float], dict[str, Tensor]]:
    """Exact (TC, MI) of N = 1,000 posteriors in 4 dimensions, and estimates of 20 batches of 64, each (20, 2).

    Their means are draws of N(0, 3/4), and sigma is 0.5, so that q(z) is near N(0, 1).
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    N, B = 1000, 64
    mu, logvar = math.sqrt(0.75) * normal(N, 4), torch.full((4,), math.log(0.25), dtype=torch.float64)
    posterior = Normal(mu, 0.5)

    def parts(own: Tensor, joint: Tensor, marginals: Tensor) -> list[float]:
        return [(joint - marginals.sum(1)).mean().item(), (own - joint).mean().item()]

    z = mu.repeat(3, 1) + 0.5 * normal(3 * N, 4)
    pairs = posterior.log_prob(z[:, None])
    own = Normal(mu.repeat(3, 1), 0.5).log_prob(z).sum(1)
    tc, mi = parts(own, pairs.sum(2).logsumexp(1) - math.log(N), pairs.logsumexp(1) - math.log(N))

    found: dict[str, list] = {"mss": [], "stride": [], "stride and sum": [], "mws": []}
    for _ in range(20):
        means = mu[torch.randperm(N, generator=generator)[:B]]
        draws = means + 0.5 * normal(B, 4), means, logvar.expand(B, 4)
        own = Normal(means, 0.5).log_prob(draws[0]).sum(1)
        found["mss"].append(parts(own, *estimated("mss", draws, N)))
        found["stride"].append(parts(own, *log_aggregate(*draws, stride_weights(B, N))))
        found["stride and sum"].append(parts(own, *weights_in_each_dimension(draws, stride_weights(B, N))))
        found["mws"].append(parts(own, *estimated("mws", draws, N)))
    return (tc, mi), {name: torch.tensor(rows) for name, rows in found.items()}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_toy_tells_the_estimates_and_the_faults_apart(seed):
    """(TC, MI) against those of another implementation, to four standard errors of two means of 20 batches.

    The last fault is that of public code as a whole: weights in columns, and counted once for each dimension.
    """
    expected = {"mss": (-0.12, 2.92), "stride": (0.25, 2.42), "stride and sum": (-12.2, 14.9), "mws": (21.0, 9.3)}
    exact, found = toy(seed)
    assert exact == pytest.approx((0.03, 2.70), abs=0.04)
    mean = {name: rows.mean(0) for name, rows in found.items()}
    error = {name: 4 * math.sqrt(2 / len(rows)) * rows.std(0) for name, rows in found.items()}
    for name, figures in expected.items():
        print(name, mean[name].tolist())
        rounding = 0.05 if max(map(abs, figures)) > 5 else 0.005
        assert (abs(mean[name] - torch.tensor(figures)) < error[name] + rounding).all(), name
    for name in ("stride", "stride and sum", "mws"):
        difference = found[name] - found["mss"]  # of the same batches
        assert (abs(difference.mean(0)) > 4 * difference.std(0) / math.sqrt(20)).all(), name


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_stratified_estimate_of_q_is_unbiased(place):
    """Over all ordered batches of 3 of 5 images with the own one at a place, q(z) and q(z_j) are exact on average.

    Other weights, and the mean of the logarithms, are told apart.
    """
    N, B = 5, 3
    _, mu, logvar = posteriors(N, 2)
    z = torch.tensor([0.3, -0.4], dtype=torch.float64)
    one = Normal(mu, (0.5 * logvar).exp()).log_prob(z).exp()  # (N, D)
    exact = torch.cat([one.prod(1).mean()[None], one.mean(0)])

    def mean_of(weights: Tensor, image: int, log: bool = False) -> Tensor:
        found = []
        for batch in permutations(range(N), B):
            if batch[place] == image:
                joint, marginals = log_aggregate(z.expand(B, 2), mu[list(batch)], logvar[list(batch)], weights)
                found.append(torch.cat([joint[place : place + 1], marginals[place]]))
        assert len(found) == 12
        return torch.stack(found).mean(0).exp() if log else torch.stack(found).exp().mean(0)

    stratified = log_weights("mss", B, N, z)
    equal = torch.full((B, B), -math.log(B), dtype=torch.float64)
    for image in range(N):
        torch.testing.assert_close(mean_of(stratified, image), exact, rtol=1e-13, atol=0)
        wrong = [mean_of(equal, image), mean_of(stratified, image, log=True)]
        if place:  # with the stride, only the first image's weights are right
            wrong.append(mean_of(stride_weights(B, N), image))
        for other in wrong:
            assert ((other / exact - 1).abs() > 1e-6).all()


# --- the objective ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["mss", "mws"])
@pytest.mark.parametrize("kind", MODELS)
def test_with_all_weights_one_it_is_the_elbo_of_the_draw(kind, estimate):
    model, batch = MODELS[kind](), batch_of(6)
    objective = BetaTCVAE(estimate=estimate)
    terms = objective(model, batch, {"beta": 1.0})
    mu, logvar = model.encode(batch.x, batch.labels)
    z = mu + batch.noise * (0.5 * logvar).exp()
    recon = objective.likelihood.nll(model.decode(z, batch.labels), batch.x).mean()
    kl = Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1) - model.prior_density().log_prob(z)
    elbo = (recon + kl.mean()).item()
    assert terms.loss.item() == pytest.approx(elbo, rel=1e-13)
    assert terms.parts["kl"].item() == pytest.approx(kl.mean().item(), rel=1e-13)
    expected = torch.autograd.grad(recon + kl.mean(), list(model.parameters()), retain_graph=True)
    found = torch.autograd.grad(terms.loss, list(model.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    # negative control: with another weight, and with the closed-form KL, it is another number
    assert abs(objective(model, batch, {"beta": 2.0}).loss.item() - elbo) > 1e-5
    assert abs((recon + kl_divergence(mu, logvar).sum(1).mean()).item() - elbo) > 1e-3


def test_the_parts_are_weighted_one_by_one_and_add_up_to_the_kl():
    model, batch = base(), batch_of(6, num_train=40)
    objective = BetaTCVAE(alpha=2.0, gamma=0.5)
    loss, parts, _ = objective(model, batch, {"beta": 6.0})
    assert list(parts) == ["recon", "kl", "mi", "tc", "dimension_wise"]
    output = model(batch.x, noise=batch.noise)
    draws = [tensor.detach() for tensor in (output.z, output.mu, output.logvar)]
    joint, marginals = by_loops("mss", draws, 40)
    own = Normal(draws[1], (0.5 * draws[2]).exp()).log_prob(draws[0]).sum(1).numpy()
    prior = Normal(0.0, 1.0).log_prob(draws[0]).sum(1).numpy()
    expected = [(own - joint).mean(), (joint - marginals.sum(1)).mean(), (marginals.sum(1) - prior).mean()]
    found = [parts[name].item() for name in ("mi", "tc", "dimension_wise")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert sum(found) == pytest.approx(parts["kl"].item(), abs=1e-12)
    weighted = np.dot([2.0, 6.0, 0.5], expected)
    assert loss.item() == pytest.approx(parts["recon"].item() + weighted, abs=1e-9)


def test_it_follows_its_schedule_with_numbers_as_floats_and_as_tensors():
    model, batch, objective = base(), batch_of(4), BetaTCVAE(beta=Warmup(4.0, fraction=0.5))
    for progress, weight in ((0.0, 0.0), (0.25, 2.0), (1.0, 4.0)):
        numbers = objective.numbers(progress)
        loss, parts, _ = objective(model, batch, numbers)
        expected = parts["recon"] + parts["mi"] + weight * parts["tc"] + parts["dimension_wise"]
        assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
        as_tensors = {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
        assert objective(model, batch, as_tensors).loss.item() == pytest.approx(loss.item(), rel=1e-13)


@pytest.mark.parametrize("estimate", ["mss", "mws"])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_agree_with_finite_differences(kind, estimate):
    objective = BetaTCVAE(alpha=0.5, gamma=2.0, estimate=estimate)
    assert gradients_are_right(MODELS[kind](), objective, batch_of(4), beta=3.0)


class OfBetaOne(BetaTCVAE):
    """A fault that the check above must notice: the loss has the gradient of beta = 1."""

    def __call__(self, model, batch, numbers):
        loss = super().__call__(model, batch, numbers).loss
        terms = super().__call__(model, batch, {"beta": 1.0})
        return terms._replace(loss=terms.loss + (loss - terms.loss).detach())


def test_a_wrong_gradient_is_noticed():
    assert not gradients_are_right(base(), OfBetaOne(), batch_of(4), beta=3.0)


@pytest.mark.parametrize("estimate", ["mss", "mws"])
@pytest.mark.parametrize("kind", MODELS)
def test_runs_of_a_stack_get_what_they_would_alone(kind, estimate):
    models = [MODELS[kind](seed=seed) for seed in range(3)]
    batches = [batch_of(5, seed=seed) for seed in range(3)]
    for found, alone in batched_and_alone(models, BetaTCVAE(estimate=estimate), batches, [1.0, 4.0, 0.5]):
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("estimate", ["mss", "mws"])
@pytest.mark.parametrize("num", [1, 2])
def test_the_smallest_batches_give_finite_numbers_in_float32(num, estimate):
    model, batch = base().float(), batch_of(num, num_train=54_000)
    batch = batch._replace(x=batch.x.float(), noise=batch.noise.float())
    terms = BetaTCVAE(estimate=estimate)(model, batch, {"beta": 4.0})
    found = [terms.loss, *terms.parts.values(), *torch.autograd.grad(terms.loss, list(model.parameters()))]
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in found)
    if num == 1 and estimate == "mss":  # the one posterior is the whole mixture
        assert abs(terms.parts["mi"].item()) < 1e-6


def test_it_runs_in_bf16():
    model, batch, objective = base().float(), batch_of(64), BetaTCVAE()
    batch = batch._replace(x=batch.x.float(), noise=batch.noise.float())
    terms = objective(in_precision(model, "bf16", batch.x), batch, {"beta": 4.0})
    assert terms.loss.dtype == torch.float32
    assert terms.loss.item() == pytest.approx(objective(model, batch, {"beta": 4.0}).loss.item(), rel=0.01)
    terms.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_total_correlation_reaches_the_encoder():
    """Beta changes the encoder's gradient, except that of moving all posteriors alike, and not the decoder's."""
    model, batch = base(), batch_of(6)
    small, large = (gradients(model, BetaTCVAE(), batch, beta) for beta in (1.0, 4.0))
    for name in small:
        changed = (small[name] - large[name]).abs().max() > 1e-6
        assert changed == (name != "mu.bias" and not name.startswith("decoder")), name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"alpha": -1.0}, "alpha must be finite and >= 0, got -1.0"),
        ({"gamma": math.nan}, "gamma must be finite and >= 0, got nan"),
        ({"estimate": "mean"}, "estimate must be one of mss, mws, got 'mean'"),
    ],
)
def test_impossible_settings_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        BetaTCVAE(**arguments)
