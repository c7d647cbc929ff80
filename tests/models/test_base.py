"""fmvae.models.mlp: 784 -> 400 -> (mu, logvar), z -> 400 -> 784."""

import numpy as np
import pytest
import torch

from fmvae.models import BaseVAE
from tests.models.layers import num_parameters, table


@pytest.mark.parametrize("z", [1, 2, 10])
def test_the_layers_are_those_of_the_table(z):
    model = BaseVAE(z)
    assert table(model.encoder) == ["Flatten", "Linear(784,400)", "ReLU"]
    assert table(model.mu) == table(model.logvar) == [f"Linear(400,{z})"]
    assert table(model.decoder) == [f"Linear({z},400)", "ReLU", "Linear(400,784)", "Unflatten(1,28,28)"]


@pytest.mark.parametrize("z", [1, 2, 10, 64])
def test_the_number_of_parameters_is_that_counted_by_hand(z):
    encoder = 784 * 400 + 400 + 2 * (400 * z + z)
    decoder = z * 400 + 400 + 400 * 784 + 784
    assert num_parameters(BaseVAE(z)) == encoder + decoder == 628_784 + 1_202 * z


def test_a_pass_is_that_of_a_second_implementation_in_numpy():
    model = BaseVAE(3).double()
    x = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    w = {name: value.numpy() for name, value in model.state_dict().items()}

    def linear(name: str, a: np.ndarray) -> np.ndarray:
        return a @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    hidden = np.maximum(linear("encoder.1", x.numpy().reshape(5, 784)), 0)
    mu, logvar = linear("mu", hidden), linear("logvar", hidden)
    logits = linear("decoder.2", np.maximum(linear("decoder.0", mu), 0)).reshape(5, 1, 28, 28)
    with torch.no_grad():
        found = model.encode(x)
        np.testing.assert_allclose(found[0].numpy(), mu, atol=1e-12)
        np.testing.assert_allclose(found[1].numpy(), logvar, atol=1e-12)
        np.testing.assert_allclose(model.decode(found[0]).numpy(), logits, atol=1e-12)


def test_the_width_is_an_argument():
    model = BaseVAE(2, hidden_dim=16)
    assert table(model.encoder)[1] == "Linear(784,16)"
    assert table(model.decoder)[2] == "Linear(16,784)"


@pytest.mark.parametrize("image_shape", [(1, 32, 32), (3, 5, 7), [1, 28, 28]])
def test_any_image_shape_will_do(image_shape):
    model = BaseVAE(2, hidden_dim=4, image_shape=image_shape)
    assert model(torch.rand(3, *image_shape)).logits.shape == (3, *image_shape)
