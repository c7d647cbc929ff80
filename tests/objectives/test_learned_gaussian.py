"""fmvae.objectives.LearnedGaussian: the best sigma of a batch, or a trained one; evaluation as for one image."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor, nn
from torch.func import functional_call

from fmvae.objectives import ELBO, Bernoulli, Constant, Gaussian, LearnedGaussian, Likelihood
from fmvae.objectives.likelihoods import SMALLEST_SIGMA

SHAPE = (2, 5, 4)


def batch(num: int = 6, seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits and targets, float64; ``scale`` stretches the logits, and with them the errors."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num, *SHAPE, generator=generator, dtype=torch.float64)
    return logits, torch.rand(num, *SHAPE, generator=generator, dtype=torch.float64)


def made(method: Any = "optimal", start: float = 0.5) -> LearnedGaussian:
    return LearnedGaussian(method, start).double()


def reference(logits: Tensor, x: Tensor, sigma: float) -> np.ndarray:
    centre = 1 / (1 + np.exp(-logits.detach().numpy()))
    return -stats.norm.logpdf(x.numpy(), loc=centre, scale=sigma).reshape(len(x), -1).sum(1)


def best_sigma(logits: Tensor, x: Tensor) -> float:
    """Found by search, not by a formula."""
    found = optimize.minimize_scalar(
        lambda log_sigma: reference(logits, x, math.exp(log_sigma)).mean(),
        bounds=(-6, 2),
        options={"xatol": 1e-10},
    )
    return math.exp(found.x)


# --- the optimal one ----------------------------------------------------------------------------------------


def test_in_training_the_optimal_sigma_minimises_the_batchs_nll():
    logits, x = batch()
    sigma = best_sigma(logits, x)
    found = made().nll(logits, x)
    assert found.shape == (6,)
    np.testing.assert_allclose(found.numpy(), reference(logits, x, sigma), rtol=1e-9)
    for other in (0.9 * sigma, 1.1 * sigma):  # the control: scipy's minimum is one, and a few per cent are seen
        assert found.mean() < reference(logits, x, other).mean() - 0.1


def gradients(nll: Callable[[Tensor, Tensor], Tensor], weights: Tensor) -> Tensor:
    logits, x = batch()
    logits.requires_grad_()
    return torch.autograd.grad((weights * nll(logits, x)).sum(), logits)[0]


def test_the_gradient_is_that_with_sigma_inside_the_graph():
    """The envelope theorem: at the minimum, the mean nll has no derivative by sigma."""

    def inside(logits: Tensor, x: Tensor) -> Tensor:
        squares = (x - logits.sigmoid()).square()
        normal = torch.distributions.Normal(logits.sigmoid(), squares.mean().sqrt())
        return -normal.log_prob(x).flatten(1).sum(1)

    mean = torch.full((6,), 1 / 6, dtype=torch.float64)
    torch.testing.assert_close(gradients(made().nll, mean), gradients(inside, mean), rtol=1e-10, atol=1e-14)
    # the controls: not with another weighting of the images, and not with another sigma
    first = torch.eye(6, dtype=torch.float64)[0]
    assert not torch.allclose(gradients(made().nll, first), gradients(inside, first), rtol=1e-3)
    assert not torch.allclose(gradients(Gaussian(0.4).nll, mean), gradients(inside, mean), rtol=1e-3)


def test_the_gradient_of_the_optimal_nll_is_that_of_finite_differences():
    logits, x = batch(2)
    likelihood = made()
    torch.autograd.gradcheck(lambda it: likelihood.nll(it, x).mean(), logits.requires_grad_())


def test_in_evaluation_the_nll_of_an_image_does_not_depend_on_its_batch():
    likelihood = made()
    for seed in range(3):
        likelihood.nll(*batch(seed=seed))
    logits, x = batch(8, seed=9)
    before = {name: buffer.clone() for name, buffer in likelihood.named_buffers()}

    def in_parts() -> Tensor:
        return torch.cat([likelihood.nll(*part) for part in zip(logits.split(3), x.split(3), strict=True)])

    likelihood.eval()
    assert torch.equal(likelihood.nll(logits, x), in_parts())
    assert all(torch.equal(buffer, before[name]) for name, buffer in likelihood.named_buffers())
    likelihood.train()  # the control
    assert not torch.allclose(likelihood.nll(logits, x), in_parts(), rtol=1e-3)


def test_evaluation_uses_the_mean_over_training_batches():
    likelihood = made()
    logits, x = batch(seed=7)
    np.testing.assert_allclose(likelihood.eval().nll(logits, x).numpy(), reference(logits, x, 0.5), rtol=1e-7)
    likelihood.train()
    errors = []
    for seed in range(likelihood.horizon):
        given = batch(seed=seed, scale=1 + seed % 5)
        likelihood.nll(*given)
        errors.append(np.square(given[1].numpy() - 1 / (1 + np.exp(-given[0].numpy()))).mean())
        if seed in (0, 1, likelihood.horizon - 1):  # a plain mean at first: the start value has left no trace
            assert likelihood.variance.item() == pytest.approx(np.mean(errors), rel=1e-12)
    expected = reference(logits, x, math.sqrt(np.mean(errors)))
    np.testing.assert_allclose(likelihood.eval().nll(logits, x).numpy(), expected, rtol=1e-10)

    likelihood.train()  # from then on old batches fade
    before = likelihood.variance.item()
    given = batch(seed=likelihood.horizon - 1, scale=1 + (likelihood.horizon - 1) % 5)
    for _ in range(2):
        likelihood.nll(*given)
    share = (1 - 1 / likelihood.horizon) ** 2
    assert likelihood.variance.item() == pytest.approx(share * before + (1 - share) * errors[-1], rel=1e-12)
    assert likelihood.num_batches.item() == likelihood.horizon


def test_the_start_value_suits_an_untrained_decoder():
    """Grey images with a decoder that gives 0.5 everywhere: no constant sigma of the same start is much better."""
    x = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double().pow(3)
    logits = torch.zeros_like(x)
    loss = made().eval().nll(logits, x).mean().item()
    assert loss < reference(logits, x, best_sigma(logits, x)).mean() + 0.1 * 64  # within 0.1 nats a pixel
    assert made(start=0.05).eval().nll(logits, x).mean().item() > loss + 10 * 64


# --- the trained one ----------------------------------------------------------------------------------------


def test_the_trained_sigma_has_the_gradient_of_finite_differences():
    logits, x = batch(2)
    likelihood = made("trained", 0.3)

    def nll(log_sigma: Tensor, logits: Tensor) -> Tensor:
        return functional_call(_Called(likelihood), {"likelihood.log_sigma": log_sigma}, (logits, x))

    log_sigma = torch.tensor(-1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nll, (log_sigma, logits.requires_grad_()))


@pytest.mark.parametrize("start", [0.05, 0.5, 3.0])
def test_the_trained_sigma_starts_at_start_and_descends_to_the_optimal_one(start):
    logits, x = batch()
    likelihood = made("trained", start)
    np.testing.assert_allclose(likelihood.nll(logits, x).detach().numpy(), reference(logits, x, start), rtol=1e-6)
    assert [name for name, _ in likelihood.named_parameters()] == ["log_sigma"]
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.1)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        optimizer.zero_grad()
        likelihood.nll(logits, x).mean().backward()
        optimizer.step()
    found = likelihood.nll(logits, x).detach()
    torch.testing.assert_close(found, made().nll(logits, x), rtol=1e-5, atol=0)
    assert math.exp(likelihood.log_sigma.item()) == pytest.approx(best_sigma(logits, x), rel=1e-3)


# --- both ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["optimal", "trained"])
def test_images_without_error_do_not_drive_the_loss_to_minus_infinity(method):
    """The least nll is that of one grey level for a sigma, and what leads back from there has a gradient."""
    x = torch.full((3, *SHAPE), 0.5, dtype=torch.float64)
    least = x[0].numel() * (math.log(1 / 255) + 0.5 * math.log(2 * math.pi))
    likelihood = made(method)
    if method == "trained":
        with torch.no_grad():
            likelihood.log_sigma.fill_(-300.0)
    logits = torch.zeros_like(x, requires_grad=True)
    nll = likelihood.nll(logits, x)
    assert nll.tolist() == pytest.approx([least] * 3, rel=1e-9)
    assert torch.autograd.grad(nll.sum(), logits)[0].isfinite().all()
    assert reference(logits, x, 1e-9).mean() < 4 * least  # the control: without the floor it falls on
    if method == "trained":
        with torch.no_grad():
            likelihood.log_sigma.fill_(-7.0)  # below the floor
        far = likelihood.nll(logits + 1, x).mean()
        assert torch.autograd.grad(far, likelihood.log_sigma)[0] < -1, "a clamp would have 0 here, and stay"


@pytest.mark.parametrize("method", ["optimal", "trained"])
def test_several_draws_of_each_image_are_a_larger_batch(method):
    logits, x = batch(3 * 4)
    x = x[:4].repeat(3, 1, 1, 1)  # K = 3 draws of 4 images
    found = made(method).nll(logits, x).view(3, 4)
    sigma = best_sigma(logits, x) if method == "optimal" else 0.5
    np.testing.assert_allclose(found.detach().flatten().numpy(), reference(logits, x, sigma), rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["optimal", "trained"])
def test_evaluation_of_a_float32_likelihood_takes_either_precision(method, dtype):
    logits, x = batch()
    likelihood = LearnedGaussian(method).eval()
    found = likelihood.nll(logits.to(dtype), x.to(dtype))
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7  # the parameter is of float32
    np.testing.assert_allclose(found.detach().numpy(), reference(logits, x, 0.5), rtol=tolerance)


class _Called(nn.Module):
    """For ``functional_call``, as engines replace the weights of what they train."""

    def __init__(self, likelihood: LearnedGaussian):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, logits: Tensor, x: Tensor) -> Tensor:
        return self.likelihood.nll(logits, x)


@pytest.mark.filterwarnings("error")  # of operations that torch.vmap runs one by one
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["optimal", "trained"])
def test_in_a_stack_each_run_has_the_numbers_and_buffers_that_it_has_alone(method, dtype):
    runs = [LearnedGaussian(method, start).to(dtype) for start in (0.2, 0.3, 0.4)]
    alone = [batch(seed=seed, scale=1 + seed) for seed in range(3)]
    logits, x = (torch.stack([one[i].to(dtype) for one in alone]) for i in range(2))
    called = _Called(runs[0])
    names = [*called.state_dict()]
    state = {
        name: torch.stack([_Called(run).state_dict()[name].clone() for run in runs]).requires_grad_(
            name.endswith("log_sigma")
        )
        for name in names
    }
    untouched = {name: tensor.clone() for name, tensor in called.state_dict().items()}

    def one(state: dict[str, Tensor], logits: Tensor, x: Tensor) -> Tensor:
        return functional_call(called, state, (logits, x))

    logits.requires_grad_()
    torch.vmap(one)(state, logits, x)
    found = torch.vmap(one)(state, logits, x)  # once more, so that buffers meet their own values
    leaves = [logits, *(tensor for tensor in state.values() if tensor.requires_grad)]
    grads = torch.autograd.grad(found.mean(1).sum(), leaves)
    assert all(torch.equal(called.state_dict()[name], untouched[name]) for name in names)

    rtol, atol = (1e-6, 1e-6) if dtype == torch.float32 else (1e-12, 1e-15)
    for i, run in enumerate(runs):
        own = logits[i].detach().clone().requires_grad_()
        run.nll(own, x[i])
        nll = run.nll(own, x[i])
        torch.testing.assert_close(found[i], nll, rtol=rtol, atol=atol)
        expected = torch.autograd.grad(nll.mean(), [own, *run.parameters()])
        for many, single in zip(grads, expected, strict=True):
            torch.testing.assert_close(many[i], single, rtol=rtol, atol=atol)
        for name, tensor in _Called(run).state_dict().items():
            torch.testing.assert_close(state[name][i].detach(), tensor, rtol=rtol, atol=atol)
    if method == "optimal":  # the control: the runs' buffers do differ, and have moved
        variances = state["likelihood.variance"]
        assert len(set(variances.tolist())) == 3
        assert state["likelihood.num_batches"].tolist() == [2.0] * 3


def test_an_objective_holds_the_parameters_of_its_likelihood_and_plain_ones_still_work():
    class Plain(Likelihood):
        """A user's, without super().__init__()."""

        def __init__(self, factor: float):
            self.factor = factor

        def nll(self, logits: Tensor, x: Tensor) -> Tensor:
            return self.factor * Bernoulli().nll(logits, x)

        def mean(self, logits: Tensor) -> Tensor:
            return logits.sigmoid()

    assert [name for name, _ in ELBO(LearnedGaussian("trained")).named_parameters()] == ["likelihood.log_sigma"]
    optimal = ELBO(LearnedGaussian(), Constant(1.0))
    assert [*optimal.state_dict()] == ["likelihood.variance", "likelihood.num_batches"]
    assert not optimal.eval().likelihood.training  # pyright: ignore[reportAttributeAccessIssue]
    with optimal.stacked():
        assert isinstance(optimal.likelihood, LearnedGaussian)
    plain = ELBO(Plain(2.0))
    assert (plain.likelihood.factor, [*plain.state_dict()]) == (2.0, [])  # pyright: ignore
    learned = LearnedGaussian().train()
    learned.nll(*batch())
    fresh = ELBO(LearnedGaussian())
    fresh.load_state_dict(ELBO(learned).state_dict())
    logits, x = batch(seed=3)
    assert torch.equal(fresh.eval().likelihood.nll(logits, x), learned.eval().nll(logits, x))


@pytest.mark.parametrize("start", [0.0, -1.0, SMALLEST_SIGMA, math.nan, math.inf])
def test_an_impossible_start_is_refused(start):
    with pytest.raises(ValueError, match="start must be finite and > 1/255, got"):
        LearnedGaussian("trained", start)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of optimal, trained, got 'best'"):
        made("best")


def test_the_learned_sigma_is_what_evaluation_uses():
    optimal, trained = LearnedGaussian(), LearnedGaussian("trained", start=0.3)
    assert trained.learned()["sigma"] == pytest.approx(0.3, rel=1e-6)
    assert optimal.learned() == {"sigma": 0.5}
    logits, x = torch.zeros(4, 1, 5, 5), torch.full((4, 1, 5, 5), 0.7)
    optimal.nll(logits, x)
    assert optimal.learned()["sigma"] == pytest.approx(0.2, rel=1e-5)
    optimal.eval()
    mean = optimal.nll(logits, x).mean().item()
    assert mean == pytest.approx(Gaussian(optimal.learned()["sigma"]).nll(logits, x).mean().item(), rel=1e-5)
    assert Gaussian().learned() == {}
