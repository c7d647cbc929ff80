"""fmvae.objectives.factor: the total correlation by a discriminator, and what trains which."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmvae.objectives import ELBO, Density, FactorVAE, StandardNormal, Warmup, permute_dimensions
from tests.objectives.tiny import Fixed, assert_slopes_are_gradients, base, batch_for, called, from_config

RHO = 0.8
TC = -0.5 * math.log(1 - RHO**2)  # of two standard normal variables with correlation RHO: 0.51 nats


def correlated(num: int, rho: float = RHO, seed: int = 0) -> Tensor:
    """Draws of two standard normal variables with a correlation: (num, 2), float64."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, num, generator=generator, dtype=torch.float64)
    return torch.stack([a, rho * a + math.sqrt(1 - rho**2) * b], 1)


class LogRatio(nn.Module):
    """log q(z) - log q(z_1) - log q(z_2) of ``correlated``, times a factor; 1 is the best discriminator."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        joint = torch.distributions.MultivariateNormal(
            torch.zeros(2).double(), torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()
        )
        single = torch.distributions.Normal(0.0, 1.0)
        return self.factor * (joint.log_prob(z) - single.log_prob(z).sum(1))[:, None]


def tiny_factor(**arguments: Any) -> FactorVAE:
    defaults: dict[str, Any] = {"latent_dim": 3, "width": 8, "depth": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FactorVAE(**(defaults | arguments)).double()


# --- the total correlation ----------------------------------------------------------------------------------


def test_with_the_exact_density_ratio_tc_is_the_total_correlation():
    objective, z = FactorVAE(2, width=1, depth=1), correlated(20_000)
    objective.network = LogRatio()
    error = 4 * LogRatio()(z).std().item() / math.sqrt(len(z))
    found = called(objective, Fixed(z)).parts["tc"].item()
    assert error < 0.05
    assert found == pytest.approx(TC, abs=error)
    # control: of independent latents, the same network's mean logit is not their TC of 0, and far from that above
    assert called(objective, Fixed(correlated(20_000, rho=0.0))).parts["tc"].item() < -4 * error


def test_the_exact_density_ratio_is_the_best_discriminator():
    """A loss with labels swapped, or with one half weighted otherwise, would have its minimum elsewhere."""
    objective, model = FactorVAE(2, width=1, depth=1), Fixed(correlated(50_000))
    losses = {}
    for factor in (-1.0, 0.0, 0.8, 1.0, 1.2):
        objective.network = LogRatio(factor)
        terms = called(objective, model)
        assert terms.network_loss is terms.parts["discriminator"]
        losses[factor] = terms.parts["discriminator"].item()
    assert min(losses, key=lambda factor: losses[factor]) == 1.0
    assert losses[0.0] == pytest.approx(math.log(2), rel=1e-12)  # it can't tell them apart


def test_the_cross_entropy_is_that_of_labels_one_and_zero():
    objective, model = tiny_factor(), base(3)
    batch = batch_for(objective)
    terms = objective(model, batch, {"beta": 1.0})
    z = model(batch.x, noise=batch.noise[0]).z
    assert objective.network is not None
    logits = torch.cat([objective.network(z), objective.network(permute_dimensions(z, batch.noise[1]))])[:, 0]
    labels = torch.tensor([1.0] * 6 + [0.0] * 6).double()
    expected = nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(terms.network_loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.parts["tc"], logits[:6].mean(), rtol=1e-12, atol=0)


def trained(rho: float) -> FactorVAE:
    """A discriminator that was trained on draws with this correlation."""
    objective = tiny_factor(latent_dim=2, width=32, lr=3e-3)
    optimizer = objective.network_optimizer()
    for step in range(450):
        if step == 300:
            optimizer.param_groups[0]["lr"] /= 10
        optimizer.zero_grad()
        loss = called(objective, Fixed(correlated(512, rho, seed=step)), seed=step + 5_000).network_loss
        assert loss is not None
        loss.backward()
        optimizer.step()
    return objective


def test_a_trained_discriminator_comes_near_the_total_correlation():
    other = Fixed(correlated(20_000, seed=1_000))
    assert called(trained(RHO), other).parts["tc"].item() == pytest.approx(TC, abs=0.06)
    # controls: untrained, and trained on independent latents, for which TC is 0
    assert abs(called(tiny_factor(latent_dim=2), other).parts["tc"].item() - TC) > 0.3
    independent = Fixed(correlated(20_000, rho=0.0, seed=1_000))
    assert called(trained(0.0), independent).parts["tc"].item() == pytest.approx(0, abs=0.06)


# --- permuted latents ---------------------------------------------------------------------------------------


def test_permuted_latents_keep_their_marginals_and_lose_their_dependence():
    z, noise = correlated(10_000), torch.randn(10_000, 2, generator=torch.Generator().manual_seed(1))
    permuted = permute_dimensions(z, noise)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    bound = 4 / math.sqrt(len(z))
    for transform in (lambda x: x, torch.square):  # the squares of these variables are correlated by RHO^2
        assert abs(torch.corrcoef(transform(permuted).T)[0, 1]) < bound
        # controls: not permuting, and permuting all dimensions alike
        assert torch.corrcoef(transform(z).T)[0, 1] > 10 * bound
        alike = permute_dimensions(z, noise[:, :1].expand(-1, 2))
        assert torch.corrcoef(transform(alike).T)[0, 1] > 10 * bound


def test_all_permutations_are_equally_likely():
    num = 60_000
    z = torch.arange(3)[:, None].expand(3, num)
    permuted = permute_dimensions(z, torch.randn(3, num, generator=torch.Generator().manual_seed(0)))
    _, counts = permuted.unique(dim=1, return_counts=True)
    assert len(counts) == 6
    chi_squared = ((counts - num / 6).square() / (num / 6)).sum()
    assert chi_squared < 20.5  # 0.1 % of a chi-squared variable with 5 degrees of freedom is above


def test_equal_random_numbers_keep_the_order():
    z = torch.arange(500.0)[:, None]
    assert torch.equal(permute_dimensions(z, torch.zeros_like(z)), z)


def test_the_first_noise_is_the_posteriors_and_the_second_the_permutations():
    objective, model = tiny_factor(), base(3)
    batch = batch_for(objective)
    terms = objective(model, batch, {"beta": 1.0})
    again = objective(model, batch, {"beta": 1.0})
    assert all(torch.equal(terms.parts[name], again.parts[name]) for name in terms.parts)
    assert torch.equal(
        terms.parts["recon"],
        objective.likelihood.nll(model(batch.x, noise=batch.noise[0]).logits, batch.x).mean(),
    )
    changed = batch._replace(noise=torch.stack([batch.noise[0], batch.noise[1].flip(1)]))
    other = objective(model, changed, {"beta": 1.0})
    differs = [name for name in terms.parts if not torch.equal(terms.parts[name], other.parts[name])]
    assert differs == ["discriminator"]


# --- the loss, and its gradients ----------------------------------------------------------------------------


def test_the_loss_is_the_elbo_and_gamma_times_tc():
    model = base(3)
    for gamma in (0.0, 10.0):
        objective = tiny_factor(gamma=gamma, beta=Warmup(4.0, fraction=0.5))
        batch = batch_for(objective)
        numbers = objective.numbers(0.25)
        terms = objective(model, batch, numbers)
        elbo = ELBO(beta=objective.beta)(model, batch._replace(noise=batch.noise[0]), numbers)
        torch.testing.assert_close(terms.loss, elbo.loss + gamma * terms.parts["tc"], rtol=1e-14, atol=0)
        assert [*terms.parts] == ["recon", "kl", "tc", "discriminator"]


def test_kl_is_that_from_the_models_prior():
    class Wide(StandardNormal):
        def kl(self, mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
            return Density.kl(self, mu, logvar, z / 2)

    mu, z = correlated(6), correlated(6, seed=1)
    prior = Wide(2, mu)
    found = called(tiny_factor(latent_dim=2), Fixed(mu, z=z, prior=prior)).parts["kl"]
    assert torch.equal(found, prior.kl(mu, torch.zeros_like(mu), z).mean())
    assert not torch.equal(found, StandardNormal(2, mu).kl(mu, torch.zeros_like(mu), z).mean())


def test_the_loss_reaches_the_model_and_the_network_loss_the_network():
    objective, model = tiny_factor(), base(3)
    batch, numbers = batch_for(objective), objective.numbers(1.0)
    assert objective.network is not None
    networks, models = list(objective.network.parameters()), list(model.parameters())
    terms = objective(model, batch, numbers)
    of_model = torch.autograd.grad(terms.loss, models, retain_graph=True)
    of_elbo = torch.autograd.grad(terms.loss - objective.gamma * terms.parts["tc"], models, retain_graph=True)
    changed = [not torch.equal(a, b) for a, b in zip(of_model, of_elbo, strict=True)]
    encoder = [not name.startswith("decoder") for name, _ in model.named_parameters()]
    assert changed == encoder  # tc depends on the encoder alone
    assert terms.network_loss is not None
    assert all(g.any() for g in torch.autograd.grad(terms.network_loss, networks))
    assert_slopes_are_gradients(lambda: objective(model, batch, numbers).loss, models)
    assert_slopes_are_gradients(lambda: objective(model, batch, numbers).network_loss, networks)


def test_the_optimizer_has_the_networks_parameters_and_the_papers_settings():
    objective = tiny_factor(lr=3e-4)
    (group,) = objective.network_optimizer().param_groups
    assert objective.network is not None
    own = list(objective.network.parameters())
    assert all(a is b for a, b in zip(group["params"], own, strict=True))
    assert (group["lr"], group["betas"], group["fused"]) == (3e-4, (0.5, 0.9), True)
    assert isinstance(objective.network_optimizer(), torch.optim.Adam)


def test_the_discriminator_has_the_papers_layers():
    with torch.device("meta"):
        network = FactorVAE(10).network
    assert network is not None
    shapes = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(1000, 10)] + [(1000, 1000)] * 5 + [(1, 1000)]
    assert [layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)] == [0.2] * 6


def test_the_config_gives_the_constructors_defaults():
    name, objective = from_config("factor_vae", gamma=35.0)
    assert isinstance(objective, FactorVAE)
    assert (name, objective.gamma, objective.lr) == ("factor", 35.0, FactorVAE(3, width=1).lr)
    shapes = [p.shape for p in objective.parameters()]
    assert shapes == [p.shape for p in FactorVAE(3).parameters()]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"latent_dim": 0}, "latent_dim must be >= 1, got 0"),
        ({"width": 0}, "width must be >= 1, got 0"),
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"gamma": -1.0}, "gamma must be finite and >= 0, got -1.0"),
        ({"gamma": math.nan}, "gamma must be finite and >= 0, got nan"),
        ({"lr": 0.0}, "lr must be finite and > 0, got 0.0"),
        ({"lr": math.inf}, "lr must be finite and > 0, got inf"),
    ],
)
def test_impossible_arguments_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        tiny_factor(**arguments)
