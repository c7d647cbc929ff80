"""A classifier of other data than Fashion-MNIST: trained, named by its run's directory, and used or refused."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmvae.assembly import assemble
from fmvae.config import compose
from fmvae.config.commands import classifier_command
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation import Evaluator
from fmvae.evaluation.cache import cache_key
from fmvae.evaluation.features import ResNetFeatures
from fmvae.experiments import train
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.verification import verify
from fmvae.models import FashionResNet18
from fmvae.models.resnet import load_classifier, save_classifier
from fmvae.runs.directory import RunDirectory, find_runs
from fmvae.runs.files import read_record
from fmvae.verify import main as verify_command
from fmvae.weights import CARD, EARLIER, SHIPPED, WEIGHTS, weights_file
from tests.data.own_images import drawn, folder, npz
from tests.data.test_named import KMNIST, MNIST, put
from tests.idx import write_idx_dataset

CPU = torch.device("cpu")
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]])
CLASSIFIER = [
    "trainer.epochs=1",
    "data.batch_size=30",
    "optimizer.lr=0.02",
    "device=cpu",
    "trainer.progress=false",
]
MODEL = ["trainer.epochs=1", "model.hidden_dim=8", "latent_dim=2", "data.batch_size=100", "device=cpu"]
MODEL += ["trainer.progress=false", "evaluation=fast", "evaluation.latent=false", "figures=none"]
NUM = 520  # more than the features' 512 dimensions, or there is no covariance


def coloured(path: Path, num: int = 100, side: int = 10, seed: int = 0, num_test: int = 20) -> Path:
    """Noise of five colours, which are the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num + num_test) % 5
    images = (COLOURS[labels][:, None, None] * rng.uniform(0.3, 1, (len(labels), side, side, 1))).astype(np.uint8)
    parts = {"x_train": images[:num], "y_train": labels[:num], "x_test": images[num:], "y_test": labels[num:]}
    return npz(path, **parts)


def classifier_of(outputs: Path, *data: str, side: int) -> Path:
    """Train a classifier for one epoch; return its run's directory."""
    settings = [*CLASSIFIER, f"trainer.sides=[{side}]", *data, f"output_root={outputs}"]
    return outputs / train(compose(settings, "classifier"))["run"]


@pytest.fixture(scope="module")
def coloured_data(tmp_path_factory) -> list[str]:
    path = coloured(tmp_path_factory.mktemp("coloured") / "mine.npz", NUM + 40, num_test=NUM)
    return ["data=arrays", f"data.root={path}", "data.val_size=40"]


@pytest.fixture(scope="module")
def run(coloured_data, tmp_path_factory) -> Path:
    return classifier_of(tmp_path_factory.mktemp("outputs"), *coloured_data, "data.num_train=120", side=10)


def asked(run: Path, part: str = "extractor") -> str:
    return f"evaluation.{part}.weights={run}"


def model_of(outputs: Path, *overrides: str) -> dict[str, Any]:
    return train(compose([*MODEL, f"output_root={outputs}", *overrides]))


# --- the run --------------------------------------------------------------------------------------------------


def test_a_classifier_of_rgb_arrays_has_weights_and_a_card_that_says_what_they_know(run):
    card = read_record(run / CARD)
    loaded = load_classifier(run)
    assert loaded.sha256 == card["sha256"] == load_classifier(run / WEIGHTS, 5, 3).sha256
    assert loaded.model.backbone.conv1.weight.shape == (64, 3, 3, 3)
    assert (loaded.model.mean.shape, loaded.model.std.shape) == ((), ())
    data = card["config"]["data"]
    assert (data["_target_"], data["image_shape"]) == ("fmvae.data.Arrays", [3, 10, 10])
    assert card["provenance"]["data_sha256"] == {"file": data["sha256"]}
    assert list(card["test"]["per_class"]) == list("01234")
    assert card["test"]["num_images"] == NUM
    assert not list(run.glob("fashion*"))


def test_verify_leaves_it_out_with_a_line(run, capsys):
    assert verify_command([str(run)]) == 0
    assert capsys.readouterr().out.strip().endswith("a classifier, left out")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.slow
def test_images_of_all_sizes_and_channels_are_learnt(side, channels, tmp_path):
    """With the default of ``trainer.sides``, which follows the images."""
    images, labels = drawn(40, side, side, *([3] if channels == 3 else []))
    data = ["data=arrays", f"data.root={npz(tmp_path / 'mine.npz', images=images, labels=labels)}"]
    settings = [*CLASSIFIER, *data, "data.num_train=12", "data.val_size=6", "trainer.epochs=3"]
    config = compose([*settings, f"output_root={tmp_path}"], "classifier")
    assert config["trainer"]["sides"] == {28: [16, 20, 28], 32: [18, 23, 32], 64: [37, 46, 64]}[side]
    results = train(config)
    assert [row["side"] for row in RunDirectory(tmp_path / results["run"]).read_history()] == config["trainer"][
        "sides"
    ]
    model = load_classifier(tmp_path / results["run"], 3, channels).model
    assert model(torch.rand(2, channels, side, side)).features.shape == (2, 512)


@pytest.mark.parametrize(
    ("side", "sides"),
    [(28, [16, 20, 28]), (32, [18, 23, 32]), (64, [37, 46, 64]), (12, [9, 12]), (9, [9]), (5, [5])],
)
def test_sizes_of_training_images_follow_the_data_unless_given(side, sides):
    data = [f"data.image_shape=[1,{side},{2 * side}]"]
    assert compose(data, "classifier")["trainer"]["sides"] == sides
    assert compose([*data, f"trainer.sides=[{side}]"], "classifier")["trainer"]["sides"] == [side]


@pytest.mark.slow
def test_colours_are_learnt(coloured_data, tmp_path):
    """They differ in nothing else, so a network that lost the channels would be right for one in five."""
    more = ["trainer.epochs=4", "data.num_train=400", "trainer.shift=0"]
    run = classifier_of(tmp_path, *coloured_data, *more, side=10)
    assert read_record(run / CARD)["test"]["accuracy"] > 0.9


@pytest.mark.slow
def test_a_folder_of_rgb_images_gives_its_class_names_to_the_card(tmp_path):
    root = folder(tmp_path / "photos", 20, mode="RGB", side=12)
    data = ["data=image_folder", f"data.root={root}", f"data.cache={tmp_path / 'cache'}"]
    run = classifier_of(tmp_path / "out", *data, side=12)
    assert list(read_record(run / CARD)["test"]["per_class"]) == ["cat", "dog"]


def test_grey_networks_are_as_before_and_differ_from_rgb_ones_in_the_stem_alone():
    torch.manual_seed(0)
    grey = FashionResNet18(5).state_dict()
    torch.manual_seed(0)
    assert all(t.equal(grey[name]) for name, t in FashionResNet18(5, channels=1).state_dict().items())
    colour = FashionResNet18(5, channels=3).state_dict()
    assert list(colour) == list(grey)
    assert [name for name in grey if grey[name].shape != colour[name].shape] == ["backbone.conv1.weight"]


def test_no_key_of_the_config_says_how_many_channels(run, coloured_data, tmp_path):
    """They follow from the data, and a name is made of what does not."""
    settings = [*CLASSIFIER, *coloured_data, "trainer.sides=[10]", f"output_root={tmp_path}"]
    assert set(compose(settings, "classifier")["model"]) == {"_target_", "_name_", "num_classes"}
    with pytest.raises(ConfigError, match=r"^model.channels: 1, but the images have 3; leave it out"):
        train(compose([*settings, "+model.channels=1"], "classifier"))


@pytest.mark.parametrize(
    ("option", "flip"),
    [("fashion_mnist", True), ("fashion_factors", True), ("cifar10", True), ("mnist", False), ("emnist", False)],
)
def test_digits_and_letters_are_not_mirrored_unless_asked(option, flip):
    assert compose([f"data={option}"], "classifier")["trainer"]["flip"] is flip
    assert compose([f"data={option}", f"trainer.flip={not flip}"], "classifier")["trainer"]["flip"] is not flip


# --- its directory where weights are named --------------------------------------------------------------------


def test_a_run_and_a_copy_of_its_file_give_the_same_features_under_the_same_key(run, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(run / WEIGHTS, copy)
    by_run, by_file = (ResNetFeatures(path, 5, "fp32", CPU, 3) for path in (run, copy))
    assert by_run.identity == by_file.identity
    assert by_run.identity["extractor_sha256"] == read_record(run / CARD)["sha256"]
    images = torch.rand(4, 3, 10, 10)
    assert np.array_equal(by_run([images]).features, by_file([images]).features)
    assert by_run.card == load_classifier(copy).card


def test_another_classifier_has_another_key(run, tmp_path, small_data):
    """The negative control of the one above."""
    model = load_classifier(run).model
    with torch.no_grad():
        model.head.bias[0] += 1
    other = tmp_path / "other"
    other.mkdir()
    save_classifier(other / WEIGHTS, model, {})
    split = small_data().test
    keys = [cache_key(split, 4, ResNetFeatures(path, 5, "fp32", CPU, 3)) for path in (run, other)]
    assert keys[0] != keys[1]
    assert keys[0] | {"extractor_sha256": ""} == keys[1] | {"extractor_sha256": ""}


def test_runs_of_earlier_versions_are_found_by_the_name_of_their_file(run, tmp_path):
    shutil.copy(run / WEIGHTS, tmp_path / EARLIER)
    assert weights_file(tmp_path) == tmp_path / EARLIER
    assert load_classifier(tmp_path).sha256 == load_classifier(run).sha256
    shutil.copy(run / WEIGHTS, tmp_path / WEIGHTS)
    assert weights_file(tmp_path) == tmp_path / WEIGHTS


def test_a_start_may_be_a_run_and_names_the_next_by_its_content(run):
    named = [RunIdentity.of(compose([f"trainer.start={run / file}"], "classifier")).name for file in ("", WEIGHTS)]
    assert named[0] == named[1] != RunIdentity.of(compose([], "classifier")).name


def test_directories_without_weights_of_a_classifier_are_refused_in_one_line(run, coloured_data, tmp_path):
    model_of(tmp_path / "vae", *coloured_data)
    (vae,) = find_runs(tmp_path / "vae")
    begun = tmp_path / "resnet18-s0-00000000"
    begun.mkdir()
    shutil.copy(run / "config.yaml", begun)
    (tmp_path / "empty").mkdir()
    refused = {
        vae.path: "the run of a VAE, not of a classifier; give sharp or blurred",
        begun: "the run of a classifier that has not written its weights yet; repeat the command that began it",
        tmp_path / "empty": "not a weights file, nor the directory of a classifier's run; give sharp or blurred",
        tmp_path / "none": "cannot be read (No such file or directory); give sharp or blurred",
    }
    for path, told in refused.items():
        line = re.escape(f"evaluation.extractor.weights: {path}: {told}")
        with pytest.raises(ConfigError, match=f"^{line}"):
            model_of(tmp_path / "refused", *coloured_data, asked(path))
        settings = [*CLASSIFIER, *coloured_data, "trainer.sides=[10]", f"output_root={tmp_path / 'refused'}"]
        with pytest.raises(ConfigError, match=f"^{re.escape(f'trainer.start: {path}: {told}')}"):
            train(compose([*settings, f"trainer.start={path}"], "classifier"))
    assert not [*(tmp_path / "refused").glob("*/config.yaml")]


def test_a_classifier_of_grey_images_is_refused_for_rgb_ones_and_the_other_way_round(run, coloured_data, tmp_path):
    images, labels = drawn(60, classes=5)
    grey = ["data=arrays", f"data.root={npz(tmp_path / 'grey.npz', images=images, labels=labels)}"]
    told = r"a classifier of images with 3 channels, but the data have 1 channel; give sharp"
    with pytest.raises(ConfigError, match=told):
        model_of(tmp_path, *grey, asked(run))
    told = r"a classifier of images with 1 channel, but the data have 3 channels; give sharp"
    with pytest.raises(ConfigError, match=told):
        model_of(tmp_path, *coloured_data, asked(SHIPPED["sharp"]))
    with pytest.raises(RunError, match=r"a classifier of 5 classes, but the data have 4"):
        load_classifier(run, 4)


# --- a VAE that is measured by it -------------------------------------------------------------------------------


def test_the_settings_of_measures_name_the_weights_and_other_data_are_told_or_refused(
    run, coloured_data, tmp_path
):
    def planned(*overrides: str) -> Evaluator:
        measured = [f"evaluation.fid.num_images={NUM}", "model=conditional", asked(run), *overrides]
        return assemble(compose([*MODEL, f"output_root={tmp_path}", *measured]), CPU).evaluator

    def judging(evaluator: Evaluator) -> bool:
        return "fid/resnet18/as_asked" in [column.tag for column in evaluator.columns()]

    judged = [asked(run, "accuracy"), "evaluation.accuracy.num_per_class=3"]
    same = planned(*coloured_data, *judged)
    digest = read_record(run / CARD)["sha256"]
    plan = same.plan()
    assert plan["fid/resnet18"][0]["extractor_sha256"] == plan["accuracy"][0]["extractor_sha256"] == digest
    assert judging(same)
    assert not [note for note in same.context.notes if "classifier" in str(note)]

    file = coloured(tmp_path / "other.npz", NUM + 40, seed=1, num_test=NUM)
    data = ["data=arrays", f"data.root={file}", "data.val_size=40"]
    with pytest.raises(
        ConfigError, match=r"^evaluation.accuracy.weights: .* and these data are other files of Arr"
    ):
        planned(*data, *judged)
    other = planned(*data)
    assert other.plan()["fid/resnet18"][0] == plan["fid/resnet18"][0]
    assert not judging(other)
    command = f"`python train.py --config-name classifier data=arrays data.root={file}`"
    (note,) = [note for note in map(str, other.context.notes) if note.startswith("FID (resnet18): ")]
    assert (
        f"{str(run)!r} is a classifier of Arrays (0, 1, ..., 4, 3x10x10), and these data are other files" in note
    )
    assert note.endswith(
        f"; {command} trains a classifier of these data, and evaluation.extractor.weights=<its run> uses it"
    )


@pytest.mark.slow
def test_from_the_classifier_to_fid_and_accuracy_of_a_vae(run, coloured_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    by_run = [asked(run), asked(run, "accuracy"), "evaluation.accuracy.num_per_class=3"]
    by_run += [f"evaluation.fid.num_images={NUM}", f"evaluation.cache={tmp_path / 'cache'}"]
    results = model_of(tmp_path / "out", *coloured_data, "model=conditional", *by_run)
    digest = read_record(run / CARD)["sha256"]
    for block in (results["fid"]["resnet18"], results["accuracy"]):
        assert block["settings"]["extractor_sha256"] == digest
    assert np.isfinite(results["fid"]["resnet18"]["generation"])
    assert "as_asked" in results["fid"]["resnet18"]
    assert list(results["accuracy"]["generated"]["per_class"]) == list("01234")
    assert "a classifier of" not in caplog.text

    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert kept
    (vae,) = find_runs(tmp_path / "out")
    copy = tmp_path / "copy.safetensors"
    shutil.copy(run / WEIGHTS, copy)
    before = vae.results.read_bytes()
    by_file = [text.replace(str(run), str(copy)) for text in by_run]
    evaluate_runs(
        compose([f"run={vae.path}", "device=cpu", "evaluation=fast", "figures=none", *by_file], "evaluate")
    )
    assert vae.results.read_bytes() == before
    found = verify(vae, device="cpu")
    assert not found.problems
    assert {"fid/resnet18", "accuracy"} <= set(found.measures)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == kept

    # as if evaluate.py had been given the classifier, which the run's config then does not name
    vae.config.write_text(vae.config.read_text().replace(str(run), "sharp"))
    assert [line.partition(":")[0] for line in verify(vae, device="cpu").problems] == ["fid/resnet18", "accuracy"]
    shutil.copytree(run, vae.path.parent / run.name)
    assert not verify(vae, device="cpu").problems


# --- ten classes under another name ---------------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path, monkeypatch) -> list[str]:
    return ["data=mnist", f"data.root={put(MNIST, tmp_path / 'digits', monkeypatch)}", "data.val_size=20"]


def judged(*overrides: str) -> list[str]:
    return ["model=conditional", "evaluation.accuracy.num_per_class=2", *overrides]


@pytest.mark.parametrize("form", ["mnist", "fashion_mnist", "arrays"])
def test_ten_classes_under_another_name_get_nothing_of_fashion_mnist(form, digits, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(FashionResNet18, "num_features", 8)  # else so few images are the reason that is told
    data = digits
    if form == "fashion_mnist":
        sha256 = write_idx_dataset(tmp_path / "files", 80, 40)
        digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
        data = [f"data.root={tmp_path / 'files'}", f"data.sha256={{{digests}}}", "data.val_size=20"]
    elif form == "arrays":
        images, labels = drawn(100, 28, 28, classes=10)
        data = ["data=arrays", f"data.root={npz(tmp_path / 'ten.npz', images=images, labels=labels)}"]
    results = model_of(
        tmp_path / "out", *data, "model=conditional", "evaluation=full", "evaluation.iwae.num_samples=0"
    )
    text = (find_runs(tmp_path / "out")[0].results).read_text()
    assert not set(results) & {"accuracy"}
    assert "resnet18" not in results.get("fid", {})
    assert "T-shirt" not in text
    assert "extractor_sha256" not in text
    lines = [line for line in caplog.messages if "a classifier of Fashion-MNIST, and these data are other" in line]
    assert [line.partition(" is left out")[0] for line in lines] == [
        "FID (resnet18)",
        "the accuracy of generated images",
    ]
    for line, part in zip(lines, ("extractor", "accuracy"), strict=True):
        command = re.findall("`(.*?)`", line)[0]
        assert f"evaluation.{part}.weights=<its run> uses it" in line
        assert command == classifier_command(compose(data)["data"])
        words = command.removeprefix("python train.py --config-name classifier ")
        assert words.startswith(f"data={form} " if form != "fashion_mnist" else "data=fashion_mnist ")


@pytest.mark.slow
def test_a_classifier_of_digits_judges_digits_and_no_others(digits, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    run = classifier_of(tmp_path / "classifiers", *digits, side=28)
    block = model_of(tmp_path / "a", *digits, *judged(asked(run, "accuracy")))["accuracy"]
    assert list(block["generated"]["per_class"]) == list("0123456789")
    assert "a classifier of MNIST" not in caplog.text

    others = ["data=kmnist", f"data.root={put(KMNIST, tmp_path / 'kana', monkeypatch)}", "data.val_size=20"]
    told = r"is a classifier of MNIST \(0, 1, ..., 9, 1x28x28\), and these data are KMNIST \(o, ki, ..., wo, 1x28x"
    with pytest.raises(
        ConfigError, match=rf"^evaluation.accuracy.weights: .* {told}28\); name one that was trained on"
    ):
        model_of(tmp_path / "b", *others, *judged(asked(run, "accuracy")))
    # features of it are no mistake, but are told
    model_of(tmp_path / "b", *others, asked(run))
    assert "KMNIST" not in caplog.text, "nothing is measured in them"
    images, labels = drawn(2 * NUM + 80, 13, 13, classes=10)
    data = ["data=arrays", f"data.root={npz(tmp_path / 'ten.npz', images=images, labels=labels)}"]
    data += [f"data.num_test={NUM}", "data.val_size=20"]
    wanted = ["model=conditional", f"evaluation.fid.num_images={NUM}", f"evaluation.cache={tmp_path / 'cache'}"]
    found = model_of(tmp_path / "c", *data, *wanted, asked(run))["fid"]["resnet18"]
    assert "as_asked" not in found, "it knows other classes"
    told = f"FID (resnet18): {str(run)!r} is a classifier of MNIST (0, 1, ..., 9, 1x28x28), and these data are Arr"
    assert told in caplog.text
    (vae,) = find_runs(tmp_path / "c")
    assert not verify(vae, device="cpu").problems
    assert (
        json.loads(vae.results.read_text())["fid"]["resnet18"]["settings"]["extractor_sha256"]
        == (read_record(run / CARD)["sha256"])
    )
