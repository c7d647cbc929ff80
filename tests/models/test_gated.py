"""fmvae.models.gated: two gated layers each way, and log-variances in [-6, 2]."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from fmvae.models import GatedVAE, VampPrior
from fmvae.rng import seeded_init
from tests.models.layers import num_parameters


def gate(x: np.ndarray, weights: dict[str, np.ndarray], name: str, *, swapped: bool = False) -> np.ndarray:
    """(W x + b) * sigmoid(V x + c), with W, b above V, c in the layer; the other way round if ``swapped``."""
    both = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    value, gating = np.split(both, 2, axis=1)[:: -1 if swapped else 1]
    return value * expit(gating)


def passed(model: GatedVAE, x: np.ndarray, z: np.ndarray, **options: bool) -> tuple[np.ndarray, ...]:
    """mu, logvar of images x, and logits of latents z, from the weights alone in float64."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def head(name: str, hidden: np.ndarray) -> np.ndarray:
        return hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    hidden = gate(x.reshape(len(x), -1), weights, "encoder.1", **options)
    hidden = gate(hidden, weights, "encoder.3", **options)
    decoded = gate(gate(z, weights, "decoder.0", **options), weights, "decoder.2", **options)
    return head("mu", hidden), np.clip(head("logvar", hidden), -6, 2), head("decoder.4", decoded)


@pytest.mark.parametrize(("latent_dim", "image_shape"), [(1, (1, 28, 28)), (7, (3, 9, 5))])
def test_a_pass_is_the_published_formula(latent_dim, image_shape):
    with seeded_init(0):
        model = GatedVAE(latent_dim, hidden_dim=11, image_shape=image_shape).double()
    x, z = (torch.randn(5, *shape, dtype=torch.float64) * 3 for shape in (image_shape, (latent_dim,)))
    with torch.no_grad():
        found = [*model.encode(x), model.decode(z).flatten(1)]
    expected, wrong = (passed(model, x.numpy(), z.numpy(), swapped=swapped) for swapped in (False, True))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)
    assert model.decode(z).shape == (5, *image_shape)
    assert not np.allclose(found[0].numpy(), wrong[0])  # the halves of a layer are not alike


def test_the_log_variance_stays_within_its_limits_and_has_no_gradient_beyond():
    model = GatedVAE(3, hidden_dim=4)
    with torch.no_grad():
        model.logvar.weight.zero_()
        model.logvar.bias.copy_(torch.tensor([-9.0, 0.5, 9.0]))
    logvar = model.encode(torch.rand(1, 1, 28, 28))[1]
    assert logvar.tolist() == [[-6.0, 0.5, 2.0]]
    logvar.sum().backward()
    assert model.logvar.bias.grad is not None
    assert model.logvar.bias.grad.tolist() == [0.0, 1.0, 0.0]


def test_weights_start_as_he_et_al_have_it():
    """N(0, 2 / inputs); torch's own start, uniform with a third of 1 / inputs as variance, is told apart."""
    with seeded_init(0):
        weights = {name: w for name, w in GatedVAE(40).state_dict().items() if name.endswith("weight")}
    assert len(weights) == 7
    for name, weight in weights.items():
        ratio = weight.square().mean() * weight.shape[1] / 2
        assert ratio.item() == pytest.approx(1, abs=4 * (2 / weight.numel()) ** 0.5), name
    loosest = max(4 * (2 / weight.numel()) ** 0.5 for weight in weights.values())
    assert 1 - loosest > 1 / 6  # what torch's start would give


@pytest.mark.parametrize("z", [1, 40])
def test_the_number_of_parameters_is_that_counted_by_hand(z):
    encoder = 2 * (784 * 300 + 300) + 2 * (300 * 300 + 300) + 2 * (300 * z + z)
    decoder = 2 * (z * 300 + 300) + 2 * (300 * 300 + 300) + (300 * 784 + 784)
    assert num_parameters(GatedVAE(z)) == encoder + decoder


def test_a_vamp_prior_is_made_of_the_models_own_posteriors():
    with seeded_init(0):
        model = GatedVAE(2, hidden_dim=8)
        model.latent_prior = VampPrior((1, 28, 28), 3)
    density = model.prior_density()
    mu, logvar = model.encode(model.latent_prior.pseudo_inputs)
    z = torch.randn(6, 2)
    parts = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    torch.testing.assert_close(density.log_prob(z), parts.logsumexp(1) - np.log(3))
    density.log_prob(z).sum().backward()
    assert model.latent_prior.logits.grad is not None
    assert model.latent_prior.logits.grad.abs().sum() > 0  # they are learned
