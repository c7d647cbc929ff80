"""The weights that come with fmvae are those that its card describes, and good enough to judge images by."""

import hashlib

import pytest
import torch

from fmvae.data import FashionMNISTManager, Split
from fmvae.data.sources import DEFAULT_ROOT, FILES
from fmvae.models import FashionResNet18
from fmvae.models.resnet import load_classifier
from fmvae.runs.files import read_record
from fmvae.training import classify
from fmvae.weights import SHIPPED, weights_name

CARD = {word: path.with_suffix(".json") for word, path in SHIPPED.items()}
both = pytest.mark.parametrize("word", SHIPPED)


@both
def test_the_card_names_its_file(word):
    assert read_record(CARD[word])["sha256"] == hashlib.sha256(SHIPPED[word].read_bytes()).hexdigest()


@both
def test_training_ended_with_blurred_images_for_the_judge_of_classes_alone(word):
    assert (read_record(CARD[word])["config"]["trainer"].get("blur", 0) > 0) == (word == "blurred")


@both
def test_the_classifier_is_right_on_most_test_images(word):
    test = read_record(CARD[word])["test"]
    assert {"sharp": 0.945, "blurred": 0.94}[word] <= test["accuracy"] <= 1
    assert test["num_images"] == 10_000
    counts = torch.tensor(test["confusion"])
    assert counts.trace().item() == round(test["accuracy"] * 10_000)


@both
def test_the_weights_load_as_a_network_of_ten_classes_in_evaluation_mode(word):
    loaded = load_classifier(word, num_classes=10)
    assert loaded.sha256 == read_record(CARD[word])["sha256"]
    assert not loaded.model.training
    assert isinstance(loaded.model, FashionResNet18)


@both
def test_the_pixels_statistics_are_those_of_fashion_mnist(word):
    """0.2860 and 0.3530 over the 60,000 training images; a validation split moves them little."""
    model = FashionResNet18.pretrained(word)
    torch.testing.assert_close(model.mean, torch.tensor(0.286), rtol=0, atol=0.003)
    torch.testing.assert_close(model.std, torch.tensor(0.353), rtol=0, atol=0.003)


@both
def test_the_file_is_small_enough_to_be_in_the_repository(word):
    assert SHIPPED[word].stat().st_size < 23e6


@both
def test_the_network_tells_a_plain_shape_from_noise(word):
    """Its answers depend on the image, and its features are numbers that a distance can use."""
    model = FashionResNet18.pretrained(word)
    x = torch.zeros(2, 1, 28, 28)
    x[0, 0, 2:26, 6:12] = x[0, 0, 2:26, 16:22] = x[0, 0, 2:8, 6:22] = 0.6  # a pair of trousers
    x[1] = torch.rand(28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, features = model(x)
    assert logits[0].argmax() != logits[1].argmax()
    assert features.isfinite().all()
    assert not torch.allclose(features[0], features[1], rtol=0.1)


@both
@pytest.mark.real_data
@pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
def test_the_accuracy_on_the_card_is_that_of_these_weights(word):
    """On the first 300 test images, within four standard errors; other weights of the same kind fail."""
    test, stated = FashionMNISTManager(download=False).test, read_record(CARD[word])["test"]["accuracy"]
    first = Split("test", test.images[:300], test.labels[:300])
    error = (stated * (1 - stated) / 300) ** 0.5
    model = FashionResNet18.pretrained(word)
    assert accuracy_of(model, first) == pytest.approx(stated, abs=4 * error)
    model.head.weight.data = model.head.weight.data.roll(1, 0)
    assert accuracy_of(model, Split("test", test.images[:100], test.labels[:100])) < 0.5


def accuracy_of(model: FashionResNet18, split: Split) -> float:
    return (classify(model, split).argmax(1) == split.labels).double().mean().item()


def test_shipped_weights_are_called_by_their_word_and_others_by_their_sha256():
    for word, file in SHIPPED.items():
        assert weights_name(hashlib.sha256(file.read_bytes()).hexdigest()) == word
    assert weights_name("0123456789abcdef") == "0123456789"
