"""Run directories are read as what they are: complete, unfinished or damaged; each of them once."""

import os
import shutil

import pytest
import yaml

from fmvae.errors import FmvaeError
from fmvae.report.collect import collect, read_run, sortable
from fmvae.runs.directory import RunDirectory
from tests.report.fakes import edit_status, write_run


def test_a_complete_run_has_its_numbers_config_and_sizes(tmp_path):
    path = write_run(tmp_path, "beta=warmup", beta=4.0, z=10, seed=3, recon=123.5)
    run = read_run(RunDirectory(path))
    assert (run.name, run.state, run.reason) == (path.name, "complete", "")
    assert (run.model, run.latent_dim, run.beta, run.schedule) == ("base", 10, 4.0, "warmup")
    assert run.scalars["test/recon"] == 123.5
    assert run.sizes == {"test": 10_000, "iwae": 1000, "latent": 10_000, "fid/resnet18": 5000}
    assert run.config["trainer.epochs"] == 30
    assert "output_root" not in run.config  # where a run lies is no part of what it is


@pytest.mark.parametrize("state", ["partial", "failed", "interrupted"])
def test_an_unfinished_run_says_why_in_one_line_and_has_no_numbers(tmp_path, state):
    path = write_run(tmp_path)
    edit_status(path, state=state.replace("partial", "running"), error="loss is\nnan", epoch=7)
    run = read_run(RunDirectory(path))
    assert run.state == state
    assert "loss is nan" in run.reason
    assert "epoch 7 of 30" in run.reason
    assert not run.scalars


def test_a_run_is_running_if_a_process_holds_it(tmp_path):
    directory = RunDirectory(write_run(tmp_path, state="running"))
    with directory.held():
        assert read_run(directory).state == "running"
    assert read_run(directory).state == "partial"
    assert "repeat its command to finish it" in read_run(directory).reason


def damage_results(path):
    text = (path / "results.json").read_text()
    assert "250" in text
    (path / "results.json").write_text(text.replace("250", "150"))


def foreign_results(path):
    other = write_run(path.parent / "other", seed=1)
    shutil.copy(other / "results.json", path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_results, "does not match its digest"),
        (foreign_results, "of another config"),
        (lambda path: (path / "results.json").write_text("[1]"), "not a valid record"),
        (lambda path: (path / "results.json").unlink(), "no such file"),
        (lambda path: (path / "config.yaml").write_text("a: ["), "not readable as YAML"),
        (lambda path: (path / "config.yaml").write_text("seed: 0"), "not the config of a run"),
        (lambda path: (path / "config.yaml").write_bytes(b"\xff\xfe\x00"), "config.yaml"),
        (
            lambda path: (path / "config.yaml").write_text("{model: {}, beta: {}, latent_dim: {}, data: {}}"),
            "not the config of a run",
        ),
    ],
)
def test_damage_is_told_and_stops_nothing(tmp_path, harm, said):
    path = write_run(tmp_path, z=2, beta=0.5, recon=250.0)
    write_run(tmp_path, seed=5)
    harm(path)
    runs = collect([tmp_path])
    assert sorted(run.state for run in runs) == ["complete", "damaged"]
    (damaged,) = [run for run in runs if run.state == "damaged"]
    assert damaged.name == path.name
    assert said in damaged.reason
    assert not damaged.scalars


def test_a_status_that_says_nothing_makes_no_run_complete(tmp_path):
    path = write_run(tmp_path)
    (path / "status.json").write_text("{")
    assert read_run(RunDirectory(path)).state == "unknown"


def test_a_run_is_complete_exactly_if_its_directory_says_so(tmp_path):
    for seed, state in enumerate(("complete", "running", "failed", "interrupted")):
        directory = RunDirectory(write_run(tmp_path, seed=seed, state=state))
        assert read_run(directory).complete == (directory.state() == "complete")


def test_a_classifier_is_named_as_one(tmp_path):
    path = write_run(tmp_path)
    config = yaml.safe_load((path / "config.yaml").read_text())
    del config["beta"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(RunDirectory(path)).state == "damaged"  # a VAE's that lacks something
    del config["latent_dim"]
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(RunDirectory(path)).state == "classifier"


def test_a_run_in_several_folders_counts_once_and_the_complete_one_wins(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    halves = [write_run(first, seed=seed, state="running") for seed in range(2)]
    whole = write_run(second, seed=0)
    write_run(second, seed=2)
    for folders in ([first, second], [second, first], [first, second, first]):
        runs = collect(folders)
        assert [run.config["seed"] for run in runs] == [0, 1, 2]
        assert [run.state for run in runs] == ["complete", "partial", "complete"]
        assert runs[0].directory.path == whole
    assert halves[0].name == whole.name


def test_a_copy_under_another_name_is_the_same_run(tmp_path):
    path = write_run(tmp_path)
    shutil.copytree(path, tmp_path / "copy")
    assert len(collect([tmp_path])) == 1


def test_runs_are_sorted_by_size_not_by_spelling(tmp_path):
    for z in (10, 2):
        for beta in (10.0, 0.5, 2.0):
            for seed in (10, 9):
                write_run(tmp_path, z=z, beta=beta, seed=seed)
    found = [(run.latent_dim, run.beta, run.config["seed"]) for run in collect([tmp_path])]
    assert found == [(z, beta, seed) for z in (2, 10) for beta in (0.5, 2.0, 10.0) for seed in (9, 10)]


def test_numbers_in_texts_sort_by_size():
    assert sorted(["z10", "z2", "b", "z"], key=sortable) == ["b", "z", "z2", "z10"]
    assert sorted([10, "a", None, 0.5, 2], key=sortable) == [None, 0.5, 2, 10, "a"]


def test_a_folder_without_runs_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, problem in ((tmp_path / "empty", "no runs in it"), (tmp_path / "none", "no such directory")):
        with pytest.raises(FmvaeError) as error:
            collect([folder])
        assert str(error.value).startswith(f"{folder}: {problem}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_damage(tmp_path):
    path = write_run(tmp_path)
    (path / "results.json").chmod(0)
    assert read_run(RunDirectory(path)).state == "damaged"
