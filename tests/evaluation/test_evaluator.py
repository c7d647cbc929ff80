"""All measures of a model, each against the images it is named by."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import FashionMNISTManager, Split
from fmvae.errors import ConfigError
from fmvae.evaluation import calculate_fid, evaluate, measure_elbo
from fmvae.evaluation.evaluator import pixel_fid
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE
from fmvae.objectives import Bernoulli, Constant, Objective

SIDE = 12  # the images' middle, so that a covariance takes few images and little time
NUM = 300
OBJECTIVE = Objective(Bernoulli(), Constant(2.0))


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    manager = small_data(num_train=700, val_size=100, num_test=400)

    def middle(split: Split) -> Split:
        images = split.images[..., 8 : 8 + SIDE, 8 : 8 + SIDE].contiguous()
        return dataclasses.replace(split, images=images)

    manager.train, manager.val, manager.test = map(middle, manager.splits)
    return manager


def made(kind: Any = BaseVAE, **arguments: Any) -> VAE:
    with rng.seeded_init(0):
        return kind(2, image_shape=(1, SIDE, SIDE), **arguments)


def fid(model: VAE, data: FashionMNISTManager, *, seed: int = 0, num_images: int = NUM) -> dict[str, Any]:
    return pixel_fid(model, OBJECTIVE, data, seed=seed, num_images=num_images)


def flat(split: Split) -> np.ndarray:
    return split.images.flatten(1).double().numpy() / 255


class Perfect(VAE):
    """A latent for every pixel: decoding a posterior mean gives the image itself."""

    def __init__(self):
        super().__init__(SIDE * SIDE, (1, SIDE, SIDE))
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mu = x.flatten(1).logit()
        return mu, torch.zeros_like(mu)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z.unflatten(1, self.image_shape)


# --- the measures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [made(hidden_dim=16), made(ConditionalVAE, hidden_dim=16)], ids=["unconditional", "conditional"]
)
def test_every_measure_is_yielded_with_what_it_was_measured_on(model, data):
    measures = dict(evaluate(model, OBJECTIVE, data, seed=0, fid_images=NUM))
    assert list(measures) == ["test", "fid"]
    noise = rng.stream(0, "evaluation")
    assert measures["test"] == {
        "num_images": 400,
        **measure_elbo(model, OBJECTIVE, data.test, noise, at_mean=True),
    }
    assert set(measures["fid"]["pixels"]) > {"generation", "reconstruction", "floor", "reference", "features"}
    assert measures["fid"]["pixels"]["num_images"] == NUM
    assert all(isinstance(measures["fid"]["pixels"][name], float) for name in ("generation", "floor"))
    json.dumps(measures, allow_nan=False)


def test_no_fid_images_is_no_fid(data):
    assert list(dict(evaluate(made(), OBJECTIVE, data, seed=0, fid_images=0))) == ["test"]


def test_the_same_model_gives_the_same_bits_whenever_it_is_asked(data):
    model = made(BetaVAE).train()
    first = dict(evaluate(model, OBJECTIVE, data, seed=0, fid_images=NUM))
    torch.manual_seed(5)
    torch.rand(3)
    assert dict(evaluate(model.train(), OBJECTIVE, data, seed=0, fid_images=NUM)) == first
    assert dict(evaluate(model, OBJECTIVE, data, seed=1, fid_images=NUM)) != first


def test_evaluating_changes_no_weight_and_draws_nothing_global(data):
    model = made(BetaVAE).train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    dict(evaluate(model, OBJECTIVE, data, seed=0, fid_images=NUM))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# --- each distance is to what its name says ------------------------------------------------------------------


def test_the_floor_is_between_training_and_test_images(data):
    usual = fid(made(), data)["floor"]
    assert usual == fid(made(hidden_dim=16), data, seed=7)["floor"] > 0  # the floor of the data, not of a model
    data.test = Split("test", data.train.images[:400], data.train.labels[:400])
    data.train = Split("train", data.test.images, data.test.labels)
    assert fid(made(), data, num_images=400)["floor"] == pytest.approx(0, abs=1e-9)


def test_the_floor_of_all_images_is_their_distance(data):
    data.train = Split("train", data.train.images[:400], data.train.labels[:400])
    expected = calculate_fid(flat(data.train), flat(data.test))
    assert fid(made(), data, num_images=400)["floor"] == pytest.approx(expected, rel=1e-6)


def test_the_floor_draws_from_all_training_images_also_of_a_sorted_file(data):
    floor = fid(made(), data)["floor"]
    order = data.train.labels.argsort(stable=True)
    data.train = Split("train", data.train.images[order], data.train.labels[order])
    by_prefix = calculate_fid(flat(data.train)[:NUM], flat(data.test)[:NUM])
    assert fid(made(), data)["floor"] < 2 * floor < by_prefix


def test_a_perfect_autoencoder_has_no_reconstruction_distance(data):
    perfect = fid(Perfect(), data)
    assert perfect["reconstruction"] == pytest.approx(0, abs=1e-4)
    assert perfect["generation"] > 1
    assert fid(made(), data)["reconstruction"] > 1


@pytest.mark.parametrize("model", [made(hidden_dim=16), made(ConditionalVAE, hidden_dim=16)], ids=["base", "cond"])
def test_generation_compares_decoded_prior_draws_with_the_first_test_images(model, data):
    z = torch.randn(NUM, 2, generator=rng.stream(3, "sampling"))
    with torch.no_grad():
        generated = model.eval().decode(z, data.test.labels[:NUM]).sigmoid().flatten(1).double().numpy()
    expected = calculate_fid(generated, flat(data.test)[:NUM])
    assert fid(model, data, seed=3)["generation"] == pytest.approx(expected, rel=1e-6)
    assert fid(model, data, seed=4)["generation"] != pytest.approx(expected, rel=1e-6)


def test_reconstruction_compares_posterior_means_with_the_images_themselves(data):
    model = made(hidden_dim=16).eval()
    with torch.no_grad():
        mu, _ = model.encode(data.test.images[:NUM].float() / 255)
        reconstructed = model.decode(mu).sigmoid().flatten(1).double().numpy()
    expected = calculate_fid(reconstructed, flat(data.test)[:NUM])
    assert fid(model, data)["reconstruction"] == pytest.approx(expected, rel=1e-6)


# --- sizes that cannot be --------------------------------------------------------------------------------------


def test_more_images_than_the_test_split_has_is_an_error_that_says_so(data):
    with pytest.raises(
        ConfigError, match=r"evaluation\.fid\.num_images: 401 images asked, but the test split holds 400"
    ):
        fid(made(), data, num_images=401)
    assert fid(made(), data, num_images=400)["num_images"] == 400


def test_more_images_than_the_training_split_has_is_an_error_too(data):
    """The floor would silently be that of fewer images than the rest."""
    data.train = Split("train", data.train.images[:NUM], data.train.labels[:NUM])
    with pytest.raises(ConfigError, match=f"{NUM + 1} images asked, but the train split holds {NUM}"):
        fid(made(), data, num_images=NUM + 1)


def test_no_more_images_than_pixels_is_an_error(data):
    with pytest.raises(ConfigError, match="144 images cannot give a covariance of 144-dimensional features"):
        fid(made(), data, num_images=SIDE * SIDE)


def test_the_terms_come_before_a_fid_that_cannot_be(data):
    measures = evaluate(made(), OBJECTIVE, data, seed=0, fid_images=401)
    name, terms = next(measures)
    assert name == "test"
    assert math.isfinite(terms["recon"])
    with pytest.raises(ConfigError):
        next(measures)
