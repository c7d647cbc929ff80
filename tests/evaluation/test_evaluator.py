"""All measures of a model, each against the images it is named by."""

import dataclasses
import json
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import CLASS_NAMES, FashionMNISTManager, Split
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator, calculate_fid, importance_weighted_bound, measure_elbo
from fmvae.evaluation import measure as given
from fmvae.evaluation.features import Features
from fmvae.evaluation.latent import latent_measures
from fmvae.evaluation.measure import Context, Measure
from fmvae.evaluation.measures import accuracy, decomposition, elbo, iwae, latent
from fmvae.evaluation.measures import fid as distances
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, encode_split
from fmvae.objectives import ELBO, Bernoulli, Constant, LearnedGaussian
from fmvae.weights import SHIPPED

SIDE = 12  # the images' middle, so that a covariance takes few images and little time
NUM = 300
OBJECTIVE = ELBO(Bernoulli(), Constant(2.0))


@pytest.fixture
def data(small_data, monkeypatch) -> FashionMNISTManager:
    actual = given.ResNetFeatures  # the shipped weights are not read: FakeResNet stands for them
    monkeypatch.setattr(
        given,
        "ResNetFeatures",
        lambda path, *others: FakeResNet(path) if path in SHIPPED else actual(path, *others),
    )
    few_are(monkeypatch, 400)  # so that this is enough to be measured unless told otherwise
    manager = small_data(num_train=700, val_size=100, num_test=400, class_names=CLASS_NAMES)
    vars(manager)["content"] = "fashion-mnist"  # which the shipped weights fit

    def middle(split: Split) -> Split:
        images = split.images[..., 8 : 8 + SIDE, 8 : 8 + SIDE].contiguous()
        return dataclasses.replace(split, images=images)

    manager.train, manager.val, manager.test = map(middle, manager.splits)
    return manager


def few_are(monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    """Fewer test images than these are too few to be measured unless that is asked for."""
    for file in (distances, accuracy):
        monkeypatch.setattr(file, "MIN_RELIABLE", num)


def made(kind: Any = BaseVAE, **arguments: Any) -> VAE:
    with rng.seeded_init(0):
        return kind(2, image_shape=(1, SIDE, SIDE), **arguments)


def settings(num_images: int | None = NUM, features=("pixels",), **others: Any) -> dict[str, Any]:
    """The config group ``evaluation`` with everything on, at small sizes."""
    return {
        "fid": {"num_images": num_images, "features": list(features), "num_neighbours": 5},
        "extractor": {"weights": "sharp", "precision": "fp32"},
        "iwae": {"num_samples": 4, "num_images": 50},
        "latent": True,
        "decomposition": {"num_samples": 30},
        "accuracy": judged(None),
        "cache": None,
    } | others


def judged(num_per_class: int | None) -> dict[str, Any]:
    return {"weights": "blurred", "num_per_class": num_per_class}


def nothing_but_fid(**others: Any) -> dict[str, Any]:
    off = {
        "iwae": {"num_samples": 0, "num_images": 1},
        "latent": False,
        "decomposition": {"num_samples": 0},
        "accuracy": {"weights": "blurred", "num_per_class": 0},
    }
    return settings(**(off | others))


class FakeResNet:
    """Stands for the network: 20 random projections of each weights, of which the first ten are the logits."""

    name = "resnet18"
    seeds: ClassVar[dict[str, int]] = {"sharp": 9, "blurred": 10}

    def __init__(self, weights: str = "sharp"):
        self.seed = self.seeds[weights]
        self.identity = {"features": "fake", "extractor_sha256": weights}
        self.asked: list[tuple[str, int]] = []

    def __call__(self, batches, what="", num=0) -> Features:
        self.asked.append((what, num))
        x = torch.cat(list(batches)).flatten(1)
        assert len(x) == num
        weights = torch.randn(x.shape[1], 20, generator=rng.stream(self.seed, "init"))
        projected = (x @ weights).numpy()
        return Features(projected, projected[:, :10])


def evaluator(model: VAE, data: FashionMNISTManager, *, seed: int = 0, **given: Any) -> Evaluator:
    return Evaluator(model, OBJECTIVE, data, seed=seed, settings=given or settings())


def fid(model: VAE, data: FashionMNISTManager, *, seed: int = 0, num_images: int = NUM) -> dict[str, Any]:
    made = Evaluator(model, OBJECTIVE, data, seed=seed, settings=nothing_but_fid(num_images=num_images))
    return dict(made.measure())["fid/pixels"]


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

BOTH = pytest.mark.parametrize(
    "model", [made(hidden_dim=16), made(ConditionalVAE, hidden_dim=16)], ids=["unconditional", "conditional"]
)


@BOTH
def test_every_measure_is_yielded_with_what_it_was_measured_on(model, data):
    measures = dict(evaluator(model, data).measure())
    assert list(measures) == [
        "test",
        "iwae",
        "latent",
        "decomposition",
        "fid/pixels",
        *(["accuracy"] if model.conditional else []),
    ]
    noise = rng.stream(0, "evaluation")
    elbo = measure_elbo(model, OBJECTIVE, data.test, noise, at_mean=True)
    assert measures["test"] == {"num_images": 400, **elbo, "settings": {}}
    bound = importance_weighted_bound(
        model, OBJECTIVE, data.test, rng.stream(0, "evaluation"), num_samples=4, num_images=50
    )
    assert measures["iwae"] == {
        "iwae_4": bound,
        "num_images": 50,
        "settings": {"num_samples": 4, "num_images": 50},
    }
    assert measures["fid/pixels"]["num_images"] == NUM
    assert sum(measures["latent"]["kl_per_dimension"]) == pytest.approx(elbo["kl"], rel=1e-5)
    json.dumps(measures, allow_nan=False)


def test_the_linear_probe_is_fit_on_training_images_drawn_at_random(data, monkeypatch):
    monkeypatch.setattr(latent, "PROBE_IMAGES", 100)
    model = made(hidden_dim=16)
    order = torch.randperm(len(data.train), generator=rng.stream(0, "evaluation"))[:100]
    train = Split("train", data.train.images[order], data.train.labels[order])
    expected = latent_measures(encode_split(model, train), encode_split(model, data.test), 10)
    assert dict(evaluator(model, data).measure())["latent"] == {**expected, "settings": {"num_train": 100}}


def test_what_is_not_asked_is_not_measured(data):
    fast = nothing_but_fid(num_images=0)
    for model in (made(), made(ConditionalVAE)):
        assert list(dict(evaluator(model, data, **fast).measure())) == ["test"]


def test_the_same_model_gives_the_same_bits_whenever_it_is_asked(data):
    model = made(BetaVAE).train()
    first = dict(evaluator(model, data).measure())
    torch.manual_seed(5)
    torch.rand(3)
    assert dict(evaluator(model.train(), data).measure()) == first
    other = Evaluator(model, OBJECTIVE, data, seed=1, settings=settings())
    assert dict(other.measure()) != first


def test_evaluating_changes_no_weight_and_draws_nothing_global(data):
    model = made(BetaVAE).train()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    dict(evaluator(model, data).measure())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# --- what is there already -----------------------------------------------------------------------------------


class Likelihood(Measure):
    name = "own"

    def compute(self, context: Context) -> dict[str, Any]:
        x = to_float(context.data.test.images[:50])
        output = context.model(x, noise=torch.zeros(50, context.model.latent_dim))
        return {"nll": context.objective.likelihood.nll(output.logits, x).mean().item()}


def test_a_measure_changes_no_running_number_of_a_likelihood_and_takes_none_of_its_batch(data):
    """As the sigma of LearnedGaussian, which in training mode is that of the batch and counts it."""
    objective = ELBO(LearnedGaussian())
    measured = Evaluator(made(), objective, data, seed=0, settings=settings())
    measured.measures["own"] = Likelihood()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    block = measured.compute("own")
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    assert all(module.training for module in objective.modules())  # training may go on
    objective.eval()
    assert measured.compute("own") == block


def test_what_is_stored_with_the_same_settings_is_not_measured_again(data, monkeypatch):
    model = made(hidden_dim=16)
    first = dict(evaluator(model, data).measure())
    for file, name in (
        (elbo, "measure_elbo"),
        (iwae, "importance_weighted_bound"),
        (latent, "latent_measures"),
        (decomposition, "decompose_kl"),
        (distances, "RealImages"),
        (accuracy, "accuracy_block"),
    ):
        monkeypatch.setattr(file, name, None)  # calling one would raise
    assert dict(evaluator(model, data).measure(first)) == first
    with pytest.raises(TypeError):
        dict(evaluator(model, data).measure())


@pytest.mark.parametrize(
    ("changed", "measured"),
    [
        ({"iwae": {"num_samples": 5, "num_images": 50}}, ["iwae"]),
        ({"iwae": {"num_samples": 4, "num_images": 51}}, ["iwae"]),
        ({"fid": {"num_images": NUM, "features": ["pixels"], "num_neighbours": 6}}, ["fid/pixels"]),
        ({"fid": {"num_images": NUM + 1, "features": ["pixels"], "num_neighbours": 5}}, ["fid/pixels"]),
        ({"accuracy": judged(3)}, ["accuracy"]),
        ({"accuracy": {"weights": "sharp", "num_per_class": None}}, ["accuracy"]),
        ({"cache": "elsewhere"}, []),
    ],
    ids=str,
)
def test_only_what_other_settings_touch_is_measured_again(changed, measured, data):
    model = made(ConditionalVAE, hidden_dim=16)
    before = dict(evaluator(model, data).measure())
    marked = {name: {**block, "kept": True} for name, block in before.items()}
    after = dict(evaluator(model, data, **(settings() | changed)).measure(marked))
    assert [name for name, block in after.items() if "kept" not in block] == measured


def test_another_extractor_measures_features_again_and_nothing_else(data):
    data = grown(data)
    both = settings(num_images=None, features=("resnet18", "pixels"))
    model = made(ConditionalVAE, hidden_dim=16)
    before = dict(evaluator(model, data, **both).measure())
    marked = {name: {**block, "kept": True} for name, block in before.items()}
    other = evaluator(model, data, **both)
    vars(vars(other.measures["fid/resnet18"])["features"])["identity"] = {
        "features": "fake",
        "extractor_sha256": "another",
    }
    after = dict(other.measure(marked))
    assert [name for name, block in after.items() if "kept" not in block] == ["fid/resnet18"]


# --- features and classes of a classifier ----------------------------------------------------------------------


def grown(data: FashionMNISTManager) -> FashionMNISTManager:
    """With more test images than ResNet features have dimensions."""
    images = torch.cat([data.test.images, data.val.images, data.train.images[:100]])
    labels = torch.cat([data.test.labels, data.val.labels, data.train.labels[:100]])
    data.test = Split("test", images, labels)
    return data


def test_resnet_distances_are_those_of_its_features(data):
    data = grown(data)
    asking = evaluator(made(), data, **nothing_but_fid(num_images=None, features=("resnet18", "pixels")))
    measures = dict(asking.measure())
    assert list(measures) == ["test", "fid/resnet18", "fid/pixels"]
    sets = {"test images", "train images", "generated images", "reconstructions"}
    network: Any = vars(asking.measures["fid/resnet18"])["features"]
    assert network.asked == [*((what, 600) for what in ("test images", "train images")), *network.asked[2:]]
    assert {what for what, num in network.asked if num == 600} == sets
    fake = FakeResNet()
    order = torch.randperm(len(data.train), generator=rng.stream(0, "evaluation"))[:600]
    real, train = (fake([x.float() / 255], "", 600).features for x in (data.test.images, data.train.images[order]))
    assert measures["fid/resnet18"]["floor"] == pytest.approx(calculate_fid(real, train), rel=1e-4)
    assert measures["fid/resnet18"]["settings"]["extractor_sha256"] == "sharp"


def test_accuracy_asks_for_every_class_as_often_and_compares_with_the_real_test_images(data):
    model = made(ConditionalVAE, hidden_dim=16)
    block = dict(evaluator(model, data, **settings(accuracy=judged(7))).measure())["accuracy"]
    assert np.sum(block["generated"]["confusion"], axis=1).tolist() == [7] * 10
    assert block["real"]["num_images"] == 400
    labels = torch.arange(10).repeat_interleave(7)
    z = torch.randn(70, 2, generator=rng.stream(0, "sampling", 1))
    with torch.no_grad():
        images = model.eval().decode(z, labels).sigmoid()
    logits = FakeResNet("blurred")([images], "", 70).logits
    assert logits is not None
    predicted = logits.argmax(1)
    assert block["generated"]["overall"] == pytest.approx((predicted == labels.numpy()).mean())
    assert block["settings"]["extractor_sha256"] == "blurred"


def test_the_judge_of_classes_is_another_than_the_features_of_distances_are_of(data):
    """What looks past blur would forgive it in a distance too."""
    model = made(ConditionalVAE, hidden_dim=16)
    both = settings(num_images=None, features=("resnet18",), accuracy=judged(3))
    measures = dict(evaluator(model, grown(data), **both).measure())
    images = torch.cat(list(evaluator(model, data).context.generated(data.test.labels)))
    logits = FakeResNet("sharp")([images], "", len(images)).logits
    assert logits is not None
    share = (logits.argmax(1) == data.test.labels.numpy()).mean()
    assert 0 < share < 1
    assert measures["fid/resnet18"]["as_asked"] == share
    weights = {name: measures[name]["settings"]["extractor_sha256"] for name in ("fid/resnet18", "accuracy")}
    assert weights == {"fid/resnet18": "sharp", "accuracy": "blurred"}


def test_a_conditional_model_has_distances_by_class(data, monkeypatch):
    data = grown(data)
    given = nothing_but_fid(num_images=None, features=("resnet18",))
    model = made(ConditionalVAE, hidden_dim=16)
    per_class = dict(evaluator(model, data, **given).measure())["fid/resnet18"]["per_class"]
    assert list(per_class) == list(CLASS_NAMES)  # about 60 images of each, and 20 features
    c = CLASS_NAMES.index("Bag")
    order = torch.randperm(len(data.train), generator=rng.stream(0, "evaluation"))[:600]
    num = min(int((data.test.labels == c).sum()), int((data.train.labels[order] == c).sum()))
    assert per_class["Bag"]["num_images"] == num
    of_bag = (data.test.labels == c).nonzero().flatten()[:num]
    draws = rng.stream(0, "sampling")
    z = torch.cat([torch.randn(num, 2, generator=draws) for num in (500, 100)])  # in batches, from one stream
    with torch.no_grad():
        images = model.eval().decode(z, data.test.labels).sigmoid()[of_bag]
    fake = FakeResNet()
    real, generated = (fake([x], "", num).features for x in (data.test.images[of_bag].float() / 255, images))
    assert per_class["Bag"]["generation"] == pytest.approx(calculate_fid(real, generated), rel=1e-3)
    unconditional = dict(evaluator(made(), data, **given).measure())["fid/resnet18"]
    assert "per_class" not in unconditional


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


# --- requests that cannot be ---------------------------------------------------------------------------------


def refused(model: VAE, data: FashionMNISTManager, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Evaluator(model, OBJECTIVE, data, seed=0, settings=given)  # before anything is measured


def test_more_images_than_the_test_split_has_is_an_error_that_says_so(data):
    message = r"evaluation\.fid\.num_images: 401 images asked, but the test split holds 400"
    refused(made(), data, settings(num_images=401), message)
    assert fid(made(), data, num_images=400)["num_images"] == 400


def test_more_images_than_the_training_split_has_is_an_error_too(data):
    """The floor would silently be that of fewer images than the rest."""
    data.train = Split("train", data.train.images[:NUM], data.train.labels[:NUM])
    message = f"{NUM + 1} images asked, but the train split holds {NUM}"
    refused(made(), data, settings(num_images=NUM + 1), message)


def test_no_more_images_than_features_is_an_error(data):
    refused(
        made(), data, settings(num_images=SIDE * SIDE), "144 images cannot give a covariance of 144-dimensional"
    )
    refused(made(), data, settings(features=["resnet18"]), f"{NUM} images cannot give a covariance of 512-dim")


@pytest.mark.parametrize("few", [False, True])
def test_small_data_are_measured_by_distances_only_if_asked(few, data, monkeypatch, caplog):
    """The estimate's bias would be larger than differences between models."""
    few_are(monkeypatch, len(data.test) + few)
    model = made(ConditionalVAE)
    plan = evaluator(model, data, **settings(None)).plan()
    assert ("fid/pixels" in plan, "accuracy" in plan) == (not few, not few)
    asked = settings(NUM, accuracy=judged(3))
    assert {"fid/pixels", "accuracy"} <= set(evaluator(model, data, **asked).plan())
    with caplog.at_level("INFO", "fmvae"):
        next(evaluator(model, data, **settings(None)).measure())
        way_in = f"evaluation.fid.num_images={len(data.test)} turns it on"
        assert (way_in in caplog.text) == few
        assert ("evaluation.accuracy.num_per_class=500 turns it on" in caplog.text) == few
        caplog.clear()
        next(evaluator(model, data, **asked).measure())
        next(evaluator(model, data, **settings(0, accuracy=judged(0))).measure())
    assert "left out" not in caplog.text


def test_unknown_features_are_an_error_that_lists_what_there_is(data):
    refused(
        made(), data, settings(features=["inception"]), "no features 'inception'; choose from resnet18, pixels"
    )


def test_the_classes_of_an_unconditional_model_cannot_be_asked_for(data):
    refused(
        made(),
        data,
        settings(accuracy=judged(5)),
        r"5 images of each class asked of BaseVAE",
    )
    Evaluator(made(), OBJECTIVE, data, seed=0, settings=settings(accuracy=judged(0)))


def test_weights_of_ones_own_are_looked_at_before_anything_is_measured(data, tmp_path):
    damaged = tmp_path / "mine.safetensors"
    damaged.write_bytes(b"12345678")
    with pytest.raises(ConfigError, match=r"evaluation\.extractor\.weights: .*mine\.safetensors: "):
        Evaluator(
            made(),
            OBJECTIVE,
            data,
            seed=0,
            settings=settings(extractor={"weights": str(damaged), "precision": "fp32"}),
        )
