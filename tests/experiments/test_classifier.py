"""The classifier's run: its card tells the truth about the weights that it comes with."""

from pathlib import Path

import pytest
import torch

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.experiments import train
from fmvae.models.resnet import load_classifier
from fmvae.runs.files import read_record
from tests.cli.process import snapshot
from tests.idx import write_idx_dataset

OVERRIDES = ["trainer.epochs=2", "trainer.sides=[12,28]", "data.batch_size=32", "optimizer.lr=0.02", "device=cpu"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("classified")
    return root, write_idx_dataset(root, 120, 60)


def settings(dataset: tuple[Path, dict[str, str]], outputs: Path) -> list[str]:
    root, sha256 = dataset
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=24"]
    return [*data, *OVERRIDES, f"output_root={outputs}"]


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    train(compose(settings(dataset, outputs), "classifier"))
    (found,) = outputs.glob("resnet18-s0-*")
    return found


def test_the_card_is_of_the_rounded_weights_beside_it(run, dataset):
    card = read_record(run / "classifier.json")
    loaded = load_classifier(run / "classifier.safetensors", num_classes=10)
    assert loaded.sha256 == card["sha256"]
    assert loaded.card["test"] == card["test"]
    assert all(t.half().float().equal(t) for t in loaded.model.state_dict().values() if t.is_floating_point())
    root, sha256 = dataset
    data = FashionMNISTManager(root, sha256=sha256, download=False, val_size=24)
    assert card["provenance"]["data_sha256"] == sha256
    with torch.inference_mode():
        predicted = loaded.model(data.test.images.float() / 255).logits.argmax(1)
    right = predicted == data.test.labels
    assert card["test"]["accuracy"] == right.double().mean().item()
    confusion = torch.tensor(card["test"]["confusion"])
    assert confusion.sum(1).equal(data.test.labels.bincount(minlength=10))
    assert confusion.sum(0).equal(predicted.bincount(minlength=10))
    assert confusion.diagonal().sum() == right.sum()


def test_it_leaves_what_every_run_leaves_and_pictures_of_its_own(run):
    assert {"config.yaml", "status.json", "results.json", "metrics.jsonl", "train.log"} <= {
        path.name for path in run.iterdir()
    }
    assert {path.name for path in (run / "figures").iterdir()} == {"confusion.png", "training_curves.png"}
    assert read_record(run / "results.json")["test"] == read_record(run / "classifier.json")["test"]


def test_the_same_config_again_shows_the_result_and_changes_nothing(run, dataset):
    before = snapshot(run)
    results = train(compose(settings(dataset, run.parent), "classifier"))
    assert results == read_record(run / "results.json")
    assert snapshot(run) == before


@pytest.mark.slow
def test_training_goes_on_from_given_weights_and_says_so(run, dataset, tmp_path):
    """With a learning rate that moves nothing, they are what comes out; without them, it is something else."""
    weights = run / "classifier.safetensors"
    still = [*settings(dataset, tmp_path), "trainer.epochs=1", "trainer.sides=[28]", "optimizer.lr=1e-12"]
    begun = load_classifier(weights).model.backbone.conv1.weight
    for start in (str(weights), None):
        card = train(compose([*still, f"trainer.start={start or 'null'}"], "classifier"))
        found = load_classifier(tmp_path / card["run"] / weights.name).model.backbone.conv1.weight
        assert found.allclose(begun, atol=1e-3) == (start is not None)
        assert card["start"] == (
            {"weights": start, "sha256": load_classifier(weights).sha256, "run": run.name} if start else None
        )


def test_a_run_is_named_by_the_weights_that_it_starts_from_and_not_by_where_they_lie(run, tmp_path):
    """Else a run begun before the file was replaced would go on, and state a start that it never had."""

    def named(path: object) -> str:
        return RunIdentity.of(compose([f"trainer.start={path}"], "classifier")).name

    weights, elsewhere = run / "classifier.safetensors", tmp_path / "moved.safetensors"
    elsewhere.write_bytes(weights.read_bytes())
    before = named(elsewhere)
    assert named(weights) == before
    elsewhere.write_bytes(weights.read_bytes() + b" ")
    assert named(elsewhere) != before
    assert named("null") != before
    elsewhere.unlink()
    assert named(elsewhere) not in (before, named("null"))  # else a typing error would show another run's results


def test_a_start_that_is_not_the_one_named_is_refused(run, dataset, tmp_path):
    """As when the file is replaced between a command's first look and its second."""
    for start in (run / "classifier.safetensors", "null"):
        given = [f"trainer.start={start}", "trainer.start_sha256=" + "0" * 64]
        with pytest.raises(ConfigError, match=r"trainer\.start_sha256: .* does not have the SHA-256 000"):
            train(compose([*settings(dataset, tmp_path), *given], "classifier"))


def test_weights_of_another_network_are_no_start(dataset, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"12345678")
    given = f"trainer.start={tmp_path / 'mine.safetensors'}"
    with pytest.raises(ConfigError, match=r"^trainer.start: .*mine\.safetensors"):
        train(compose([*settings(dataset, tmp_path / "outputs"), given], "classifier"))
    assert not list((tmp_path / "outputs").glob("resnet18*"))
