"""fmvae.models.vae: what every VAE here shares, tested on all of them."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE, VAEOutput
from fmvae.objectives import vae_loss
from fmvae.rng import seeded_init

MODELS: dict[str, Callable[[int], VAE]] = {
    "base": BaseVAE,
    "conv": ConvVAE,
    "beta": BetaVAE,
    "beta, bn_relu": lambda z: BetaVAE(z, norm_order="bn_relu"),
    "gated": GatedVAE,
    "residual": lambda z: ResidualVAE(z, width=8),
    "residual, group": lambda z: ResidualVAE(z, width=8, norm="group"),
    "conditional": ConditionalVAE,
    "conditional, conv": lambda z: ConditionalVAE(z, backbone="conv"),
    "conditional, residual": lambda z: ConditionalVAE(z, backbone="residual", width=8),
}
all_models = pytest.mark.parametrize("name", MODELS)


def build(name: str, latent_dim: int = 3, seed: int = 0) -> VAE:
    with seeded_init(seed):
        return MODELS[name](latent_dim)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(num: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.rand(num, 1, 28, 28, generator=generator())
    return x, torch.arange(num) % 10


# --- construction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [BaseVAE, ConvVAE, BetaVAE, GatedVAE, ResidualVAE, ConditionalVAE])
@pytest.mark.parametrize("latent_dim", [0, -1])
def test_a_latent_dim_below_1_is_an_error_that_names_it(model, latent_dim):
    with pytest.raises(ValueError, match=f"latent_dim must be >= 1, got {latent_dim}"):
        model(latent_dim)


@pytest.mark.parametrize("model", [BaseVAE, ConvVAE, BetaVAE, GatedVAE, ResidualVAE, ConditionalVAE])
@pytest.mark.parametrize("image_shape", [(28, 28), (28,), (1, 1, 28, 28), (1, 0, 28), (0, 28, 28)])
def test_a_shape_that_is_no_image_is_an_error_that_names_it(model, image_shape):
    with pytest.raises(ValueError, match=r"image_shape must be \(channels, height, width\), got"):
        model(2, image_shape=image_shape)


def test_vae_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        VAE(2)  # pyright: ignore[reportAbstractUsage]


@all_models
def test_initial_weights_depend_on_the_seed_alone(name):
    first, same, other = (build(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], same[key]) for key in first)
    # residual blocks end in a layer that starts at zero
    weights = [key for key in first if key.endswith("weight") and first[key].dim() > 1 and first[key].any()]
    assert weights
    assert not any(torch.equal(first[key], other[key]) for key in weights)


# --- a pass -------------------------------------------------------------------------------------------------


@all_models
@pytest.mark.parametrize("latent_dim", [1, 2, 10])
def test_a_pass_has_the_shapes_of_vae_output(name, latent_dim):
    x, labels = batch()
    model = build(name, latent_dim)
    out = model(x, labels)
    assert isinstance(out, VAEOutput)
    assert out.logits.shape == x.shape
    assert out.mu.shape == out.logvar.shape == out.z.shape == (6, latent_dim)
    assert model.sample(7, torch.zeros(7, dtype=torch.long)).shape == (7, 1, 28, 28)


@all_models
def test_a_pass_is_encode_reparameterize_decode(name):
    x, labels = batch()
    model = build(name).eval()
    out = model(x, labels, generator=generator())
    mu, logvar = model.encode(x, labels)
    assert torch.equal(out.mu, mu)
    assert torch.equal(out.logvar, logvar)
    assert torch.equal(out.z, model.reparameterize(mu, logvar, generator()))
    assert torch.equal(out.logits, model.decode(out.z, labels))


@all_models
def test_decoders_return_logits_not_probabilities(name):
    """Far from the prior they leave [0, 1] on both sides, even untrained."""
    z, labels = 100 * torch.randn(10, 3, generator=generator()), torch.arange(10)
    logits = build(name).decode(z, labels)
    assert logits.min() < 0
    assert logits.max() > 1


@all_models
def test_an_image_has_the_posterior_it_has_alone(name):
    """In eval mode; batch norm couples the images of a training batch, as it should."""
    x, labels = batch()
    model = build(name).eval()
    together = model.encode(x, labels)
    for i in range(len(x)):
        alone = model.encode(x[i : i + 1], labels[i : i + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], rtol=1e-4, atol=1e-5)


@all_models
def test_every_parameter_learns(name):
    x, labels = batch(32)
    model = build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(2):  # what lies before a layer that starts at zero has a gradient from the second step on
        optimizer.zero_grad()
        out = model(x, labels, generator=generator())
        vae_loss(out.logits, x, out.mu, out.logvar)[0].backward()
        optimizer.step()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@all_models
def test_a_few_steps_on_one_batch_lower_the_loss(name):
    x, labels = batch(8)
    model = build(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(8):
        out = model(x, labels, generator=generator(step))
        loss = vae_loss(out.logits, x, out.mu, out.logvar)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# --- randomness ---------------------------------------------------------------------------------------------


@all_models
def test_the_same_generator_seed_gives_the_same_pass_and_another_seed_another(name):
    x, labels = batch()
    model = build(name).eval()
    first, same, other = (model(x, labels, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.logits, same.logits)
    assert not torch.equal(first.logits, other.logits)
    assert torch.equal(first.mu, other.mu)  # the posterior itself is not random


@all_models
def test_the_same_generator_seed_gives_the_same_sample_and_another_seed_another(name):
    labels = torch.zeros(4, dtype=torch.long)
    model = build(name).eval()
    first, same, other = (model.sample(4, labels, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


@all_models
def test_given_a_generator_the_global_one_is_left_alone(name):
    x, labels = batch()
    model = build(name)
    before = torch.get_rng_state()
    model(x, labels, generator=generator())
    model.sample(6, labels, generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):  # negative control
        model(x, labels)
        assert not torch.equal(torch.get_rng_state(), before)


def test_sample_decodes_draws_from_the_standard_normal():
    model = build("base").eval()
    z = torch.randn(20, 3, generator=generator())
    assert torch.equal(model.sample(20, generator=generator()), model.decode(z))


def test_sample_has_the_precision_of_the_model():
    assert build("base").double().sample(2).dtype == torch.float64


def test_reparameterize_draws_from_the_posterior():
    """Kolmogorov-Smirnov against SciPy, which also tells a variance from a standard deviation."""
    mu, logvar = torch.tensor([1.5, -0.3]), torch.tensor([-2.0, 1.0])
    z = BaseVAE(2, hidden_dim=1).reparameterize(mu.expand(50_000, 2), logvar.expand(50_000, 2), generator())
    for i in range(2):
        draws, mean, sigma = z[:, i].numpy(), mu[i].item(), (0.5 * logvar[i]).exp().item()
        assert stats.kstest(draws, stats.norm(mean, sigma).cdf).pvalue > 0.01
        assert stats.kstest(draws, stats.norm(mean, sigma**2).cdf).pvalue < 1e-6
        assert stats.kstest(draws, stats.norm(mean + 0.05, sigma).cdf).pvalue < 1e-6
    assert abs(torch.corrcoef(z.T)[0, 1].item()) < 0.02  # each dimension has noise of its own


def test_reparameterize_has_the_pathwise_gradient():
    """dz/dmu = 1 and dz/dlogvar = (z - mu) / 2."""
    mu, logvar = (torch.randn(4, 3, generator=generator(s)).requires_grad_() for s in (0, 1))
    z = BaseVAE(3, hidden_dim=1).reparameterize(mu, logvar, generator(2))
    by_mu, by_logvar = torch.autograd.grad(z.sum(), (mu, logvar))
    assert torch.equal(by_mu, torch.ones_like(mu))
    torch.testing.assert_close(by_logvar, (0.5 * (z - mu)).detach())


def test_reparameterize_without_variance_is_the_mean():
    mu = torch.randn(4, 3)
    assert torch.equal(BaseVAE(3, hidden_dim=1).reparameterize(mu, torch.full((4, 3), -300.0)), mu)


# --- labels -------------------------------------------------------------------------------------------------


@all_models
def test_only_conditional_models_say_that_they_need_labels(name):
    model = build(name).eval()
    assert model.conditional == name.startswith("conditional")
    x, labels = batch()
    if model.conditional:
        with pytest.raises(ValueError, match="needs labels"):
            model.encode(x)
    else:
        assert torch.equal(model.encode(x)[0], model.encode(x, labels)[0])
        assert torch.equal(model.sample(3, generator=generator()), model.sample(3, labels, generator=generator()))
