"""Learned priors: densities against quadrature and draws, N(0, 1) as a special case, gradients, stacks, modes."""

import copy
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from fmvae import rng
from fmvae.errors import ConfigError
from fmvae.models import (
    VAE,
    BaseVAE,
    BetaVAE,
    ConditionalVAE,
    FlowPrior,
    MixturePrior,
    Prior,
    StandardPrior,
    VampPrior,
)
from fmvae.objectives import ELBO, Batch, Density, StandardNormal, kl_divergence, log_normal
from tests.chi_squared import cells, p_value

SHAPE = (1, 6, 6)
PRIORS: dict[str, Callable[[int], Prior]] = {
    "mixture": lambda z: MixturePrior(z, 5),
    "vamp": lambda z: VampPrior(SHAPE, 5),
    "flow": lambda z: FlowPrior(z, transforms=2, hidden=[8], bins=5),
}
LEARNED = pytest.mark.parametrize("name", PRIORS)


def made(name: str, latent_dim: int, seed: int = 0, *, at_start: bool = False) -> VAE:
    """A small model with a prior, whose weights are random, also those that start at 0."""
    with rng.seeded_init(seed):
        model = BaseVAE(latent_dim, hidden_dim=8, image_shape=SHAPE)
        prior = model.latent_prior = PRIORS[name](latent_dim)
        if not at_start:
            with torch.no_grad():
                for parameter in [*prior.parameters(), *model.mu.parameters(), *model.logvar.parameters()]:
                    parameter.add_(0.6 * torch.randn_like(parameter))
    return model


def standard(name: str, latent_dim: int) -> VAE:
    """A model with this prior, which is N(0, 1) in every component."""
    model = made(name, latent_dim, at_start=True)
    with torch.no_grad():
        if name == "mixture":
            model.get_parameter("latent_prior.mu").zero_()
        if name == "vamp":
            for layer in (model.get_submodule("mu"), model.get_submodule("logvar")):
                for parameter in layer.parameters():
                    parameter.zero_()
    return model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- densities ----------------------------------------------------------------------------------------------


@LEARNED
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_a_prior_of_standard_normals_gives_the_kl_of_each_draw(name, latent_dim):
    num = 20_000
    mu, logvar = normal(num, latent_dim), normal(num, latent_dim, seed=1)
    z = mu + normal(num, latent_dim, seed=2) * (0.5 * logvar).exp()
    with torch.no_grad():
        drawn = standard(name, latent_dim).prior_density().kl(mu, logvar, z)
        other = made(name, latent_dim).prior_density().kl(mu, logvar, z)
    expected = log_normal(z, mu, logvar).sum(1) - StandardNormal(latent_dim, z).log_prob(z)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)
    closed = kl_divergence(mu, logvar).sum(1)
    difference, control = drawn - closed, drawn - 1.1 * closed
    assert difference.mean().abs() < 4 * difference.std() / math.sqrt(num) < 0.1
    assert control.mean().abs() > 4 * control.std() / math.sqrt(num)
    assert (other - expected).abs().mean() > 0.1  # random weights would be seen


@LEARNED
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_the_density_integrates_to_one_and_draws_are_of_it(name, latent_dim):
    model, other = made(name, latent_dim), made(name, latent_dim, seed=3)
    density, state = model.prior_density(), torch.get_rng_state()
    edges, mass = cells(density.log_prob, latent_dim)
    assert mass.sum() == pytest.approx(1, abs=2e-4)
    with torch.no_grad():
        own, foreign = (
            each.prior_density().sample(10_000, torch.Generator().manual_seed(0)) for each in (model, other)
        )
    assert torch.equal(torch.get_rng_state(), state)  # the global generator has no part in it
    assert own.dtype == torch.float32
    assert p_value(own, edges, mass) > 1e-3
    assert p_value(foreign, edges, mass) < 1e-9
    assert mass.max() < 0.9  # not one cell


@LEARNED
def test_log_prob_is_of_any_shape_and_in_the_dtype_of_z(name):
    density, z = made(name, 3).prior_density(), normal(4, 5, 3)
    with torch.no_grad():
        whole = density.log_prob(z)
        assert (whole.shape, whole.dtype) == ((4, 5), torch.float64)
        torch.testing.assert_close(whole[1, 2], density.log_prob(z[1, 2]))
        single = density.log_prob(z.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), whole, rtol=1e-4, atol=1e-4)


@LEARNED
def test_float64_is_float64_though_weights_are_float32(name):
    model, z = made(name, 2), normal(50, 2)
    with torch.no_grad():
        found = model.prior_density().log_prob(z)
        if name == "vamp":  # the pseudo-inputs are encoded in the model's dtype
            density: Density = model.prior_density()
            double = density.__class__(density.mu.double(), density.logvar.double(), density.log_weights.double())  # type: ignore[attr-defined, call-arg]
        else:
            double = copy.deepcopy(model).double().prior_density()
        torch.testing.assert_close(found, double.log_prob(z), rtol=0, atol=1e-5 if name == "mixture" else 1e-12)


@LEARNED
def test_gradients_are_finite_differences(name):
    model = made(name, 2).double()
    z = normal(4, 2).requires_grad_()
    names = [own for own, _ in model.named_parameters() if own.startswith(("latent_prior", "mu", "logvar"))]

    class LogProb(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, z: Tensor) -> Tensor:
            return self.model.prior_density().log_prob(z)

    def of(z: Tensor, *values: Tensor) -> Tensor:
        weights = {f"model.{own}": value for own, value in zip(names, values, strict=True)}
        return functional_call(LogProb(), weights, (z,))

    values = [model.get_parameter(own).detach().clone().requires_grad_() for own in names]
    assert torch.autograd.gradcheck(of, (z, *values), fast_mode=True)
    grads = torch.autograd.grad(of(z, *values).sum(), values, allow_unused=True)
    own = [g for own, g in zip(names, grads, strict=True) if own.startswith("latent_prior")]
    assert any(g is not None and g.abs().max() > 0 for g in own)


@LEARNED
@pytest.mark.parametrize("model_class", [BaseVAE, BetaVAE])
def test_batched_over_models_it_is_the_same_as_alone(name, model_class):
    size = (1, 12, 12)

    class LogProb(nn.Module):
        def __init__(self, seed: int):
            super().__init__()
            with rng.seeded_init(seed):
                self.model = model_class(2, image_shape=size)
                prior = VampPrior(size, 4) if name == "vamp" else PRIORS[name](2)
                self.model.latent_prior = prior
                with torch.no_grad():
                    for parameter in prior.parameters():
                        parameter.add_(0.3 * torch.randn_like(parameter))

        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            output = self.model(x, noise=noise)  # in training mode: batch norm changes its buffers
            return self.model.prior_density().kl(output.mu, output.logvar, output.z).mean()

    assert PRIORS[name](2).vmap
    models = [LogProb(seed) for seed in range(3)]
    params, buffers = stack_module_state(models)  # type: ignore[arg-type]
    x, noise = torch.rand(3, 6, *size), torch.randn(3, 6, 2)
    template = copy.deepcopy(models[0])
    together = torch.vmap(lambda *weights_and_batch: functional_call(template, *_split(weights_and_batch)))(
        params, buffers, x, noise
    )
    gradients = torch.autograd.grad(together.sum(), list(params.values()), allow_unused=True)
    for i, model in enumerate(models):
        alone = model(x[i], noise[i])
        torch.testing.assert_close(together[i], alone, rtol=2e-5, atol=2e-5)
        own = torch.autograd.grad(alone, list(model.parameters()), allow_unused=True)
        for batched, single in zip(gradients, own, strict=True):
            if single is not None:
                torch.testing.assert_close(batched[i], single, rtol=1e-3, atol=2e-5)
    assert together.max() - together.min() > 1e-3  # or the comparison would see nothing


def _split(weights_and_batch: tuple) -> tuple:
    params, buffers, *batch = weights_and_batch
    return {**params, **buffers}, tuple(batch)


@LEARNED
def test_training_moves_every_parameter_and_the_loss_falls(name):
    model, x = made(name, 2, at_start=True), torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    before = {own: parameter.clone() for own, parameter in model.named_parameters()}
    optimizer, objective = torch.optim.Adam(model.parameters(), 1e-2), ELBO()
    losses = []
    for step in range(40):
        batch = Batch(x, torch.zeros(32), normal(32, 2, seed=step).float(), 32)
        loss = objective(model, batch, {"beta": 1.0}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    assert all(not torch.equal(parameter, before[own]) for own, parameter in model.named_parameters())
    assert any(own.startswith("latent_prior.") for own in before)
    assert not any(own.startswith("latent_prior.") for own in BaseVAE(2).state_dict())  # N(0, 1) has none


@LEARNED
def test_sizes_below_one_are_refused(name):
    wrong = {
        "mixture": [lambda: MixturePrior(2, 0), lambda: MixturePrior(0)],
        "vamp": [lambda: VampPrior(SHAPE, 0), lambda: VampPrior(SHAPE, start="image")],  # type: ignore[arg-type]
        "flow": [
            lambda: FlowPrior(2, 0),
            lambda: FlowPrior(2, hidden=[0]),
            lambda: FlowPrior(0),
            lambda: FlowPrior(2, bins=1),
        ],
    }
    for make in wrong[name]:
        with pytest.raises(ValueError, match=r"(give|must be)"):
            make()


def test_a_model_without_parameters_has_a_standard_prior():
    class Fixed(BaseVAE):
        def parameters(self, recurse: bool = True):
            return iter(())

    assert isinstance(Fixed(2, 4).latent_prior, StandardPrior)
    assert Fixed(2, 4).prior_density().sample(3).shape == (3, 2)


# --- the VampPrior ------------------------------------------------------------------------------------------


def beta_vae(start: str = "noise") -> VAE:
    with rng.seeded_init(0):
        model = BetaVAE(2)
        model.latent_prior = VampPrior(model.image_shape, 6, start)  # type: ignore[arg-type]
    for layer in model.modules():  # statistics as after training
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.fill_(0.2)
            layer.running_var.fill_(0.5)
    return model


def test_pseudo_inputs_are_encoded_in_evaluation_mode_and_leave_no_trace():
    model = beta_vae().train()
    model.get_submodule("mu").eval()  # a layer in a mode of its own keeps it
    modes = [layer.training for layer in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    density = model.prior_density()
    assert [layer.training for layer in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    u = model.get_parameter("latent_prior.logits").sigmoid()
    mu, logvar = model.eval().encode(u)
    in_training = model.train().encode(u)[0]
    assert torch.equal(density.mu, mu)  # type: ignore[attr-defined]
    assert torch.equal(density.logvar, logvar)  # type: ignore[attr-defined]
    assert (in_training - mu).abs().max() > 1e-3  # the statistics of the pseudo-inputs would be seen


def test_a_pass_in_training_mode_after_the_density_does_not_change_its_gradient():
    """The pass changes running statistics in place, which the backward pass of the encoding still needs."""

    def gradient(model: VAE, *, with_a_pass: bool) -> Tensor:
        density = model.prior_density()
        if with_a_pass:
            model(torch.rand(8, 1, 28, 28), noise=torch.zeros(8, 2))
        (found,) = torch.autograd.grad(
            density.log_prob(normal(9, 2).float()).sum(), [model.get_parameter("latent_prior.logits")]
        )
        return found

    expected = gradient(beta_vae().train(), with_a_pass=False)
    assert expected.abs().max() > 0
    assert torch.equal(gradient(beta_vae().train(), with_a_pass=True), expected)
    passed = beta_vae().train()
    passed(torch.rand(8, 1, 28, 28), noise=torch.zeros(8, 2))
    assert not torch.equal(gradient(passed, with_a_pass=False), expected)  # other statistics would be seen


def test_dropout_plays_no_part_in_the_prior():
    model = made("vamp", 2).train()
    model.encoder.append(nn.Dropout(0.5))  # type: ignore[operator, union-attr]
    z = normal(3, 2)
    state = torch.get_rng_state()
    assert torch.equal(model.prior_density().log_prob(z), model.prior_density().log_prob(z))
    assert torch.equal(torch.get_rng_state(), state)


def test_pseudo_inputs_start_from_random_training_images():
    images = torch.randint(256, (40, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, :, 0], images[:, :, 1] = 0, 255
    prior = VampPrior(SHAPE, 15)
    prior.start_from(images, 0)
    wanted = (images / 255).clamp(0.01, 0.99).flatten(1)
    distances = (prior.pseudo_inputs.detach().flatten(1)[:, None] - wanted[None]).abs().amax(2)
    chosen = distances.argmin(1)
    assert distances.min(1).values.max() < 1e-5
    assert len(chosen.unique()) == 15
    again, other = VampPrior(SHAPE, 15), VampPrior(SHAPE, 15)
    again.start_from(images, 0)
    other.start_from(images, 1)
    assert torch.equal(again.logits, prior.logits)
    assert not torch.equal(other.logits, prior.logits)
    few = VampPrior(SHAPE, 15)
    few.start_from(images[:6], 0)
    assert sorted(np.unique(few.logits.detach().flatten(1), axis=0, return_counts=True)[1]) == [2, 2, 2, 3, 3, 3]
    noise = VampPrior(SHAPE, 15, "noise")
    before = noise.logits.clone()
    noise.start_from(images, 0)
    assert torch.equal(noise.logits, before)


def test_pixels_that_start_at_the_ends_have_gradients_which_a_clip_would_not_give():
    model = made("vamp", 2)
    prior = model.latent_prior
    prior.start_from(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, *SHAPE).repeat(3, 1, 1, 1), 0
    )
    model.prior_density().log_prob(normal(20, 2).float()).sum().backward()
    gradient = model.get_parameter("latent_prior.logits").grad
    assert gradient is not None
    assert (gradient != 0).double().mean() > 0.9
    clipped = torch.full((3,), -0.05, requires_grad=True)  # as the paper's pixels start without data
    nn.functional.hardtanh(clipped, 0.0, 1.0).sum().backward()
    assert clipped.grad is not None
    assert (clipped.grad == 0).all()


def test_an_encoder_that_needs_labels_is_refused():
    model = ConditionalVAE(2, hidden_dim=4, image_shape=SHAPE)
    model.latent_prior = VampPrior(SHAPE, 3)
    with pytest.raises(ValueError, match=r"ConditionalVAE needs labels .*: use a model without labels"):
        model.prior_density()
    assert VampPrior.encodes
    assert not MixturePrior.encodes


# --- the flow -----------------------------------------------------------------------------------------------


def test_a_flow_starts_at_the_identity():
    model, z = made("flow", 3, at_start=True), 3 * normal(200, 3)
    with torch.no_grad():
        log_p = model.prior_density().log_prob(z)
        moved = made("flow", 3).prior_density().log_prob(z)
        draws = model.prior_density().sample(50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(log_p, StandardNormal(3, z).log_prob(z), rtol=0, atol=1e-12)
    assert (moved - log_p).abs().max() > 0.1
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(draws, noise, rtol=0, atol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 4])
def test_draws_of_a_flow_are_the_inverse_of_its_map_at_the_generators_noise(latent_dim):
    model = made("flow", latent_dim)
    flow = model.latent_prior
    with torch.no_grad():
        z = model.prior_density().sample(100, torch.Generator().manual_seed(1))
        noise, log_determinant = flow(z)
    torch.testing.assert_close(
        noise, torch.randn(100, latent_dim, generator=torch.Generator().manual_seed(1)), rtol=0, atol=1e-3
    )
    assert (z - noise).abs().max() > 0.1
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow(row[None])[0][0]))(z)
    torch.testing.assert_close(jacobian.det().abs().log(), log_determinant, rtol=1e-3, atol=1e-3)


def test_without_zuko_the_way_out_is_one_line(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(
        ConfigError,
        match=r"^prior: a flow needs the library zuko .*in the checkout, pip install -e '\.\[flows\]'$",
    ):
        FlowPrior(2)
    MixturePrior(2)
