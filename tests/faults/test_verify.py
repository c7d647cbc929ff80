"""``python -m fmvae.verify``: what is whole verifies, and each kind of damage is told in words."""

# ruff: noqa: F811 (fixtures are imported, and asked for by name)

import json
import shutil
from collections.abc import Callable

import pytest
import torch

from fmvae.assembly import Parts
from fmvae.config import compose
from fmvae.measurement import recompute as module
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.verification import verify
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import read_record, write_record
from fmvae.runs.recorder import Album
from fmvae.verify import main
from tests.faults.test_corruption import Runs, _steady, runs, stopped, whole  # noqa: F401


def changed(run: RunDirectory, change: Callable[[dict], object], name: str = "results.json") -> None:
    """Write a record anew with a change, and with the digest that fits it: damage that no digest shows."""
    record = read_record(run.path / name)
    change(record)
    write_record(run.path / name, record)


def test_a_whole_run_verifies_and_nothing_is_written(whole):
    before = {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    found = verify(whole, device="cpu")
    assert found.problems == []
    assert found.measures == ["test", "fid/pixels"]
    assert set(found.files) >= {"config.yaml", "best.safetensors", "last.safetensors", "results.json", "fid.json"}
    assert "test, fid/pixels computed again: equal bit for bit" in str(found)
    assert {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()} == before


def test_files_alone(whole):
    found = verify(whole, recompute=False)
    assert (found.problems, found.measures) == ([], [])


def _last_bit(record: dict) -> None:
    value = record["test"]["neg_elbo"]
    record["test"]["neg_elbo"] = value * (1 + 2**-52)


def test_a_number_that_differs_in_its_last_bit_is_told(whole):
    """Written by hand with a digest that fits, so that only computing it again can tell."""
    assert verify(whole, recompute=False).problems == []
    stored = read_record(whole.results)["test"]["neg_elbo"]
    changed(whole, _last_bit)
    (problem,) = verify(whole, device="cpu").problems
    assert problem.startswith("test/neg_elbo: ")
    assert problem.endswith("e-16 of it)")
    assert f"{stored} now" in problem


def test_many_numbers_that_differ_are_counted_and_the_place_they_were_made_at_is_named(whole):
    def elsewhere(record: dict) -> None:
        for name in ("kid", "kid_floor", "precision", "recall", "density", "coverage", "floor"):
            record["fid"]["pixels"][name] = 1.5
        record["provenance"]["evaluation"]["fid/pixels"]["versions"]["torch"] = "1.0"

    changed(whole, elsewhere)
    problems = verify(whole, device="cpu").problems
    assert sum(problem.startswith("fid/pixels/") for problem in problems) == module.SHOWN
    assert any(problem.startswith("fid/pixels: ") and problem.endswith(" more") for problem in problems)
    assert any("was measured with torch 1.0 (here " in problem for problem in problems)
    assert any(problem.startswith("fid.json: ") for problem in problems)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("checkpoints/best.safetensors", b"x", "best.safetensors: not a readable checkpoint"),
        ("checkpoints/last.safetensors", b"x", "last.safetensors: not a readable checkpoint"),
        ("checkpoints/best.safetensors", None, "best.safetensors: missing, though the run is complete"),
        ("results.json", b"{}", "results.json: not a valid record"),
        ("results.json", None, "results.json: missing, though the run is complete"),
        ("fid.json", None, "fid.json: missing, or not the distances of results.json"),
        ("metrics.jsonl", b"{}\n", "metrics.jsonl: not the history of the last checkpoint"),
        ("metrics.jsonl", None, "metrics.jsonl: not the history of the last checkpoint"),
        ("figures/index.json", b"{}", "figures/index.json: not a valid record"),
    ],
)
def test_damage_is_told(name, content, said, whole):
    path = whole.path / name
    path.unlink()  # checkpoints may share their content
    if content is not None:
        path.write_bytes(content)
    problems = verify(whole, device="cpu").problems
    assert any(problem.startswith(said) for problem in problems), problems


def test_files_of_another_run_are_told(runs, whole):
    other = RunDirectory(runs.others["seed"])
    for file in (whole.best, whole.results):
        shutil.copy(other.path / file.relative_to(whole.path), file)
    problems = verify(whole, device="cpu").problems
    assert any(problem.startswith("best.safetensors: a checkpoint of another config") for problem in problems)
    assert "results.json: the results of another config" in problems


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["validation"].update({"val/objective": 1.0}), "validation"),
        (lambda record: record["checkpoint"].update(epoch=1), "checkpoint.epoch"),
        (lambda record: record["provenance"]["training"].update(git={"commit": "0"}), "provenance.training"),
        (lambda record: record.update(iwae={"iwae_64": 3.0}), "iwae"),
        (lambda record: record.pop("provenance"), "provenance"),
    ],
    ids=["validation", "epoch", "origin", "added", "none"],
)
def test_what_is_no_measure_is_of_the_checkpoint_too(change, said, whole):
    """Each with a digest that fits."""
    changed(whole, change)
    (problem,) = verify(whole, recompute=False).problems
    assert problem.startswith(f"results.json: {said} not of the best checkpoint; ")


def test_a_figure_that_is_damaged_is_told(whole):
    album = Album(whole.figures)
    album.file("samples.png", b"pixels")
    album.note({})
    assert verify(whole, recompute=False).problems == []
    (whole.figures / "samples.png").write_bytes(b"pix")
    assert verify(whole, recompute=False).problems == [
        "figures/samples.png: damaged; remove it, and evaluate.py draws it anew"
    ]


def test_a_row_ahead_of_a_killed_run_is_no_damage(stopped):
    """It is written before the checkpoint of its epoch."""
    stopped.metrics.write_bytes(stopped.metrics.read_bytes() + b'{"epoch": 9}\n')
    found = verify(stopped, recompute=False)
    assert found.problems == []
    assert "not complete, the same training command finishes it" in str(found)
    stopped.metrics.write_bytes(b'{"epoch": 9}\n')
    assert [problem.partition(":")[0] for problem in verify(stopped, recompute=False).problems] == [
        "metrics.jsonl"
    ]


def test_whoever_measures_a_run_that_is_not_complete_is_told(runs, stopped, caplog):
    given = [
        f"run={stopped.path}",
        f"data_root={runs.config['data']['root']}",
        "evaluation=fast",
        "figures=none",
        "device=cpu",
    ]
    evaluate_runs(compose(given, "evaluate"))
    assert "its training is not complete (epoch " in caplog.text


def test_what_cannot_be_measured_as_it_was_is_said(whole):
    changed(whole, lambda record: record["fid"]["pixels"]["settings"].update(num_neighbours=7, features="others"))
    problems = verify(whole, device="cpu").problems
    assert any(problem.startswith("fid/pixels: can't be computed again here") for problem in problems)


def test_each_measure_gets_the_threads_that_it_was_made_with(whole, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    changed(whole, lambda record: record["provenance"]["evaluation"]["test"].update(threads=3))
    verify(whole, device="cpu")
    assert seen == [3, read_record(whole.results)["provenance"]["evaluation"]["fid/pixels"]["threads"]]


def test_a_run_that_is_not_complete_has_files_that_are_whole(stopped):
    found = verify(stopped, device="cpu")
    assert found.problems == []
    assert found.measures == []
    assert "last.safetensors" in found.files


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_goes_through_a_folder_and_fails_if_one_does(runs, whole, capsys):
    shutil.copytree(runs.others["seed"], whole.path.parent / runs.others["seed"].name)
    folder = [str(whole.path.parent), "--device", "cpu"]
    assert main(folder) == 0
    assert capsys.readouterr().out.count("equal bit for bit") == 2
    whole.fid.unlink()
    assert main([*folder, "--files"]) == 1
    told = capsys.readouterr()
    assert told.err == "fmvae: error: verify: 1 of 2 runs do not verify; see the lines above\n"
    assert "fid.json: missing" in told.out


def test_a_run_that_is_held_is_left_out(whole, capsys):
    with whole.held():
        assert main([str(whole.path)]) == 0
    assert "held by process" in capsys.readouterr().out


def test_an_edited_config_and_an_empty_folder_are_one_line_each(whole, tmp_path, capsys):
    whole.config.write_text(whole.config.read_text().replace("seed: 0", "seed: 5"))
    assert main([str(whole.path)]) == 1
    assert "not the config this directory is named by" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 1
    assert capsys.readouterr().err.startswith("fmvae: error: run: ")


def test_negative_control_of_weights_that_are_others_the_numbers_differ(runs, whole, monkeypatch):
    """Whatever the digests say."""
    monkeypatch.setattr(Parts, "load", lambda parts, tensors: None)
    problems = verify(whole, device="cpu").problems
    assert any(problem.startswith("test/") for problem in problems)
    assert json.dumps(problems)
