"""data.binarize: draws whose expectation is the grey image, the same for the same seed and epoch."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from fmvae.config import compose
from fmvae.config.project import groups
from fmvae.data import FashionMNISTManager, ImageData, binarize, fashion_mnist
from fmvae.data.binarize import binarized, fixed_draw
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.objectives import Bernoulli

SIZES = {"train": 40, "val": 12, "test": 16}


def grey(num: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, channels, 6, 5), dtype=np.uint8)


def made(how: Any, seed: int = 0, channels: int = 1) -> ImageData:
    parts: dict[str, Any] = {name: (grey(num, channels), np.arange(num) % 3) for name, num in SIZES.items()}
    return ImageData(**parts, binarize=how, seed=seed, content="fashion-mnist")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- a draw ---------------------------------------------------------------------------------------------------


def test_a_pixel_is_white_with_the_probability_of_its_grey_value():
    levels = np.arange(256)
    num = 20_000
    images = torch.arange(256, dtype=torch.uint8).expand(num, 1, 1, 256).contiguous()
    drawn = binarized(images, stream())
    assert drawn.dtype == torch.uint8
    assert drawn.unique().tolist() == [0, 255]
    share = (drawn == 255).double().mean((0, 1, 2)).numpy()
    assert (share[0], share[255]) == (0.0, 1.0)

    def deviations(p: np.ndarray) -> np.ndarray:
        """In standard errors of a binomial share."""
        return (share[1:255] - p[1:255]) / np.sqrt(p[1:255] * (1 - p[1:255]) / num)

    found = deviations(levels / 255)
    assert abs(found).max() < 4.5
    assert abs(found.sum()) / math.sqrt(254) < 4  # all levels together
    assert 0.7 < np.square(found).mean() < 1.3  # they do vary as independent draws
    assert abs(deviations(levels / 256).sum()) / math.sqrt(254) > 6  # the control: a 256th in place of a 255th


def test_pixels_and_images_are_drawn_independently():
    images = torch.full((4000, 1, 1, 8), 100, dtype=torch.uint8)
    white = (binarized(images, stream()) == 255).double().flatten(1)
    bound = 5 / math.sqrt(len(white))
    between = torch.corrcoef(white.T)[~torch.eye(8, dtype=torch.bool)]
    assert between.abs().max() < bound
    assert torch.corrcoef(torch.stack([white[:-1, 0], white[1:, 0]]))[0, 1].abs() < bound
    twice = torch.corrcoef(torch.stack([white[:, 0], white[:, 0]]))[0, 1]
    assert twice > bound  # the control


def test_chunks_change_no_draw(monkeypatch):
    images = torch.from_numpy(grey(50))
    whole = binarized(images, stream())
    monkeypatch.setattr(binarize, "CHUNK", 7)
    assert torch.equal(binarized(images, stream()), whole)
    place = torch.empty_like(images)
    assert binarized(images, stream(), out=place) is place
    assert torch.equal(place, whole)
    assert not torch.equal(binarized(images, stream(1)), whole)


# --- the splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_every_split_is_black_and_white_and_all_else_is_as_without(how, channels):
    data, plain = made(how, channels=channels), made(None, channels=channels)
    for split, before in zip(data.splits, plain.splits, strict=True):
        assert split.images.dtype == torch.uint8
        assert split.images.shape == before.images.shape
        assert split.images.unique().tolist() == [0, 255]
        assert len(before.images.unique()) > 100  # the control
        assert torch.equal(split.images[before.images == 255].unique(), torch.tensor([255], dtype=torch.uint8))
        assert torch.equal(split.labels, before.labels)
        assert split.name == before.name
    assert data.sha256 == plain.sha256
    assert (data.image_shape, data.class_names) == (plain.image_shape, plain.class_names)
    assert (data.binarize, plain.binarize) == (how, None)
    assert (data.content, plain.content) == ("", "fashion-mnist")


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_splits_are_the_same_every_time_and_held_out_ones_for_all_seeds(how):
    first, same, other = made(how), made(how), made(how, seed=1)
    for name in SIZES:
        images = [getattr(data, name).images for data in (first, same, other)]
        assert torch.equal(images[0], images[1])
        assert torch.equal(images[0], images[2]) == (name != "train")
    assert all(map(torch.equal, *([split.images for split in made(h).splits] for h in ("static", "dynamic"))))


def test_the_splits_are_drawn_from_streams_of_their_own():
    """The same grey images in each split: with one stream, all would be the same draw."""
    part = (grey(12), None)
    data = ImageData(train=part, val=part, test=part, binarize="dynamic")
    draws = [split.images for split in (*data.splits, data.train_of_epoch(1))]
    expected = to_float(torch.from_numpy(grey(12))).double()
    agree = (expected.square() + (1 - expected).square()).mean().item()  # of two independent draws
    for one, another in itertools.combinations(draws, 2):
        assert (one == another).double().mean().item() == pytest.approx(agree, abs=0.1)
    assert agree < 0.75  # the control: the same draw would agree in all pixels


def test_dynamic_draws_each_epoch_anew_and_the_same_whatever_came_before():
    data = made("dynamic")
    fixed = data.train.images.clone()
    epochs = [data.train_of_epoch(epoch).images.clone() for epoch in (1, 2, 3)]
    for one, another in itertools.combinations([fixed, *epochs], 2):
        assert not torch.equal(one, another)
    assert torch.equal(data.train_of_epoch(2).images, epochs[1])  # again, as a resumed epoch
    assert torch.equal(made("dynamic").train_of_epoch(3).images, epochs[2])  # by a process that starts there
    assert not torch.equal(made("dynamic", seed=1).train_of_epoch(3).images, epochs[2])
    assert torch.equal(data.train.images, fixed)


def test_dynamic_fills_one_buffer_in_place():
    data = made("dynamic")
    first = data.train_of_epoch(1)
    address, labels = first.images.data_ptr(), first.labels
    before = first.images.clone()
    second = data.train_of_epoch(2)
    assert second is first
    assert second.images.data_ptr() == address != data.train.images.data_ptr()
    assert not torch.equal(second.images, before)
    assert (second.name, len(second)) == ("train", SIZES["train"])
    assert torch.equal(labels, data.train.labels)


@pytest.mark.parametrize("how", [None, "static"])
def test_without_dynamic_every_epoch_has_the_same_split(how):
    data = made(how)
    assert all(data.train_of_epoch(epoch) is data.train for epoch in (1, 2))


def test_drawing_leaves_the_global_generator_and_the_given_images_as_they_are():
    state, given = torch.get_rng_state(), torch.from_numpy(grey(12))
    part = (given, None)
    for how in ("static", "dynamic"):
        ImageData(train=part, val=part, test=part, binarize=how).train_of_epoch(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(given.numpy(), grey(12))


def test_dynamic_epochs_average_to_the_grey_images():
    data, num = made("dynamic"), 400
    total = sum((to_float(data.train_of_epoch(epoch).images).double() for epoch in range(1, num + 1)), start=0.0)
    assert isinstance(total, Tensor)
    p = to_float(torch.from_numpy(grey(SIZES["train"]))).double()
    errors = (total / num - p) / (p * (1 - p) / num).sqrt()
    errors = errors[(p > 0) & (p < 1)]
    assert errors.abs().max() < 5.5
    assert errors.square().mean().item() == pytest.approx(1, abs=0.2)
    static = (to_float(made("static").train.images).double() - p) / (p * (1 - p) / num).sqrt()
    assert static[(p > 0) & (p < 1)].square().mean() > 100  # the control


@pytest.mark.parametrize("value", ["sometimes", True, 0, ["static"], ""])
def test_another_value_is_refused_in_one_line(value, small_data):
    for make in (made, lambda how: small_data(binarize=how)):
        with pytest.raises(
            ConfigError, match=r"^data.binarize: .* is no way to draw .*; give static, dynamic or null$"
        ):
            make(value)


LIKELIHOODS = ["continuous_bernoulli", "gaussian", "gaussian_learned", "laplace"]


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_likelihood_for_grey_values_is_refused_while_composing(likelihood, how):
    told = rf"^data\.binarize: '{how}' makes every pixel 0 or 1, and \w+ is for grey .*; choose likelihood=b"
    with pytest.raises(ConfigError, match=told):
        compose([f"likelihood={likelihood}", f"data.binarize={how}"])
    compose([f"likelihood={likelihood}"])  # the controls
    assert compose([f"data.binarize={how}"])["data"]["binarize"] == how
    assert {*LIKELIHOODS, "bernoulli"} == set(groups()["likelihood"])


def test_a_classifier_is_trained_on_one_draw_and_takes_no_other():
    """It reads the training split as it is, so ``dynamic`` would be ``static`` under another name."""
    with pytest.raises(ConfigError, match=r"^data\.binarize: a classifier .*; give data\.binarize=static$"):
        compose(["data.binarize=dynamic"], "classifier")
    assert compose(["data.binarize=static"], "classifier")["data"]["binarize"] == "static"


# --- Fashion-MNIST --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_the_manager_draws_by_its_seed_and_keeps_digests_and_names(how, small_data, monkeypatch):
    plain = small_data()
    monkeypatch.setattr(fashion_mnist, "SHA256", plain.sha256)  # as if these files were the published ones
    plain, data = small_data(), small_data(binarize=how)
    assert plain.content == "fashion-mnist"
    assert data.content == ""
    assert data.class_names == plain.class_names == fashion_mnist.CLASS_NAMES
    assert data.sha256 == plain.sha256
    other, chosen = small_data(binarize=how, seed=1), small_data(seed=1).train.images
    assert torch.equal(data.test.images, other.test.images)
    assert torch.equal(other.train.images, fixed_draw("train", chosen, 1))
    assert not torch.equal(other.train.images, fixed_draw("train", chosen, 0))  # the control
    again = small_data(binarize=how)
    assert torch.equal(data.train_of_epoch(4).images, again.train_of_epoch(4).images)
    for split, before in zip(data.splits, plain.splits, strict=True):
        assert torch.equal(split.labels, before.labels)
        # as many white pixels as the grey values say, to five standard errors
        p = to_float(before.images).double()
        white = (split.images == 255).double().sum()
        assert abs(white - p.sum()) < 5 * (p * (1 - p)).sum().sqrt()


# --- why grey values as probabilities are another scale -------------------------------------------------------


def logits_of(p: Tensor) -> Tensor:
    """The logits that give the least cross-entropy: those of the grey values themselves."""
    return torch.logit(p.double()).clamp(-40, 40)


@pytest.mark.real_data
def test_the_floor_of_grey_cross_entropy_is_the_published_one():
    """Of the 10,000 test images: 189.86 nats. Draws of them have a floor of 0."""
    data = FashionMNISTManager(download=False)
    p = to_float(data.test.images).double()
    entropies = (special.entr(p.numpy()) + special.entr(1 - p.numpy())).reshape(len(p), -1).sum(1)
    print(f"mean entropy of the grey test images: {entropies.mean():.4f} nats")
    assert entropies.mean() == pytest.approx(189.86, abs=0.005)
    assert Bernoulli().nll(logits_of(p), p).mean().item() == pytest.approx(entropies.mean(), rel=1e-9)
    assert Bernoulli().nll(logits_of(p) + 0.1, p).mean().item() > entropies.mean() + 0.1  # the control

    drawn = to_float(binarized(data.test.images[:1000], stream()))
    own = Bernoulli().nll(logits_of(drawn), drawn)
    assert own.max() < 1e-9


def test_the_expected_nll_over_draws_is_the_grey_cross_entropy():
    """Bernoulli nll is linear in x, so that for fixed logits the two scales agree on average."""
    images = torch.from_numpy(grey(20))
    logits = torch.randn(images.shape, generator=stream(1), dtype=torch.float64)
    expected = Bernoulli().nll(logits, to_float(images).double())
    num, generator = 4000, stream(2)
    draws = torch.stack(
        [Bernoulli().nll(logits, to_float(binarized(images, generator)).double()) for _ in range(num)]
    )
    errors = draws.mean(0) - expected
    standard = draws.std(0) / math.sqrt(num)
    print(f"largest deviation of the mean: {(errors / standard).abs().max():.2f} standard errors")
    assert (errors.abs() < 4 * standard).all()
    halves = (images >= 128).double()  # the control: rounded, not drawn
    assert ((Bernoulli().nll(logits, halves) - expected).abs() > 20 * standard).any()


def test_a_bound_of_grey_values_is_never_below_the_mean_of_that_of_draws():
    """All 2^6 draws of an image of six pixels, and the exact evidence of a model with 50 values of z.

    For grey x, the best bound is -log sum_z p(z) exp(-cross-entropy(x, z)): a posterior of its own for every draw
    can only be better than one for all of them.
    """
    generator = stream(3)
    p = torch.rand(6, generator=generator, dtype=torch.float64)
    logits = 1.5 * torch.randn(50, 1, 1, 6, generator=generator, dtype=torch.float64)

    def bound(x: Tensor) -> float:
        return -(torch.logsumexp(-Bernoulli().nll(logits, x.expand_as(logits)), 0) - math.log(50)).item()

    draws = torch.tensor([*itertools.product([0.0, 1.0], repeat=6)], dtype=torch.float64)
    chances = (p * draws + (1 - p) * (1 - draws)).prod(1)
    assert chances.sum().item() == pytest.approx(1, abs=1e-12)
    assert sum(math.exp(-bound(x)) for x in draws) == pytest.approx(1, abs=1e-12)  # a distribution over draws ...
    mean = sum(chance.item() * bound(x) for chance, x in zip(chances, draws, strict=True))
    print(f"grey {bound(p):.4f} nats, mean of the draws {mean:.4f}")
    assert bound(p) > mean + 0.1
    assert min(map(bound, draws)) < bound(p) < max(map(bound, draws))  # ... and single draws lie on both sides
    # with one value of z there is nothing to choose, and the two are equal
    one = Bernoulli().nll(logits[:1], p.expand(1, 1, 1, 6)).item()
    of_draws = (chances * Bernoulli().nll(logits[:1].expand(64, 1, 1, 6), draws.view(64, 1, 1, 6))).sum().item()
    assert one == pytest.approx(of_draws, rel=1e-12)
