"""Data that are not Fashion-MNIST, or have no labels: what does not fit is left out, or refused if asked for."""

from pathlib import Path
from typing import Any

import pytest

from fmvae.config import compose
from fmvae.data import FashionMNISTManager, fashion_mnist
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.evaluation import measure as given
from fmvae.evaluation.measures import accuracy, fid
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.objectives import ELBO, Bernoulli, Constant
from fmvae.weights import SHIPPED

FILE = {word: str(path) for word, path in SHIPPED.items()}
GARMENTS = "a classifier of Fashion-MNIST, and these data"

SAMPLED = ["samplers/prior/pixels", "samplers/gmm/pixels"]


class Named:
    """Stands for a network of the weights that it is given."""

    name = "resnet18"

    def __init__(self, weights: str, *_: Any):
        self.identity = {"extractor_sha256": Path(weights).stem}


@pytest.fixture
def data(small_data, monkeypatch) -> FashionMNISTManager:
    """Enough images to be measured unless told otherwise."""
    monkeypatch.setattr(given, "ResNetFeatures", Named)
    for file in (fid, accuracy):
        monkeypatch.setattr(file, "MIN_RELIABLE", 800)
    manager = small_data()
    vars(manager)["content"] = ""
    return manager


def evaluator(data: FashionMNISTManager, *overrides: str, conditional: bool = True) -> Evaluator:
    settings = compose([*overrides, "evaluation.iwae.num_samples=0", "evaluation.cache=null"])["evaluation"]
    model = ConditionalVAE(2, hidden_dim=8) if conditional else BaseVAE(2, hidden_dim=8)
    return Evaluator(model, ELBO(Bernoulli(), Constant(1.0)), data, seed=0, settings=settings)


def noted(made: Evaluator, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO", "fmvae"):
        next(made.measure())
    return [line for line in caplog.messages if "is left out" in line]


def test_shipped_classifiers_are_left_out_of_other_data_with_a_line_each(data, caplog):
    made = evaluator(data)
    assert list(made.plan()) == ["test", "latent", "decomposition", "fid/pixels", *SAMPLED]
    first, second = noted(made, caplog)
    assert first.startswith(f"FID (resnet18) is left out: 'sharp' is {GARMENTS} ")
    assert second.startswith(f"the accuracy of generated images is left out: 'blurred' is {GARMENTS} ")
    (only,) = noted(evaluator(data, conditional=False), caplog)  # which has no accuracy anyway
    assert only == first
    vars(data)["content"] = "fashion-mnist"  # negative control
    assert list(evaluator(data).plan()) == [
        "test",
        "latent",
        "decomposition",
        "fid/resnet18",
        "fid/pixels",
        "accuracy",
        *(f"samplers/{name}/{what}" for name in ("prior", "gmm") for what in ("resnet18", "pixels", "accuracy")),
    ]
    assert noted(evaluator(data), caplog) == []


def test_they_are_left_out_of_binarised_garments_with_a_line_that_says_so(small_data, data, caplog, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SHA256", data.sha256)  # as if the files were the published ones
    assert small_data().content == "fashion-mnist"  # negative control
    made = evaluator(small_data(binarize="static"))
    assert list(made.plan()) == ["test", "latent", "decomposition", "fid/pixels", *SAMPLED]
    first, second = noted(made, caplog)
    reason = f"{GARMENTS} are black and white (data.binarize=static); "
    trains = "`python train.py --config-name classifier data=<as here>` trains a classifier of these data"
    assert first == (
        f"FID (resnet18) is left out: 'sharp' is {reason}distances are in pixels; for better ones, "
        f"{trains}, and evaluation.extractor.weights=<its run> uses it"
    )
    assert second == (
        f"the accuracy of generated images is left out: 'blurred' is {reason}"
        f"{trains}, and evaluation.accuracy.weights=<its run> uses it"
    )
    with pytest.raises(ConfigError, match=r"^evaluation.accuracy.weights: .*data.binarize=dynamic\); name one of"):
        evaluator(small_data(binarize="dynamic"), "evaluation.accuracy.num_per_class=3")


@pytest.mark.parametrize(
    ("overrides", "key", "way_out"),
    [
        (["evaluation.fid.num_images=790"], "extractor", r"evaluation\.fid\.features=\[pixels\]"),
        (["evaluation.fid.num_images=790", "evaluation.extractor.weights=blurred"], "extractor", "classifier"),
        (["evaluation.accuracy.num_per_class=3"], "accuracy", "python train.py --config-name classifier"),
    ],
)
def test_a_shipped_classifier_that_is_asked_for_is_refused_with_other_data(overrides, key, way_out, data):
    with pytest.raises(ConfigError, match=rf"^evaluation\.{key}\.weights: '\w+' is {GARMENTS}.*{way_out}"):
        evaluator(data, *overrides)
    vars(data)["content"] = "fashion-mnist"
    evaluator(data, *overrides)


def test_what_needs_no_classifier_of_garments_is_measured_of_other_data(data):
    assert (
        "fid/pixels" in evaluator(data, "evaluation.fid.num_images=790", "evaluation.fid.features=[pixels]").plan()
    )
    off = ["evaluation.fid.num_images=0", "evaluation.accuracy.num_per_class=0"]
    assert list(evaluator(data, *off).plan()) == ["test", "latent", "decomposition"]


def test_weights_that_are_named_as_a_file_are_used(data):
    """Also the shipped ones: whoever names a file knows what is in it."""
    weights = [f"evaluation.{part}.weights={FILE['sharp']}" for part in ("extractor", "accuracy")]
    plan = evaluator(data, *weights).plan()
    assert {"fid/resnet18", "accuracy"} <= set(plan)
    assert plan["accuracy"][0]["extractor_sha256"] == SHIPPED["sharp"].stem


def test_data_without_labels_have_no_probe_and_all_else(data, caplog):
    made = evaluator(data, conditional=False)
    labelled = made.compute("latent")
    vars(data).update(class_names=None, num_classes=0)
    made = evaluator(data, conditional=False)
    notes = noted(made, caplog)
    assert sum("linear probe of the latents is left out: the data have no labels" in note for note in notes) == 1
    (told,) = [note for note in notes if note.startswith("FID (resnet18)")]
    assert told.endswith(
        "distances are in pixels; these data have no labels to train one with; evaluation.extractor.weights=<file>"
        " names another classifier"
    )
    block = made.compute("latent")
    assert block["settings"] == {}
    assert set(labelled) - set(block) == {"linear_probe_accuracy"}
    assert "latent/linear_probe_accuracy" not in [column.tag for column in made.columns()]
    assert list(made.plan()) == ["test", "latent", "decomposition", "fid/pixels", *SAMPLED]
    assert "per_class" not in made.compute("fid/pixels")
    assert made.context.offers == set()
