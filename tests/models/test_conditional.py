"""fmvae.models.conditional: p(x | label), the label entering at every scale."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from fmvae.models import ConditionalVAE
from fmvae.models.label_maps import convolve_with_label_maps, with_label_maps
from fmvae.objectives import Bernoulli, elbo_terms
from fmvae.rng import seeded_init
from tests.models.layers import num_parameters, table

all_backbones = pytest.mark.parametrize("backbone", ["mlp", "conv", "residual"])


def build(backbone: Any, latent_dim: int = 3, **options: Any) -> ConditionalVAE:
    with seeded_init(0):
        return ConditionalVAE(latent_dim, backbone=backbone, **options)


def images(num: int = 4) -> Tensor:
    return torch.rand(num, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def latents(num: int = 4, latent_dim: int = 3) -> Tensor:
    return torch.randn(num, latent_dim, generator=torch.Generator().manual_seed(0))


# --- layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z", [2, 10])
def test_the_layers_of_the_mlp_take_the_label_beside_pixels_and_beside_z(z):
    model = build("mlp", z)
    assert table(model) == [
        "Linear(794,400)",
        "ReLU",
        f"Linear({z + 10},400)",
        "ReLU",
        "Linear(400,784)",
        "Unflatten(1,28,28)",
        f"Linear(400,{z})",
        f"Linear(400,{z})",
    ]


@pytest.mark.parametrize("z", [2, 32])
def test_the_layers_of_the_convolutional_backbone_take_ten_label_maps_at_every_scale(z):
    model = build("conv", z)
    assert sorted(table(model)) == sorted(
        [
            "Conv(11,32,4,2,1)",  # 28
            "Conv(42,64,4,2,1)",  # 14
            f"Linear(3626,{z})",  # (64 + 10) at 7x7
            f"Linear(3626,{z})",
            f"Linear({z + 10},3136)",
            "ReLU",
            "Unflatten(64,7,7)",
            "ConvT(74,32,4,2,1)",  # 7
            "ConvT(42,32,4,2,1)",  # 14
            "Conv(42,1,3,1,1)",  # 28
        ]
    )


@pytest.mark.parametrize("z", [2, 10, 32])
def test_the_number_of_parameters_is_that_counted_by_hand(z):
    mlp = (794 * 400 + 400) + 2 * (400 * z + z) + ((z + 10) * 400 + 400) + (400 * 784 + 784)
    assert num_parameters(build("mlp", z)) == mlp == 636_784 + 1_202 * z
    down = (11 * 32 * 16 + 32) + (42 * 64 * 16 + 64) + 2 * (74 * 49 * z + z)
    up = ((z + 10) * 3136 + 3136) + (74 * 32 * 16 + 32) + (42 * 32 * 16 + 32) + (42 * 9 + 1)
    assert num_parameters(build("conv", z)) == down + up == 143_067 + 10_390 * z


def test_label_maps_are_1_everywhere_in_the_labels_own_channel_and_0_elsewhere():
    features, labels = torch.rand(3, 5, 2, 4), torch.tensor([2, 0, 1])
    found = with_label_maps(features, torch.eye(3)[labels])
    assert found.shape == (3, 8, 2, 4)
    assert torch.equal(found[:, :5], features)
    for i, label in enumerate(labels):
        for c in range(3):
            assert (found[i, 5 + c] == float(c == label)).all()


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_label_maps_looked_up_by_class_are_the_maps_convolved_image_by_image(layer, bias):
    with seeded_init(0):
        layer = layer(5 + 3, 4, 4, 2, 1, bias=bias).double()
    one_hot = torch.eye(3, dtype=torch.float64)[torch.tensor([2, 0, 2, 1, 0])]
    features = torch.rand(5, 5, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def output_and_gradients(convolve: Any) -> list[Tensor]:
        x = features.clone().requires_grad_()
        out = convolve(layer, x, one_hot)
        return [out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])]

    found = output_and_gradients(convolve_with_label_maps)
    maps = output_and_gradients(lambda layer, x, one_hot: layer(with_label_maps(x, one_hot)))
    torch.testing.assert_close(found, maps)
    none = output_and_gradients(lambda layer, x, one_hot: layer(with_label_maps(x, 0 * one_hot)))
    with pytest.raises(AssertionError):  # the labels matter here
        torch.testing.assert_close(found, none)


def mlp_pass(model: ConditionalVAE, x: Tensor, z: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    w = model.backbone.state_dict()
    hidden = F.linear(torch.cat([x.flatten(1), one_hot], 1), w["encoder.0.weight"], w["encoder.0.bias"])
    out = F.linear(torch.cat([z, one_hot], 1), w["decoder.0.weight"], w["decoder.0.bias"]).clamp(min=0)
    logits = F.linear(out, w["decoder.2.weight"], w["decoder.2.bias"])
    return model.mu(hidden.clamp(min=0)), logits.reshape(x.shape)


def conv_pass(model: ConditionalVAE, x: Tensor, z: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    w = model.backbone.state_dict()

    def maps(size: int) -> Tensor:
        return one_hot.repeat_interleave(size * size, dim=1).reshape(len(x), 10, size, size)

    def weights(name: str) -> tuple[Tensor, Tensor]:
        return w[f"{name}.weight"], w[f"{name}.bias"]

    h = F.conv2d(torch.cat([x, maps(28)], 1), *weights("down.0"), stride=2, padding=1).clamp(min=0)
    h = F.conv2d(torch.cat([h, maps(14)], 1), *weights("down.1"), stride=2, padding=1).clamp(min=0)
    mu = model.mu(torch.cat([h, maps(7)], 1).flatten(1))
    h = F.linear(torch.cat([z, one_hot], 1), *weights("expand.0")).clamp(min=0).reshape(-1, 64, 7, 7)
    h = F.conv_transpose2d(torch.cat([h, maps(7)], 1), *weights("up.0"), stride=2, padding=1).clamp(min=0)
    h = F.conv_transpose2d(torch.cat([h, maps(14)], 1), *weights("up.1"), stride=2, padding=1).clamp(min=0)
    return mu, F.conv2d(torch.cat([h, maps(28)], 1), *weights("out"), padding=1)


@pytest.mark.parametrize(("backbone", "second"), [("mlp", mlp_pass), ("conv", conv_pass)])
def test_a_pass_is_that_of_a_second_implementation(backbone, second):
    model = build(backbone).double()
    x, z, labels = images().double(), latents().double(), torch.tensor([0, 9, 3, 3])
    mu, logits = second(model, x, z, torch.eye(10, dtype=torch.float64)[labels])
    torch.testing.assert_close(model.encode(x, labels)[0], mu)
    torch.testing.assert_close(model.decode(z, labels), logits)
    wrong_mu, wrong_logits = second(model, x, z, torch.eye(10, dtype=torch.float64)[labels.flip(0)])
    assert not torch.allclose(mu, wrong_mu)
    assert not torch.allclose(logits, wrong_logits)


# --- labels -------------------------------------------------------------------------------------------------


@all_backbones
def test_labels_are_required(backbone):
    model = build(backbone)
    for call in (
        lambda: model.encode(images()),
        lambda: model.decode(latents()),
        lambda: model(images()),
        lambda: model.sample(4),
    ):
        with pytest.raises(ValueError, match="a conditional VAE needs labels"):
            call()


@all_backbones
@pytest.mark.parametrize("label", [10, -1, 255])
def test_a_label_outside_the_classes_is_refused(backbone, label):
    model, labels = build(backbone), torch.tensor([0, 1, 2, label])
    with pytest.raises(RuntimeError, match="Class values must be"):
        model.encode(images(), labels)
    with pytest.raises(RuntimeError, match="Class values must be"):
        model.decode(latents(), labels)


@all_backbones
def test_the_last_class_is_accepted(backbone):
    assert build(backbone)(images(), torch.full((4,), 9)).logits.isfinite().all()


@all_backbones
@pytest.mark.parametrize("num_labels", [1, 3, 5])
def test_one_label_per_image_is_needed(backbone, num_labels):
    with pytest.raises(RuntimeError):
        build(backbone)(images(4), torch.zeros(num_labels, dtype=torch.long))


@all_backbones
def test_any_two_labels_give_different_posteriors_and_images(backbone):
    model = build(backbone).eval()
    every = torch.arange(10)
    mu, logvar = model.encode(images(1).expand(10, -1, -1, -1), every)
    logits = model.decode(latents(1).expand(10, -1), every)
    for values in (mu, logvar, logits.flatten(1)):
        distances = torch.cdist(values, values) + torch.eye(10)
        assert distances.min() > 1e-3


@all_backbones
def test_labels_belong_to_their_own_image(backbone):
    model = build(backbone).eval()
    labels = torch.tensor([0, 1, 2, 3])
    changed = torch.tensor([0, 1, 7, 3])
    different = (model.decode(latents(), labels) - model.decode(latents(), changed)).flatten(1).abs().sum(1) > 0
    assert different.tolist() == [False, False, True, False]


# Where the label enters: a layer, and the part of its weight that reads the label.
INJECTIONS = {
    "mlp": {
        "encode": {"encoder.0": (slice(None), slice(-10, None))},
        "decode": {"decoder.0": (slice(None), slice(-10, None))},
    },
    "conv": {
        "encode": {
            "down.0": (slice(None), slice(-10, None)),  # 28x28
            "down.1": (slice(None), slice(-10, None)),  # 14x14
            "mu": (slice(None), slice(64 * 49, None)),  # 7x7
            "logvar": (slice(None), slice(64 * 49, None)),
        },
        "decode": {
            "expand.0": (slice(None), slice(-10, None)),
            "up.0": (slice(-10, None),),  # 7x7; transposed convolutions have their inputs first
            "up.1": (slice(-10, None),),  # 14x14
            "out": (slice(None), slice(-10, None)),  # 28x28
        },
    },
    "residual": {
        "encode": {
            "stem": (slice(None), slice(-10, None)),  # 28x28
            "down": (slice(None), slice(-10, None)),  # 14x14
            "mu": (slice(None), slice(-10, None)),
            "logvar": (slice(None), slice(-10, None)),
        },
        "decode": {
            "expand.0": (slice(None), slice(-10, None)),
            "up": (slice(-10, None),),  # 7x7
            "out": (slice(-10, None),),  # 14x14
        },
    },
}
SITES = [(b, way, site) for b, ways in INJECTIONS.items() for way, sites in ways.items() for site in sites]


@pytest.mark.parametrize(("backbone", "way", "site"), SITES)
def test_the_label_reaches_the_output_through_each_injection_and_through_nothing_else(backbone, way, site):
    model = build(backbone).eval()

    def depends_on_label() -> bool:
        outputs = []
        for label in (0, 7):
            labels = torch.full((4,), label)
            out = model.encode(images(), labels) if way == "encode" else (model.decode(latents(), labels),)
            outputs.append(torch.cat([tensor.flatten() for tensor in out]))
        return not torch.equal(*outputs)

    @torch.no_grad()
    def close(name: str) -> None:
        layer = model.get_submodule(name if name in ("mu", "logvar") else f"backbone.{name}")
        layer.get_parameter("weight")[INJECTIONS[backbone][way][name]] = 0

    for name in INJECTIONS[backbone][way]:
        if name != site:
            close(name)
    assert depends_on_label()
    close(site)
    assert not depends_on_label()


# --- the learned prior --------------------------------------------------------------------------------------


def with_learned_prior(backbone: Any) -> tuple[ConditionalVAE, Any]:
    """In float64, and its prior: for each class one that is as good as never N(0, 1)."""
    model = build(backbone, prior="learned").double()
    prior, draws = model.get_submodule("prior"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(generator=draws)
    return model, prior


@all_backbones
def test_a_learned_prior_starts_as_the_standard_one_and_adds_a_mean_and_a_deviation_for_each_class(backbone):
    learned, standard = build(backbone, prior="learned"), build(backbone)
    assert num_parameters(learned) - num_parameters(standard) == 2 * 10 * 3
    labels = torch.tensor([0, 9, 3, 3])
    torch.testing.assert_close(learned.encode(images(), labels), standard.encode(images(), labels))
    torch.testing.assert_close(learned.decode(latents(), labels), standard.decode(latents(), labels))


@all_backbones
def test_with_a_learned_prior_the_kl_is_that_to_the_prior_of_the_images_class(backbone):
    model, prior = with_learned_prior(backbone)
    labels, x = torch.tensor([0, 9, 3, 3]), images().double()

    def kl_to_the_prior_of(classes: Tensor) -> Tensor:
        """By torch.distributions, of the posterior of z itself, which the layers give."""
        features = model.backbone.encode(x, F.one_hot(labels, 10).double())
        posterior = Normal(model.mu(features), (model.logvar(features) / 2).exp())
        return kl_divergence(posterior, Normal(prior.mean[classes], prior.log_std[classes].exp())).sum(1)

    mu, logvar = model.encode(x, labels)
    terms = elbo_terms(Bernoulli(), torch.zeros_like(x), x, mu, logvar)
    torch.testing.assert_close(terms.kl, kl_to_the_prior_of(labels))
    assert not torch.allclose(terms.kl, kl_to_the_prior_of(labels.flip(0)))


@all_backbones
def test_with_a_learned_prior_standard_normal_draws_are_decoded_as_draws_from_the_prior_of_the_class(backbone):
    model, prior = with_learned_prior(backbone)
    labels, noise = torch.tensor([0, 9, 3, 3]), latents().double()

    def decoded_from_the_prior_of(classes: Tensor) -> Tensor:
        z = prior.mean[classes] + prior.log_std[classes].exp() * noise
        return model.backbone.decode(z, F.one_hot(labels, 10).double())

    torch.testing.assert_close(model.decode(noise, labels), decoded_from_the_prior_of(labels))
    assert not torch.allclose(model.decode(noise, labels), decoded_from_the_prior_of(labels.flip(0)))


@all_backbones
def test_a_learned_prior_goes_to_where_the_posteriors_of_its_class_are(backbone):
    """The KL alone is trained, and of the prior alone: what it ends at is known in closed form."""
    model, prior = with_learned_prior(backbone)
    labels, x = torch.tensor([0, 9, 3, 3]), images().double()
    features = model.backbone.encode(x, F.one_hot(labels, 10).double()).detach()
    mu, variance = model.mu(features).detach(), model.logvar(features).detach().exp()
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def kl() -> Tensor:
        optimizer.zero_grad()
        loss = elbo_terms(Bernoulli(), torch.zeros_like(x), x, *model.encode(x, labels)).kl.sum()
        loss.backward()
        return loss

    optimizer.step(kl)
    for label in (0, 3, 9):
        mean = mu[labels == label].mean(0)
        std = (variance + (mu - mean) ** 2)[labels == label].mean(0).sqrt()
        torch.testing.assert_close(prior.mean[label], mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prior.log_std[label].exp(), std, rtol=1e-4, atol=1e-4)


def test_an_unknown_prior_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="prior must be one of standard, learned, got 'vamp'"):
        build("mlp", prior="vamp")


# --- other sizes --------------------------------------------------------------------------------------------


@all_backbones
@pytest.mark.parametrize("image_shape", [(1, 32, 32), (3, 28, 20)])
def test_other_image_shapes_and_numbers_of_classes_work(backbone, image_shape):
    model = build(backbone, num_classes=3, image_shape=image_shape)
    labels = torch.tensor([0, 1, 2])
    assert model(torch.rand(3, *image_shape), labels).logits.shape == (3, *image_shape)
    with pytest.raises(RuntimeError, match="Class values must be"):
        model(torch.rand(3, *image_shape), labels + 1)


def test_the_convolutional_backbone_needs_multiples_of_4():
    with pytest.raises(ValueError, match="multiples of 4, got 30x28"):
        build("conv", image_shape=(1, 30, 28))


def test_the_width_of_the_mlp_is_an_argument():
    assert table(build("mlp", hidden_dim=16))[0] == "Linear(794,16)"


def test_an_unknown_backbone_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="backbone must be one of mlp, conv, residual, got 'resnet'"):
        build("resnet")
