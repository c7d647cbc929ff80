"""fmvae.models.beta: the small convolutional VAE of the beta study, layer by layer."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fmvae.models import BetaVAE
from tests.models.layers import num_parameters, table

NORMS = {"relu_bn": ["ReLU", "BN(16)"], "bn_relu": ["BN(16)", "ReLU"]}
both_orders = pytest.mark.parametrize("norm_order", NORMS)


@both_orders
@pytest.mark.parametrize("z", [1, 2, 10])
def test_the_layers_are_those_of_the_table(norm_order, z):
    model = BetaVAE(z, norm_order)
    assert table(model.encoder) == [
        "Conv(1,8,3,2,1)",
        "ReLU",
        "Conv(8,16,3,2,1)",
        *NORMS[norm_order],
        "Conv(16,32,3,2,0)",
        "ReLU",
        "Flatten",
        "Linear(288,128)",
        "ReLU",
    ]
    assert table(model.mu) == table(model.logvar) == [f"Linear(128,{z})"]
    assert table(model.decoder) == [
        f"Linear({z},128)",
        "ReLU",
        "Linear(128,288)",
        "ReLU",
        "Unflatten(32,3,3)",
        "ConvT(32,16,3,2,0)",
        *NORMS[norm_order],
        "ConvT(16,8,3,2,1,op1)",
        "ReLU",
        "ConvT(8,1,3,2,1,op1)",
    ]


def test_relu_bn_is_the_default():
    assert table(BetaVAE(2)) == table(BetaVAE(2, "relu_bn")) != table(BetaVAE(2, "bn_relu"))


@both_orders
@pytest.mark.parametrize("z", [1, 2, 10, 32, 64])
def test_the_number_of_parameters_is_86081_and_386_per_latent_dimension(norm_order, z):
    assert num_parameters(BetaVAE(z, norm_order)) == 86_081 + 386 * z


def test_the_reference_study_has_89941_parameters_at_z_10():
    assert num_parameters(BetaVAE(10)) == 89_941


def functional_encoder(model: BetaVAE, x: torch.Tensor, norm_order: str) -> torch.Tensor:
    """A second implementation of the table, in eval mode, reading the weights by position."""
    w = model.encoder.state_dict()
    bn = "4" if norm_order == "relu_bn" else "3"

    def norm(h: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            w[f"{bn}.{key}"].reshape(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (h - mean) / (var + 1e-5).sqrt() * weight + bias

    h = F.conv2d(x, w["0.weight"], w["0.bias"], stride=2, padding=1).clamp(min=0)
    h = F.conv2d(h, w["2.weight"], w["2.bias"], stride=2, padding=1)
    h = norm(h.clamp(min=0)) if norm_order == "relu_bn" else norm(h).clamp(min=0)
    h = F.conv2d(h, w["5.weight"], w["5.bias"], stride=2).clamp(min=0)
    return F.linear(h.flatten(1), w["8.weight"], w["8.bias"]).clamp(min=0)


@both_orders
def test_the_encoder_reads_2x_minus_1_through_the_layers_of_the_table(norm_order):
    model = BetaVAE(3, norm_order).double()
    x = torch.rand(8, 1, 28, 28, dtype=torch.float64)
    model(x)  # batch norm's running statistics are no longer 0 and 1
    model.eval()
    with torch.no_grad():
        mu, logvar = model.encode(x)
        hidden = functional_encoder(model, 2 * x - 1, norm_order)
        torch.testing.assert_close(mu, model.mu(hidden))
        torch.testing.assert_close(logvar, model.logvar(hidden))
        # negative controls: the plain image, and the other order, are told apart
        other_order = "bn_relu" if norm_order == "relu_bn" else "relu_bn"
        assert not torch.allclose(mu, model.mu(functional_encoder(model, x, norm_order)))
        if norm_order == "relu_bn":
            model.encoder[3], model.encoder[4] = model.encoder[4], model.encoder[3]
            assert not torch.allclose(mu, model.encode(x)[0])
            hidden = functional_encoder(model, 2 * x - 1, other_order)
            torch.testing.assert_close(model.encode(x)[0], model.mu(hidden))


def test_encode_leaves_its_input_alone():
    x = torch.rand(2, 1, 28, 28)
    before = x.clone()
    BetaVAE(2).encode(x)
    assert torch.equal(x, before)


def test_decode_runs_the_layers_of_the_table():
    model, z = BetaVAE(3).eval(), torch.randn(4, 3)
    assert torch.equal(model.decode(z), model.decoder(z))


def test_an_unknown_norm_order_is_an_error_that_lists_the_known():
    norm_order: Any = "bn"
    with pytest.raises(ValueError, match="norm_order must be one of relu_bn, bn_relu, got 'bn'"):
        BetaVAE(2, norm_order)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(9, 40), st.integers(9, 40))
def test_any_size_from_9_pixels_comes_back_whole(channels, height, width):
    model = BetaVAE(2, image_shape=(channels, height, width))
    assert model(torch.rand(2, channels, height, width)).logits.shape == (2, channels, height, width)


@pytest.mark.parametrize("image_shape", [(1, 8, 28), (1, 28, 8), (1, 1, 1)])
def test_smaller_images_are_an_error_that_names_their_size(image_shape):
    _, height, width = image_shape
    with pytest.raises(ValueError, match=f"{height}x{width} are too small for three strided convolutions"):
        BetaVAE(2, image_shape=image_shape)
