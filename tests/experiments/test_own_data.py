"""A dataset that someone else wrote goes all the way: composed, trained, measured, drawn, measured again."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

import fmvae.data
from fmvae.assembly import assemble, build_data
from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, FmvaeError, RunError
from fmvae.experiments import train
from fmvae.experiments.classifier import ClassifierExperiment
from fmvae.experiments.together import stackable, train_together
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import load_run
from fmvae.measurement.verification import verify
from fmvae.runs.directory import find_runs
from fmvae.sweeps.directory import pace_of
from fmvae.visualization import result_figures
from tests.own_data import Discs, own_config

CPU = torch.device("cpu")
GREY, RGB = {"image_shape": (1, 8, 8), "num_classes": 0}, {"image_shape": (3, 8, 8), "num_classes": 3}
ALWAYS = {
    "interpolations",
    "kl_per_dimension",
    "latent_scatter",
    "reconstructions",
    "samples",
    "training_curves",
    "traversal_posterior",
    "traversal_prior",
}


def drawn(run: Path, kind: str = "png") -> set[str]:
    return {path.stem for path in run.glob(f"figures/*.{kind}")}


def is_coloured(png: Path) -> bool:
    """Whether a pixel is far from grey."""
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
    return bool((pixels.max(2) - pixels.min(2)).max() > 30)


def evaluation_of(run: Path, *overrides: str) -> dict[str, Any]:
    return compose([f"run={run}", "device=cpu", "evaluation=fast", "figures=none", *overrides], "evaluate")


@pytest.mark.parametrize(
    ("overrides", "data", "figures"),
    [
        (["latent_dim=2"], GREY, ALWAYS | {"latent_manifold"}),
        (["latent_dim=1"], GREY, ALWAYS),
        (["latent_dim=3"], RGB, ALWAYS | {f"traversal_class_{c}" for c in range(3)}),
        (
            ["model=conditional", "latent_dim=2"],
            RGB | {"image_shape": (3, 12, 8)},
            ALWAYS
            | {"class_samples", "style_transfer"}
            | {f"{name}_class_{c}" for c in range(3) for name in ("traversal", "latent_manifold")},
        ),
    ],
    ids=["grey unlabelled", "grey unlabelled, z = 1", "RGB", "RGB, conditional"],
)
@pytest.mark.one_in(3)
def test_from_the_command_to_results_and_figures(tmp_path, monkeypatch, caplog, overrides, data, figures):
    config = own_config(tmp_path, monkeypatch, "figures=all", *overrides, **data)
    caplog.set_level(logging.INFO)
    results = train(config)
    (run,) = find_runs(tmp_path)
    assert np.isfinite(results["test"]["neg_elbo"])
    assert results["provenance"]["data_sha256"] == build_data(config, CPU).sha256
    assert drawn(run.path) == figures
    assert drawn(run.path, "gif") == {"traversal_prior"}
    rgb = data["image_shape"][0] == 3
    pictures = ("reconstructions", "samples", "traversal_posterior", "interpolations")
    assert is_coloured(run.path / "figures" / "reconstructions.png") == rgb
    assert all(is_coloured(run.path / "figures" / f"{name}.png") for name in pictures) or not rgb
    with Image.open(run.path / "figures" / "traversal_prior.gif") as animation:
        assert animation.convert("RGB").getcolors(2**24)
    assert ("every_class: ignored, as the data have no labels" in caplog.text) == (not data["num_classes"])
    (metadata,) = run.path.rglob("metadata.tsv")
    rows = metadata.read_text().splitlines()
    assert rows[:2] == (["class\tindex", "small\t0"] if data["num_classes"] else ["0", "1"])

    # and once more from what is stored, with other settings, and by verify
    again = evaluate_runs(evaluation_of(run.path, "evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=8"))
    assert again[0]["test"] == results["test"]
    assert np.isfinite(again[0]["iwae"]["iwae_2"])
    found = verify(run, device="cpu")
    assert not found.problems
    assert {"test", "iwae"} <= set(found.measures)
    assert load_run(run.path, device="cpu").parts.data.class_names == build_data(config, CPU).class_names


def test_pixel_distances_of_rgb_images_are_measured(tmp_path, monkeypatch):
    wanted = ["evaluation.fid.features=[pixels]", "evaluation.fid.num_images=60", "figures=none"]
    config = own_config(tmp_path, monkeypatch, *wanted, image_shape=(3, 4, 4), num_classes=3)
    assert train(config)["fid"]["pixels"]["generation"] > 0


# --- what is refused ------------------------------------------------------------------------------------------


def test_a_conditional_model_on_data_without_labels_is_refused(tmp_path, monkeypatch):
    for model in ("conditional", "conditional_conv"):
        with pytest.raises(ConfigError, match=r"^model: ConditionalVAE takes labels, but Discs has none; choose"):
            own_config(tmp_path, monkeypatch, f"model={model}", **GREY)  # while composing
    assert not find_runs_in(tmp_path)
    assemble(own_config(tmp_path, monkeypatch, "model=conditional", **RGB), CPU)  # with labels it is not


def find_runs_in(folder: Path) -> list[Path]:
    return list(folder.glob("*/config.yaml"))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("data.num_classes=4", r"^data.num_classes: 4, but the data have 3; set data.num_classes=3$"),
        ("data.image_shape=[3,4,4]", r"^data.image_shape: .*\[3, 4, 4\].*set data.image_shape=\[3,8,8\]$"),
    ],
)
def test_what_the_config_says_of_the_data_must_be_so(tmp_path, monkeypatch, stated, message):
    """Models are made by it. ``Rigid`` has one shape and three classes, whatever it is told."""

    class Rigid(Discs):
        def __init__(self, *, image_shape, num_classes, **others):
            super().__init__(image_shape=(3, 8, 8), num_classes=3, **others)

    Rigid.__module__ = "fmvae.data"
    monkeypatch.setattr(fmvae.data, "Rigid", Rigid, raising=False)
    config = own_config(tmp_path, monkeypatch, "data._target_=fmvae.data.Rigid", stated, **RGB)
    with pytest.raises(ConfigError, match=message):
        assemble(config, CPU)
    assemble(own_config(tmp_path, monkeypatch, "data._target_=fmvae.data.Rigid", **RGB), CPU)


def test_a_figure_of_classes_is_refused_by_name_without_labels(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, "figures.only=[traversal_class_0]", **GREY)
    with pytest.raises(
        ConfigError, match=r"^figures.only: 'traversal_class_0' is not a figure of base.*choose from"
    ):
        assemble(config, CPU)
    assemble(own_config(tmp_path, monkeypatch, "figures.only=[traversal_class_0]", **RGB), CPU)


def test_what_is_no_dataset_is_refused(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, **GREY)
    config["data"] = {"_target_": "fmvae.models.BaseVAE", "latent_dim": 2}
    with pytest.raises(ConfigError, match=r"^data._target_: 'fmvae.models.BaseVAE' does not inherit from"):
        assemble(config, CPU)


@pytest.mark.parametrize("key", ["data.root=/tmp", "data.vall_size=3"])
def test_a_key_that_the_class_does_not_take_is_refused(tmp_path, monkeypatch, key):
    with pytest.raises(ConfigError, match=r"^data\.\w+: there is no such key"):
        own_config(tmp_path, monkeypatch, f"+{key}", **GREY)


def test_the_classifier_refuses_data_without_labels(tmp_path, monkeypatch):
    own = own_config(tmp_path, monkeypatch, **GREY)
    config = compose(["device=cpu"], "classifier") | {"data": own["data"]}
    with pytest.raises(ConfigError, match=r"^data: no labels, but the classifier learns them; choose data with"):
        ClassifierExperiment(config, CPU)


# --- config keys that are Fashion-MNIST's alone ----------------------------------------------------------------


def test_a_data_root_is_not_given_to_a_class_that_takes_none(tmp_path, monkeypatch, caplog):
    config = own_config(tmp_path, monkeypatch, "figures=none", **RGB)
    results = train(config)
    (run,) = find_runs(tmp_path)
    again = evaluate_runs(evaluation_of(run.path, f"data_root={tmp_path}", "force=true"))
    assert again[0]["test"] == results["test"]
    assert f"its data are not read from a folder; data_root={tmp_path} is not used" in caplog.text


def test_runs_are_stacked_only_on_the_same_data_of_ones_own(tmp_path, monkeypatch):
    def text(*overrides: str) -> str:
        found = stackable(own_config(tmp_path, monkeypatch, *overrides, **RGB))
        assert found
        return found

    first = text()
    assert text("seed=3", "beta=2") == first
    for other in ("data.num_images=200", "data.batch_size=20", "data.val_size=30"):
        assert text(other) != first, other
    fashion = stackable(compose(["model.hidden_dim=400"]))
    assert fashion == stackable(compose(["data.num_test=5", "seed=1", "data.root=x"]))
    assert fashion not in (None, first)


def test_the_pace_of_an_epoch_is_of_the_data(tmp_path, monkeypatch):
    def pace(*overrides: str) -> str:
        return pace_of(RunIdentity.of(own_config(tmp_path, monkeypatch, *overrides, **RGB)).semantic)

    assert pace("seed=1") == pace()
    assert pace("data.num_images=200") != pace()


def test_class_names_name_no_run(tmp_path):
    plain, named = compose(), compose(["data.class_names=[a,b,c,d,e,f,g,h,i,j]"])
    assert named["data"]["class_names"] == list("abcdefghij")
    assert RunIdentity.of(named) == RunIdentity.of(plain)
    assert RunIdentity.of(compose(["data.num_classes=11"])) != RunIdentity.of(plain)
    with pytest.raises(FmvaeError, match=r"^data.class_names: 'abc' is not a list of texts"):
        compose(["data.class_names=abc"])


# --- pictures --------------------------------------------------------------------------------------------------


def test_pictures_of_unlabelled_images_name_no_class(tmp_path, monkeypatch):
    """The negative control is the labelled run, whose pictures do."""
    texts, rows = {}, {}
    for data in (GREY, RGB):
        config = own_config(tmp_path, monkeypatch, "latent_dim=1", **data)
        parts = assemble(config, CPU)
        history = [{"epoch": 1, "train/objective": 1.0}]
        figures = dict(result_figures(parts.visualizer, parts.data, history, config["figures"]))
        rows[data["num_classes"]] = figures["interpolations"].axes[0].images[0].get_size()[0] // 9
        shown = [text for figure in figures.values() for text in figure.findobj(Text)]
        texts[data["num_classes"]] = " ".join(text.get_text() for text in shown)
    names = ("small", "middle", "large", "T-shirt")
    assert not any(name in texts[0] for name in names)
    assert all(name in texts[3] for name in names[:3])
    assert "T-shirt" not in texts[3]
    assert rows == {0: 8, 3: 5}  # the first images two by two; a pair of each class, and two across


def test_the_animation_of_rgb_images_is_coloured(tmp_path, monkeypatch):
    from fmvae.visualization import result_animations

    spread = {}
    for data in (GREY, RGB):
        parts = assemble(config := own_config(tmp_path, monkeypatch, **data), CPU)
        with torch.no_grad():  # an untrained decoder is near grey
            for parameter in parts.model.parameters():
                parameter.mul_(8)
        ((_, content),) = result_animations(parts.visualizer, parts.data, config["figures"])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        spread[data["num_classes"]] = (pixels.max(2) - pixels.min(2)).max()
    assert spread[0] == 0
    assert spread[3] > 30


def test_results_are_json_without_class_names(tmp_path, monkeypatch):
    train(own_config(tmp_path, monkeypatch, "figures=none", **GREY))
    (run,) = find_runs(tmp_path)
    assert "per_class" not in json.dumps(json.loads(run.results.read_text()))


# --- what a run was trained on --------------------------------------------------------------------------------


def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The discs lie elsewhere from now on, under the same config."""
    draw = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: draw(seed + 1))


def stopped(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended after its first epoch of two."""
    with monkeypatch.context() as patch:
        patch.setattr("fmvae.training.vae.Epoch.took", lambda self, *_: take(self))

        def take(epoch: Any) -> None:
            epoch.done += 1
            if epoch.epoch == 2:
                raise KeyboardInterrupt

        patch.setattr("fmvae.training.vae.Epoch.row", lambda self: self.trainer.row(self.epoch, {}))
        with pytest.raises(KeyboardInterrupt):
            train(config)


def test_a_run_goes_on_with_the_images_that_it_began_with_and_with_no_others(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, "trainer.epochs=2", "figures=none", **GREY)
    stopped(config, monkeypatch)
    with monkeypatch.context() as patch:
        changed(patch)
        with pytest.raises(
            RunError, match=r"trained on other data than these \(.*train-images.*; put the data back"
        ):
            train(config)
    (run,) = find_runs(tmp_path)
    assert run.read_status()["epoch"] == 1, "it lost what it had"
    assert train(config)["checkpoint"]["epoch"] in (1, 2)


def test_other_images_are_not_measured_by_its_checkpoint(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, "figures=none", **GREY)
    train(config)
    (run,) = find_runs(tmp_path)
    before = run.results.read_bytes()
    changed(monkeypatch)
    with pytest.raises(RunError, match="trained on other data than these"):
        evaluate_runs(evaluation_of(run.path, "force=true"))
    assert run.results.read_bytes() == before


def test_a_complete_run_is_not_shown_for_other_images(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, "figures=none", **GREY)
    results = train(config)
    assert train(config) == results
    changed(monkeypatch)
    with pytest.raises(RunError, match="trained on other data than these"):
        train(config)


def test_negative_control_without_the_digests_nobody_would_notice(tmp_path, monkeypatch):
    config = own_config(tmp_path, monkeypatch, "figures=none", **GREY)
    monkeypatch.setattr(Discs, "named_by_config", True)
    train(config)
    (run,) = find_runs(tmp_path)
    changed(monkeypatch)
    assert evaluate_runs(evaluation_of(run.path, "force=true"))


def test_the_summary_of_latents_has_a_probe_only_with_labels(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for data, told in ((GREY, False), (RGB, True)):
        caplog.clear()
        train(own_config(tmp_path, monkeypatch, "evaluation.latent=true", "figures=none", **data))
        assert "2 latent dimensions active" in caplog.text
        assert ("a linear probe on mu classifies" in caplog.text) == told


class Uneven(Discs):
    """Has more images with seed 1."""

    def __init__(self, *, num_images, seed, **others):
        super().__init__(num_images=num_images + 75 * seed, seed=seed, **others)


def test_stacked_runs_whose_training_splits_differ_in_size_are_those_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(fmvae.data, "Uneven", Uneven, raising=False)
    monkeypatch.setattr(Uneven, "__module__", "fmvae.data")

    def configs(folder: str) -> list[dict[str, Any]]:
        usual = ["data._target_=fmvae.data.Uneven", f"output_root={tmp_path / folder}", "figures=none"]
        return [own_config(tmp_path, monkeypatch, *usual, f"seed={seed}", **RGB) for seed in (0, 1)]

    alone = [train(config) for config in configs("alone")]
    assert len({stackable(config) for config in configs("together")}) == 1
    together = train_together([(config, ()) for config in configs("together")])
    for ours, theirs in zip(together, alone, strict=True):
        assert isinstance(ours, dict)
        assert ours["test"]["recon"] == pytest.approx(theirs["test"]["recon"], rel=1e-4)
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-4)
