"""fmvae.models.conv: two convolutions of stride 2 down, two transposed ones up."""

import pytest
import torch

from fmvae.models import ConvVAE
from fmvae.models.conv import quarter_size
from tests.models.layers import num_parameters, table


@pytest.mark.parametrize("z", [1, 2, 10])
def test_the_layers_are_those_of_the_table(z):
    model = ConvVAE(z)
    assert table(model.encoder) == ["Conv(1,32,4,2,1)", "ReLU", "Conv(32,64,4,2,1)", "ReLU", "Flatten"]
    assert table(model.mu) == table(model.logvar) == [f"Linear(3136,{z})"]
    assert table(model.decoder) == [
        f"Linear({z},3136)",
        "ReLU",
        "Unflatten(64,7,7)",
        "ConvT(64,32,4,2,1)",
        "ReLU",
        "ConvT(32,1,4,2,1)",
    ]


@pytest.mark.parametrize("z", [1, 2, 10, 64])
def test_the_number_of_parameters_is_that_counted_by_hand(z):
    encoder = (1 * 32 * 16 + 32) + (32 * 64 * 16 + 64) + 2 * (3136 * z + z)
    decoder = (z * 3136 + 3136) + (64 * 32 * 16 + 32) + (32 * 1 * 16 + 1)
    assert num_parameters(ConvVAE(z)) == encoder + decoder == 69_825 + 9_410 * z


def test_the_feature_maps_shrink_28_14_7_and_grow_back():
    model = ConvVAE(2)
    x, sizes = torch.rand(1, 1, 28, 28), []
    for layer in [*model.encoder, model.mu, *model.decoder]:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(32, 14, 14), (64, 7, 7), (32, 14, 14), (1, 28, 28)]


def test_encode_and_decode_run_the_layers_of_the_table():
    model = ConvVAE(3)
    x, z = torch.rand(4, 1, 28, 28), torch.randn(4, 3)
    hidden = model.encoder(x)
    mu, logvar = model.encode(x)
    assert torch.equal(mu, model.mu(hidden))
    assert torch.equal(logvar, model.logvar(hidden))
    assert not torch.equal(mu, logvar)
    assert torch.equal(model.decode(z), model.decoder(z))


@pytest.mark.parametrize("image_shape", [(1, 32, 32), (3, 28, 28), (1, 28, 20), (2, 4, 8), [1, 28, 28]])
def test_sizes_that_4_divides_come_back_whole(image_shape):
    model = ConvVAE(2, image_shape=image_shape)
    assert model(torch.rand(3, *image_shape)).logits.shape == (3, *image_shape)


@pytest.mark.parametrize("image_shape", [(1, 30, 28), (1, 28, 29), (1, 2, 2)])
def test_other_sizes_are_an_error_that_names_them(image_shape):
    _, height, width = image_shape
    with pytest.raises(ValueError, match=f"multiples of 4, got {height}x{width}"):
        ConvVAE(2, image_shape=image_shape)


def test_quarter_size_keeps_height_and_width_apart():
    assert quarter_size((1, 28, 20)) == (7, 5)
