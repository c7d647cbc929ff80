"""Features are those of the right images, whatever the batches."""

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmvae import rng
from fmvae.data import Split
from fmvae.errors import RunError
from fmvae.evaluation import features as module
from fmvae.evaluation.features import (
    Pixels,
    ResNetFeatures,
    fold_batch_norm,
    generated_images,
    real_images,
    reconstructed_images,
    resnet_identity,
)
from fmvae.models import VAE, BaseVAE, ConditionalVAE, FashionResNet18, MixturePrior
from fmvae.models.resnet import load_classifier, save_classifier
from fmvae.objectives import Bernoulli, ContinuousBernoulli
from fmvae.weights import SHIPPED, card_of
from tests.models.test_resnet import randomised

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
    features, logits = Pixels()(real_images(split, 20))
    assert logits is None
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


def test_generated_images_are_of_the_models_prior(monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 4)
    with rng.seeded_init(0):
        model = BaseVAE(2, hidden_dim=16)
        model.latent_prior = MixturePrior(2, 3)
    labels, generator, density = torch.zeros(10, dtype=torch.long), draws(), model.prior_density()
    images = torch.cat(list(generated_images(model, Bernoulli(), labels, draws())))
    with torch.no_grad():
        z = torch.cat([density.sample(n, generator) for n in (4, 4, 2)])
        torch.testing.assert_close(images, model.decode(z).sigmoid())


def test_generated_images_are_what_a_model_of_ones_own_samples():
    class Black(BaseVAE):
        def sample(self, num_samples, labels=None, *, generator=None):
            return torch.full((num_samples, *self.image_shape), -math.inf)

    images = torch.cat(list(generated_images(Black(2), Bernoulli(), torch.zeros(10, dtype=torch.long), draws())))
    assert not images.any()


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


# --- features of the classifier -------------------------------------------------------------------------------

NUM = 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> FashionResNet18:
    """Every scale, shift and running average of its own: one that was left out would show."""
    return randomised(4, seed=1)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_classifier(path, network, {})
    return path


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(NUM, 1, 10, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def extractor(weights) -> ResNetFeatures:
    return ResNetFeatures(weights, 4, "fp32", CPU)


def distance(a: torch.Tensor | np.ndarray, b: torch.Tensor | np.ndarray) -> float:
    """Relative, of all numbers together."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    assert a.shape == b.shape
    return ((a - b).norm() / b.norm()).item()


def forget_a_shift(network: FashionResNet18) -> None:
    network.backbone.layer2[1].bn2.bias.data.zero_()


def forget_a_running_mean(network: FashionResNet18) -> None:
    network.backbone.layer3[0].downsample[1].running_mean.zero_()


@torch.no_grad()
def test_folded_batch_norms_leave_features_and_logits_as_they_are(network, images):
    folded = fold_batch_norm(copy.deepcopy(network))
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not folded.training
    for ours, expected in zip(folded(images), network(images), strict=True):
        assert distance(ours, expected) < 1e-4
    assert distance(network(images).features, network(images.flip(0)).features) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("forget", [forget_a_shift, forget_a_running_mean])
def test_negative_control_a_batch_norm_that_is_folded_wrongly_shows(forget, network, images):
    broken = copy.deepcopy(network)
    forget(broken)
    assert distance(fold_batch_norm(broken)(images).features, network(images).features) > 1e-3


@torch.no_grad()
def test_features_and_logits_are_those_of_the_network_in_the_file(extractor, weights, images):
    model = load_classifier(weights).model
    features, logits = extractor([images])
    assert logits is not None
    assert (features.shape, features.dtype) == ((NUM, 512), np.float32)
    assert (logits.shape, logits.dtype) == ((NUM, 4), np.float32)
    assert distance(features, model(images).features) < 1e-4
    assert distance(logits, model.head(torch.from_numpy(features))) < 1e-5


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_resnet_features_do_not_depend_on_batches(batch, extractor, images, monkeypatch):
    features, logits = extractor([images])
    sizes = []
    watch = extractor.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    monkeypatch.setattr(module, "EXTRACTION_BATCH", batch)
    ours = extractor(iter([images[:4], images[4:]]), "test images", NUM)
    watch.remove()
    assert len(sizes) == math.ceil(4 / batch) + math.ceil(3 / batch)
    assert ours.features == pytest.approx(features, rel=1e-4, abs=1e-5)
    assert ours.logits == pytest.approx(logits, rel=1e-4, abs=1e-5)


def test_bfloat16_features_are_close_and_not_the_same(extractor, weights, images):
    exact, rounded = extractor([images]), ResNetFeatures(weights, 4, "bf16", CPU)([images])
    assert rounded.features.dtype == np.float32
    assert 1e-4 < distance(rounded.features, exact.features) < 3e-2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.one_in(2)
def test_the_number_of_threads_changes_no_bit(weights, precision):
    """Which is why the cache of real images is not keyed by it."""
    images = torch.rand(120, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    features, threads, found = ResNetFeatures(weights, 4, precision, CPU), torch.get_num_threads(), []
    try:
        for num in (1, 2, 3):
            torch.set_num_threads(num)
            found.append(features([images]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_features_carry_no_gradients_and_leave_the_images_alone(extractor, images):
    before = images.clone()
    extractor([images])
    assert torch.equal(images, before)
    assert not extractor.network(images[:1]).features.is_inference()


def test_the_identity_is_that_of_the_file_and_of_the_precision(extractor, weights):
    sha256 = load_classifier(weights).sha256
    assert extractor.identity["extractor_sha256"] == sha256
    assert extractor.identity == resnet_identity(sha256, "fp32")
    assert resnet_identity(sha256, "bf16") != extractor.identity != resnet_identity("0" * 64, "fp32")
    assert Pixels.identity != extractor.identity


def test_weights_for_other_classes_are_refused(weights):
    with pytest.raises(RunError, match="4 classes, but the data have 10"):
        ResNetFeatures(weights, 10, "fp32", CPU)


# --- when the network is made ---------------------------------------------------------------------------------


@pytest.fixture
def shipped(monkeypatch, weights, tmp_path) -> Iterator[Path]:
    """The word ``sharp`` for a copy of ``weights``, with its card."""
    path = tmp_path / "shipped.safetensors"
    path.write_bytes(weights.read_bytes())
    card = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "config": {"data": {"num_classes": 4}}}
    path.with_suffix(".json").write_text(json.dumps(card))
    monkeypatch.setitem(SHIPPED, "sharp", path)
    card_of.cache_clear()
    yield path
    card_of.cache_clear()


@pytest.fixture
def loads(monkeypatch) -> list[Any]:
    """What is loaded, in order, by a process that has loaded nothing yet."""
    seen: list[Any] = []
    module._network.cache_clear()
    monkeypatch.setattr(module, "load_classifier", lambda *given: seen.append(given[0]) or load_classifier(*given))
    return seen


def test_shipped_weights_are_loaded_when_they_are_needed(shipped, loads, extractor, images):
    late = ResNetFeatures("sharp", 4, "fp32", CPU)
    assert not loads
    assert late.identity == extractor.identity
    assert np.array_equal(late([images]).features, extractor([images]).features)
    assert loads == ["sharp"]
    late([images])
    assert loads == ["sharp"], "once"


def test_others_are_loaded_at_once(weights, loads):
    ResNetFeatures(weights, 4, "fp32", CPU)
    assert loads == [weights]


def test_shipped_weights_that_are_damaged_are_refused_at_once(shipped, loads):
    content = bytearray(shipped.read_bytes())
    content[-1] ^= 1
    shipped.write_bytes(content)
    with pytest.raises(RunError):
        ResNetFeatures("sharp", 4, "fp32", CPU)


def test_shipped_weights_for_other_classes_are_refused_at_once(shipped):
    with pytest.raises(RunError, match="4 classes, but the data have 10"):
        ResNetFeatures("sharp", 10, "fp32", CPU)


def test_weights_replaced_since_the_start_are_noticed(shipped, network):
    late = ResNetFeatures("sharp", 4, "fp32", CPU)
    save_classifier(shipped, network, {"another": "card"})
    with pytest.raises(RunError, match="replaced since the start"):
        _ = late.network


# --- one network per process ----------------------------------------------------------------------------------


def test_runs_of_a_process_share_a_network(shipped, loads, images):
    """Also in both precisions, which differ in the computation only."""
    made = [ResNetFeatures("sharp", 4, precision, CPU) for precision in ("fp32", "bf16", "fp32")]
    first, rounded, again = (each([images]).features for each in made)
    assert loads == ["sharp"]
    assert made[0].network is made[1].network
    assert np.array_equal(first, again)
    assert not np.array_equal(first, rounded)


def test_negative_control_without_sharing_each_loads_its_own(shipped, loads, monkeypatch):
    monkeypatch.setattr(module, "_network", module._network.__wrapped__)
    assert ResNetFeatures("sharp", 4, "fp32", CPU).network is not ResNetFeatures("sharp", 4, "fp32", CPU).network
    assert loads == ["sharp", "sharp"]


def test_runs_share_the_network_of_a_users_file_too(weights, loads):
    assert ResNetFeatures(weights, 4, "fp32", CPU).network is ResNetFeatures(weights, 4, "fp32", CPU).network
    assert loads == [weights]


def test_other_content_another_number_of_classes_or_device_is_another_network(weights, loads, tmp_path, images):
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights.read_bytes())
    before = ResNetFeatures(path, 4, "fp32", CPU)
    features = before([images]).features
    save_classifier(path, randomised(4, seed=2), {})
    after = ResNetFeatures(path, 4, "fp32", CPU)
    assert after.identity != before.identity
    assert not np.array_equal(after([images]).features, features)
    assert np.array_equal(before([images]).features, features)  # which was read before the change
    assert len(loads) == 2
    with pytest.raises(RunError, match="4 classes, but the data have 3"):  # though it is there for four
        ResNetFeatures(path, 3, "fp32", CPU)
    assert ResNetFeatures(path, None, "fp32", CPU).network is not after.network
    elsewhere = ResNetFeatures(path, 4, "fp32", torch.device("meta")).network
    assert next(elsewhere.parameters()).device.type == "meta"


def test_a_file_replaced_since_the_start_is_noticed_though_a_network_is_shared(shipped, network):
    """The one that was loaded under the same name is of the old content."""
    early, late = (ResNetFeatures("sharp", 4, "fp32", CPU) for _ in range(2))
    _ = early.network
    save_classifier(shipped, network, {"another": "card"})
    with pytest.raises(RunError, match="replaced since the start"):
        _ = late.network


def test_a_file_that_changes_while_it_is_loaded_is_noticed(shipped, network, monkeypatch):
    def replaced(*given: Any) -> Any:
        save_classifier(shipped, network, {"another": "card"})
        return load_classifier(*given)

    late = ResNetFeatures("sharp", 4, "fp32", CPU)
    module._network.cache_clear()
    monkeypatch.setattr(module, "load_classifier", replaced)
    for _ in range(2):  # and is not kept
        with pytest.raises(RunError, match="replaced since the start"):
            _ = late.network


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo], ids=["nothing", "folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(make, tmp_path):
    make(tmp_path / "w.safetensors")
    with pytest.raises(RunError, match=r"cannot be read|not a weights file"):
        ResNetFeatures(tmp_path / "w.safetensors", 4, "fp32", CPU)
