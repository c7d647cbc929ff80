"""Images of one's own go all the way, with the promises of Fashion-MNIST's: ``data=arrays``, and a folder."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmvae.config import compose
from fmvae.data import Arrays
from fmvae.errors import FmvaeError, RunError
from fmvae.experiments import stackable, train, train_together
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import load_run
from fmvae.measurement.verification import verify
from fmvae.runs.directory import find_runs
from tests.cli.process import refused, succeeded
from tests.data.own_images import drawn, folder, npz
from tests.data.test_named import OPTIONS, put
from tests.faults.warmed import warmed

QUICKLY = ["trainer.epochs=2", "device=cpu", "threads=1", "trainer.progress=false", "evaluation=fast"]
QUICKLY += ["data.batch_size=30", "evaluation.fid.num_images=0"]
SMALL = [*QUICKLY, "model.hidden_dim=16"]
FILES = ("results.json", "metrics.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")


def config(path: Path, output: Path, *overrides: str) -> dict[str, Any]:
    return compose(["data=arrays", f"data.root={path}", f"output_root={output}", *SMALL, *overrides])


def run_in(output: Path) -> Path:
    (run,) = find_runs(output)
    return run.path


@pytest.fixture
def path(tmp_path) -> Path:
    images, labels = drawn(150)
    return npz(tmp_path / "squares.npz", images=images, labels=labels)


@pytest.mark.parametrize("labelled", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_from_an_array_to_figures_measures_and_verification(tmp_path, path, labelled, caplog):
    caplog.set_level(logging.INFO)
    asked = [] if labelled else ["data.num_classes=0"]
    results = train(config(path, tmp_path / "out", "figures=all", "evaluation.latent=true", *asked))
    run = run_in(tmp_path / "out")
    drawn_ = {figure.stem for figure in run.glob("figures/*")}
    assert {"reconstructions", "samples", "traversal_prior", "traversal_posterior", "training_curves"} <= drawn_
    assert ("traversal_class_2" in drawn_) == labelled
    assert ("linear_probe_accuracy" in results["latent"]) == labelled
    assert ("linear probe of the latents is left out: the data have no labels" in caplog.text) == (not labelled)
    assert results["provenance"]["data_sha256"] == {"file": load_run(run, device="cpu").config["data"]["sha256"]}

    moved = path.rename(tmp_path / "moved.npz")
    settings = [f"run={run}", "device=cpu", "evaluation=fast", "figures=none", "force=true", f"data_root={moved}"]
    again = evaluate_runs(compose(settings, "evaluate"))
    assert again[0]["test"] == results["test"]
    found = verify(find_runs(run)[0], device="cpu", data_root=str(moved))
    assert not found.problems
    assert "test" in found.measures
    images = drawn(150, seed=1)[0]
    with pytest.raises(FmvaeError, match="is not the file that the run was named by"):
        evaluate_runs(
            compose([*settings[:-1], f"data_root={npz(tmp_path / 'other.npz', images=images)}"], "evaluate")
        )
    with pytest.raises(FmvaeError, match="is not the file that the run was named by"):
        verify(find_runs(run)[0], device="cpu", data_root=str(tmp_path / "other.npz"))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_its_bits_and_not_with_other_content(tmp_path, path, monkeypatch):
    train(config(path, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr("fmvae.training.vae.Epoch.took", took := stopping(after=7))
        with pytest.raises(KeyboardInterrupt):
            train(config(path, tmp_path / "stopped"))
    assert took.count == 7
    run = run_in(tmp_path / "stopped")
    stopped_at = find_runs(run)[0].read_status()["epoch"]
    assert stopped_at == 1
    train(config(path, tmp_path / "stopped"))
    for name in FILES:
        assert (run / name).read_bytes() == (run_in(tmp_path / "whole") / name).read_bytes(), name
    before = (run / "results.json").read_bytes()
    npz(path, images=drawn(150, seed=1)[0], labels=drawn(150)[1])
    train(config(path, tmp_path / "stopped"))
    assert len(find_runs(tmp_path / "stopped")) == 2
    assert (run / "results.json").read_bytes() == before


def stopping(after: int) -> Any:
    """``Epoch.took`` that ends the process's work after so many steps."""
    from fmvae.training.vae import Epoch

    def took(self: Any, *arguments: Any) -> None:
        own(self, *arguments)
        took.count += 1  # type: ignore[attr-defined]
        if took.count == after:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    own = Epoch.took
    took.count = 0  # type: ignore[attr-defined]
    return took


@pytest.mark.slow
def test_runs_on_arrays_are_stacked_and_those_alone(tmp_path, path):
    def configs(output: str) -> list[dict[str, Any]]:
        return [config(path, tmp_path / output, f"seed={seed}", "figures=none") for seed in range(2)]

    assert len({stackable(one) for one in configs("x")}) == 1
    other = npz(tmp_path / "b.npz", images=drawn(150, seed=1)[0])
    assert stackable(config(other, tmp_path / "x")) != stackable(configs("x")[0])
    alone = [train(one) for one in configs("alone")]
    together = train_together([(one, ()) for one in configs("together")])
    for ours, theirs in zip(together, alone, strict=True):
        assert isinstance(ours, dict)
        assert ours["test"]["recon"] == pytest.approx(theirs["test"]["recon"], rel=1e-4)


@pytest.mark.slow
def test_a_sweep_has_a_report_and_asks_the_file_again(tmp_path, path):
    command = ["-m", "data=arrays", f"data.root={path}", f"output_root={tmp_path}", *SMALL]
    command += ["beta=0.5,1", "figures=none", "hydra/launcher=stacked"]
    succeeded(warmed().call("train.py", *command))
    (sweep,) = tmp_path.glob("beta-*")
    assert (sweep / "report" / "index.html").exists()
    assert len(find_runs(sweep)) == 2
    results = {run.path: run.results.stat().st_mtime_ns for run in find_runs(sweep)}
    succeeded(warmed().call("train.py", *command))
    assert {run.path: run.results.stat().st_mtime_ns for run in find_runs(sweep)} == results
    npz(path, images=drawn(150, seed=1)[0], labels=drawn(150)[1])
    succeeded(warmed().call("train.py", *command))
    assert len(find_runs(sweep)) == 4, "the runs of the other content were taken for these"
    other = npz(tmp_path / "b.npz", images=drawn(150, seed=2)[0])
    succeeded(warmed().call("train.py", *command, f"data.root={other}"))
    assert len(list(tmp_path.glob("beta-*"))) == 2  # a sweep over another file has a folder of its own


@pytest.mark.slow
def test_a_search_finds_a_best_run(tmp_path, path):
    pytest.importorskip("optuna")
    command = ["-m", "data=arrays", f"data.root={path}", f"output_root={tmp_path}", *SMALL, "figures=none"]
    command += ["hydra/sweeper=optuna", "hydra.sweeper.n_trials.total=2", "beta.value=interval(0.5,2)"]
    finished = warmed().call("train.py", *command, "sweep_name=search")
    assert finished.status == 0, finished.stderr
    assert len(find_runs(tmp_path / "search")) == 2
    npz(path, images=drawn(150, seed=1)[0], labels=drawn(150)[1])
    again = warmed().call("train.py", *command, "sweep_name=search")
    said = refused(again, "data.sha256", "but the study neg_elbo was begun with")
    assert "give hydra.sweeper.study_name=<name> to begin another study" in said


def test_an_error_of_a_file_is_one_line_of_the_command(tmp_path, path):
    said = refused(
        warmed().call("train.py", "data=arrays", f"data.root={tmp_path}/none.npz", f"output_root={tmp_path}"),
        "data.root: there is no",
    )
    assert "give data.root=<file.npz or .npy>" in said
    path.write_bytes(b"")
    refused(warmed().call("train.py", "data=arrays", f"data.root={path}"), "squares.npz: the file is empty")
    refused(warmed().call("train.py", "data=arrays"), "data.root: no file is named")


@pytest.mark.slow
def test_a_folder_goes_all_the_way_and_other_pixels_of_the_same_files_are_refused(tmp_path, monkeypatch):
    root = folder(tmp_path / "images", 40, mode="RGB")
    asked = ["data=image_folder", f"data.root={root}", f"data.cache={tmp_path / 'cache'}", "data.size=8"]
    asked += [f"output_root={tmp_path / 'out'}", *QUICKLY, "model=conv", "latent_dim=2"]
    results = train(compose(asked))
    run = run_in(tmp_path / "out")
    assert np.isfinite(results["test"]["neg_elbo"])
    assert not verify(find_runs(run)[0], device="cpu").problems
    assert train(compose(asked)) == results
    monkeypatch.setattr("PIL.__version__", "0.0")  # of a machine whose decoder rounds otherwise
    monkeypatch.setattr("fmvae.data.image_folder.decode", lambda *a: np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(RunError, match=r"trained on other data than these \(images changed\)"):
        train(compose(asked))


@pytest.mark.parametrize(
    ("option", "model"),
    [
        ("cifar10", ["model=conv", "likelihood=gaussian"]),
        ("cifar10", ["model=base", "model.hidden_dim=16"]),
        ("cifar10", ["model=residual", "model.width=4", "likelihood=laplace"]),
        ("cifar10", ["model=conditional", "model.hidden_dim=16", "likelihood=continuous_bernoulli"]),
        ("cifar10", ["model=beta", "likelihood=gaussian_learned"]),
        ("mnist", ["model=base", "model.hidden_dim=16"]),
        ("emnist", ["model=conditional", "model.hidden_dim=16"]),
    ],
)
@pytest.mark.slow
def test_a_dataset_by_name_is_trained_and_drawn(tmp_path, monkeypatch, option, model):
    put(OPTIONS[option], tmp_path / "data", monkeypatch)
    asked = [
        f"data={option}",
        f"data.root={tmp_path / 'data'}",
        "data.val_size=10",
        f"output_root={tmp_path / 'out'}",
    ]
    results = train(compose([*asked, *QUICKLY, *model]))
    assert np.isfinite(results["test"]["neg_elbo"])
    assert {"reconstructions", "samples", "traversal_prior"} <= {
        p.stem for p in tmp_path.glob("out/*/figures/*.png")
    }
    assert not verify(find_runs(tmp_path / "out")[0], device="cpu").problems


def test_a_constructor_without_a_config_needs_no_digest(path):
    assert Arrays(path).sha256.keys() == {"file"}
