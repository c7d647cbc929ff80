"""Features are the pixels of the right images, whatever the batches."""

import pytest
import torch

from fmvae import rng
from fmvae.data import Split
from fmvae.evaluation import features as module
from fmvae.evaluation.features import generated_images, pixel_features, real_images, reconstructed_images
from fmvae.models import VAE, BaseVAE, ConditionalVAE
from fmvae.objectives import Bernoulli, ContinuousBernoulli

BATCHES = [1, 7, 500]


@pytest.fixture(scope="module")
def split(small_data) -> Split:
    return small_data(num_test=50).test


@pytest.fixture
def base() -> VAE:
    with rng.seeded_init(0):
        return BaseVAE(2, hidden_dim=16)


@pytest.fixture
def conditional() -> VAE:
    with rng.seeded_init(0):
        return ConditionalVAE(2, hidden_dim=16)


def draws() -> torch.Generator:
    return rng.stream(0, "sampling")


@pytest.mark.parametrize("batch", BATCHES)
def test_real_images_are_the_first_of_the_split_in_0_to_1(batch, split, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", batch)
    batches = list(real_images(split, 20))
    assert max(len(x) for x in batches) == min(batch, 20)
    images = torch.cat(batches)
    assert torch.equal(images, split.images[:20].float() / 255)
    assert images.max() <= 1
    assert len(torch.cat(list(real_images(split, 1000)))) == len(split)


def test_pixel_features_are_the_flat_pixels_in_double_precision(split):
    features = pixel_features(real_images(split, 20))
    assert features.shape == (20, 784)
    assert features.dtype == "float64"
    assert features == pytest.approx(split.images[:20].flatten(1).double().numpy() / 255, rel=1e-7)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli()])
def test_reconstructions_are_decoded_posterior_means(likelihood, batch, split, base, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", batch)
    x = split.images[:20].float() / 255
    with torch.no_grad():
        expected = likelihood.mean(base.decode(base.encode(x)[0]))
    images = torch.cat(list(reconstructed_images(base, likelihood, split, 20)))
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-6)


def test_reconstructions_use_the_images_own_labels(split, conditional):
    x, labels = split.images[:20].float() / 255, split.labels[:20]
    images = torch.cat(list(reconstructed_images(conditional, Bernoulli(), split, 20)))
    with torch.no_grad():
        expected, wrong = (
            conditional.decode(conditional.encode(x, given)[0], given).sigmoid()
            for given in (labels, (labels + 1) % 10)
        )
    torch.testing.assert_close(images, expected)
    assert not torch.allclose(images, wrong, atol=1e-3)


def test_generated_images_are_decoded_prior_draws(base):
    z = torch.randn(30, 2, generator=draws())
    labels = torch.zeros(30, dtype=torch.long)
    images = torch.cat(list(generated_images(base, Bernoulli(), labels, draws())))
    with torch.no_grad():
        torch.testing.assert_close(images, base.decode(z).sigmoid())
    assert torch.equal(images, torch.cat(list(generated_images(base, Bernoulli(), labels, draws()))))


def test_generated_images_are_means_and_not_pixel_draws(base):
    images = torch.cat(list(generated_images(base, Bernoulli(), torch.zeros(30, dtype=torch.long), draws())))
    assert ((images > 0.01) & (images < 0.99)).float().mean() > 0.9


def test_generated_images_carry_their_labels(conditional, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 4)
    labels, generator = torch.arange(10), draws()
    images = torch.cat(list(generated_images(conditional, Bernoulli(), labels, draws())))
    z = torch.cat([torch.randn(n, 2, generator=generator) for n in (4, 4, 2)])
    with torch.no_grad():
        torch.testing.assert_close(images, conditional.decode(z, labels).sigmoid())
        assert not torch.allclose(images, conditional.decode(z, labels.flip(0)).sigmoid(), atol=1e-3)


def test_images_carry_no_gradients(base, split):
    labels = torch.zeros(3, dtype=torch.long)
    for images in (
        *generated_images(base, Bernoulli(), labels, draws()),
        *reconstructed_images(base, Bernoulli(), split, 3),
    ):
        assert not images.requires_grad
