"""A run measured again: what is there is kept, what other settings touch is not, and nothing is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmvae.config import compose
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation import features, likelihood, partial, precision
from fmvae.evaluation.measures import decomposition, elbo, iwae, latent
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.precision import AutoFeatures
from fmvae.experiments import train
from fmvae.measurement import evaluate as measurement
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.measurement.load import load_run
from fmvae.measurement.verification import verify
from fmvae.models.resnet import load_classifier
from fmvae.report.collect import read_run
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.directory import find_runs
from fmvae.runs.files import read_record, write_record
from fmvae.runs.results import flat_scalars
from fmvae.weights import SHIPPED
from tests.cli.process import snapshot
from tests.idx import write_idx_dataset

SMALL = ["evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=20", "evaluation.cache=null"]
PICTURES = ["figures.only=[samples]", "figures.num_samples=4", "figures.gif=false", "figures.projector=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A conditional run of one epoch."""
    root = tmp_path_factory.mktemp("measured")
    sha256 = write_idx_dataset(root / "data", 400, 200)
    digests = ",".join(f"{name}:'{digest}'" for name, digest in sha256.items())
    data = [f"data.root={root}/data", f"data.sha256={{{digests}}}", "data.download=false", "data.val_size=50"]
    model = ["model=conditional", "model.hidden_dim=16", "trainer.epochs=1", "device=cpu"]
    train(compose([*data, *model, *SMALL, *PICTURES, f"output_root={root}/outputs"]))
    (run,) = (root / "outputs").glob("conditional-*")
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def evaluate(run: Path, *overrides: str) -> dict[str, Any]:
    settings = compose([f"run={run}", *SMALL, *PICTURES, *overrides], "evaluate")
    (results,) = evaluate_runs(settings)
    return results


@pytest.mark.parametrize("force", [False, True])
def test_distances_that_an_earlier_call_measured_are_called_kept_and_not_left_out(run, caplog, force):
    """They were asked for by a number of images, which the next call does not give."""
    said = "FID (pixels) is left out: "
    with caplog.at_level("INFO", "fmvae"):
        evaluate(run, "figures.only=[]")
    assert said in caplog.text  # the control: there are none yet
    results = read_record(run / "results.json")
    names = ("generation", "generation_se", "reconstruction", "floor", "precision", "recall")
    block = {**dict.fromkeys(names, 1.0), "num_images": 90, "settings": {"num_images": 90}}
    origins = results["provenance"]["evaluation"]
    results |= {"fid": {"pixels": block}}
    results["provenance"]["evaluation"] = {**origins, "fid/pixels": origins["test"]}
    write_record(run / "results.json", results)
    caplog.clear()
    with caplog.at_level("INFO", "fmvae"):
        again = evaluate(run, "figures.only=[]", f"force={str(force).lower()}")
    assert again["fid"]["pixels"] == block
    assert "FID (pixels) is not measured again, and its numbers from an earlier call are kept: " in caplog.text
    assert said not in caplog.text
    assert "pixels, 90 " in caplog.text


def scalar_events(run: Path) -> dict[str, list[float]]:
    """What TensorBoard reads of the directory, by tag, in all its event files."""
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_training_and_evaluating_give_the_same_results(run):
    before = snapshot(run)
    stored = read_record(run / "results.json")
    measured = {"test", "iwae", "latent", "decomposition", "samplers/gmm/bound"}
    assert set(stored["provenance"]["evaluation"]) == measured
    (run / "results.json").unlink()
    shutil.rmtree(run / "figures")
    evaluate(run)
    after = snapshot(run)
    assert {name: after[name] for name in before} == before


def test_a_second_call_computes_nothing_and_changes_no_file(run, monkeypatch):
    for file, name in (
        (elbo, "measure_elbo"),
        (iwae, "importance_weighted_bound"),
        (latent, "latent_measures"),
        (decomposition, "decompose_kl"),
    ):
        monkeypatch.setattr(file, name, None)  # calling one would raise
    before = snapshot(run)
    results = evaluate(run)
    assert snapshot(run) == before
    assert results == read_record(run / "results.json")
    with pytest.raises(TypeError):
        evaluate(run, "force=true")


def test_a_killed_measurement_goes_on_where_it_was_and_leaves_no_file(run, monkeypatch):
    """As by evaluate.py, killed after 8 of 20 images: the same bits, and the partial result is gone at the end."""

    class Killed(BaseException):
        pass

    def keep(self, tensors, keep=Partial.keep):
        keep(self, tensors)
        if len(tensors["bounds"]) == 8:
            raise Killed

    monkeypatch.setattr(likelihood, "DECODED_ROWS", 20)  # four images at once
    asked = "evaluation.iwae.num_samples=5"
    expected = evaluate(run, asked)["iwae"]
    evaluate(run)
    before = snapshot(run)
    monkeypatch.setattr(partial, "SECONDS", 0.0)
    with monkeypatch.context() as killing:
        killing.setattr(Partial, "keep", keep)
        with pytest.raises(Killed):
            evaluate(run, asked)
    (left,) = (run / "partial").iterdir()
    assert snapshot(run).keys() - before.keys() == {"partial", f"partial/{left.name}"}
    kept = load_checkpoint(left)
    assert len(kept.tensors["bounds"]) == 8
    assert kept.meta["key"]["checkpoint"] == read_record(run / "results.json")["checkpoint"]
    # negative control: a value that was changed there (with its digest) comes out, so the file was read
    changed = kept.tensors | {"bounds": kept.tensors["bounds"] + 1}
    other = Path(shutil.copytree(run, run.parent / "other" / run.name))
    save_checkpoint(other / "partial" / left.name, changed, kept.meta)
    assert evaluate(run, asked)["iwae"] == expected
    assert not (run / "partial").exists()
    assert evaluate(other, asked)["iwae"]["iwae_5"] == pytest.approx(expected["iwae_5"] + 8 / 20, rel=1e-12)
    # another checkpoint's are not read
    of_another = {**kept.meta["key"], "checkpoint": {**kept.meta["key"]["checkpoint"], "sha256": "0" * 64}}
    evaluate(other)
    save_checkpoint(other / "partial" / left.name, changed, {"key": of_another})
    assert evaluate(other, asked)["iwae"] == expected


def test_only_what_other_settings_touch_is_new(run, monkeypatch):
    before = read_record(run / "results.json")
    monkeypatch.setattr(elbo, "measure_elbo", None)
    after = evaluate(run, "evaluation.iwae.num_samples=3")
    assert next(iter(after["iwae"])) == "iwae_3"
    assert {key: after[key] for key in ("test", "latent", "decomposition")} == {
        key: before[key] for key in ("test", "latent", "decomposition")
    }
    events = scalar_events(run)
    assert len(events["test/iwae_3"]) == len(events["test/neg_elbo"]) == 1
    assert "test/iwae_2" not in events  # another setting took its place


def test_a_number_with_an_older_name_is_read_under_its_present_one(run, monkeypatch):
    """In every place that reads results; nothing is measured again, and evaluate.py writes the present name."""
    before = snapshot(run)
    record = read_record(run / "results.json")
    now = [("total_correlation" if name == "gaussian_total_correlation" else name) for name in record["latent"]]
    old = dict(zip(now, record["latent"].values(), strict=True))
    write_record(run / "results.json", {**record, "latent": old})
    assert "gaussian_total_correlation" not in (run / "results.json").read_text()
    (found,) = find_runs(run)
    assert found.final_results() == record
    tags = read_run(found).scalars.keys()
    assert "latent/gaussian_total_correlation" in tags
    assert "latent/total_correlation" not in tags
    assert load_run(run, device="cpu").results == record
    assert verify(found, device="cpu").problems == []
    monkeypatch.setattr(latent, "latent_measures", None)  # calling it would raise
    assert evaluate(run) == record
    assert snapshot(run) == before
    # negative control: another name of an unknown number is not taken for it
    renamed = {("correlation" if name == "total_correlation" else name): value for name, value in old.items()}
    write_record(run / "results.json", {**record, "latent": renamed})
    with pytest.raises(TypeError):
        evaluate(run)


@pytest.mark.parametrize(
    ("block", "number", "again"),
    [
        ("latent", "aggregate_kl", True),
        ("decomposition", "tc_se", True),
        ("test", "objective_at_mean", True),
        ("iwae", "iwae_2", True),
        ("latent", "num_images", False),  # no column names it
    ],
)
def test_a_block_that_lacks_a_number_is_measured_again(block, number, again, run):
    """As an earlier version stored it; the other blocks are kept."""
    record = read_record(run / "results.json")
    whole = dict(record[block])
    for name in ("test", "iwae", "latent", "decomposition"):
        record[name]["kept"] = {"settings": {}}
    del record[block][number]
    write_record(run / "results.json", record)
    after = evaluate(run)
    assert (after[block] == whole) == again
    assert all("kept" in after[name] for name in ("test", "iwae", "latent", "decomposition") if name != block)


def test_a_smaller_request_takes_nothing_away(run):
    before = read_record(run / "results.json")
    after = evaluate(run, "evaluation=fast")
    assert {key: after[key] for key in ("test", "iwae", "latent", "decomposition")} == {
        key: before[key] for key in ("test", "iwae", "latent", "decomposition")
    }


@pytest.mark.parametrize(
    "field",
    [("checkpoint", "sha256"), ("config_sha256",), ("provenance", "data_sha256", "t10k-images-idx3-ubyte")],
)
def test_numbers_of_something_else_are_not_kept(field, run):
    """Of another checkpoint, config or dataset, each alone; with none of them changed they are."""
    record = read_record(run / "results.json")
    truth, record["test"]["recon"] = record["test"]["recon"], -1.0
    write_record(run / "results.json", record)
    assert evaluate(run)["test"]["recon"] == -1.0
    node = record
    for name in field[:-1]:
        node = node[name]
    node[field[-1]] = "0" * 64
    write_record(run / "results.json", record)
    assert evaluate(run)["test"]["recon"] == truth


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"test": {}, "content_sha256": "0"}'])
def test_damaged_results_are_measured_again(damage, run):
    before = (run / "results.json").read_bytes()
    (run / "results.json").write_bytes(damage)
    evaluate(run)
    assert (run / "results.json").read_bytes() == before


def test_a_missing_picture_is_drawn_again_and_another_choice_too(run):
    picture = run / "figures" / "samples.png"
    before = picture.read_bytes()
    picture.unlink()
    evaluate(run)
    assert picture.read_bytes() == before
    evaluate(run, "figures.only=[reconstructions,style_transfer]", "figures.gif=false")
    assert {path.name for path in picture.parent.iterdir()} == {
        "index.json",
        "samples.png",
        "reconstructions.png",
        "style_transfer.png",
    }


def test_provenance_says_block_by_block_where_a_number_comes_from(run):
    record = read_record(run / "results.json")
    for origin in record["provenance"]["evaluation"].values():
        origin["threads"] = 77
    write_record(run / "results.json", record)
    origins = evaluate(run, "evaluation.iwae.num_samples=3")["provenance"]["evaluation"]
    assert {name: origin["threads"] == 77 for name, origin in origins.items()} == {
        "test": True,
        "iwae": False,
        "latent": True,
        "decomposition": True,
        "samplers/gmm/bound": False,
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["figures.only=[mosaic]"], ["figures.only", "'mosaic'", "choose from"]),
        (["figures.traversal.dimensions=[12]"], ["figures.traversal.dimensions", "12", "z = 2"]),
        (["evaluation.fid.features=[inception]"], ["evaluation.fid.features", "'inception'", "resnet18, pixels"]),
        (["evaluation.fid.num_images=150"], ["evaluation.fid.num_images", "150", "more than"]),
        (["evaluation.fid.num_images=1000"], ["evaluation.fid.num_images", "1000", "holds 200"]),
        (["evaluation.extractor.weights=nowhere.pt"], ["nowhere.pt", "cannot be read"]),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_changes_nothing(overrides, words, run):
    before = snapshot(run)
    with pytest.raises(Exception) as caught:
        evaluate(run, *overrides)
    assert not [word for word in words if word not in str(caught.value)], caught.value
    assert snapshot(run) == before


def test_a_folder_of_runs_leaves_the_classifiers_out(run):
    other = run.with_name("resnet18-s0-00000000")
    other.mkdir()
    (other / "config.yaml").write_text("model: {_target_: fmvae.models.FashionResNet18}\ntrainer: {epochs: 1}\n")
    assert len(find_runs(run.parent)) == 2
    assert len(evaluate_runs(compose([f"run={run.parent}", *SMALL, *PICTURES], "evaluate"))) == 1
    with pytest.raises(ConfigError, match="classifier"):
        evaluate(other)


def test_a_run_that_cannot_be_measured_does_not_stop_the_others(run, caplog):
    """No file, or one that the system cannot read. Results that cannot be read are measured again."""
    unreadable, missing, broken = (run.with_name(f"{letter}-{run.name}") for letter in "abc")
    for copy in (unreadable, missing, broken):
        shutil.copytree(run, copy)
    for copy in (unreadable, missing):
        (copy / "checkpoints" / "best.safetensors").unlink()
    (unreadable / "checkpoints" / "best.safetensors").mkdir()
    (broken / "results.json").unlink()
    (broken / "results.json").mkdir()
    (run / "results.json").unlink()
    with pytest.raises(RunError, match="2 of 4 could not be measured"):
        evaluate(run.parent)
    for copy, problem in {unreadable: "Is a directory", missing: "there is no such checkpoint"}.items():
        assert f"{copy}/checkpoints/best.safetensors: {problem}; " in caplog.text
    assert (broken / "results.json").is_file()
    assert (run / "results.json").is_file()


def test_a_bug_in_one_run_is_shown_whole_and_stops_no_other(run, caplog, monkeypatch):
    shutil.copytree(run, other := run.with_name(f"a-{run.name}"))
    (run / "results.json").unlink()
    measure = measurement.measure

    def broken(directory, *arguments, **options):
        return 1 // 0 if directory.path == other else measure(directory, *arguments, **options)

    monkeypatch.setattr(measurement, "measure", broken)
    with pytest.raises(RunError, match=r"1 of 2 could not be measured \(.*a-"):
        evaluate(run.parent)
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text
    assert (run / "results.json").exists()


def test_damaged_results_are_moved_aside_not_lost(run, caplog):
    (run / "results.json").write_text('{"test": {"recon": 1.0}}')
    evaluate(run)
    assert (run / "results.json.old-1").read_text() == '{"test": {"recon": 1.0}}'
    assert "moved to results.json.old-1" in caplog.text


def test_a_killed_measurement_keeps_what_it_has_done(run, monkeypatch):
    (run / "results.json").unlink()
    monkeypatch.setattr(latent, "latent_measures", None)
    with pytest.raises(TypeError):
        evaluate(run)
    assert set(read_record(run / "results.json")["provenance"]["evaluation"]) == {"test", "iwae"}


def test_a_run_reached_by_a_link_is_the_same_run(run, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "one").symlink_to(run)
    (folder / "two").symlink_to(run)
    assert [found.path for found in find_runs(folder)] == [run.resolve()]


def test_what_an_earlier_version_asked_of_a_run_does_not_keep_it_from_being_measured(run):
    """Only what to measure is asked anew; a key of its identity is still looked at."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("    weights: sharp", "    weights: null\n    old_key: 1"))
    assert "old_key" in (run / "config.yaml").read_text()
    before = read_record(run / "results.json")
    assert evaluate(run) == before
    assert load_run(run, device="cpu").results == before
    (run / "config.yaml").write_text(text.replace("val_size: ", "val_size: x"))
    with pytest.raises(ConfigError, match=r"data\.val_size"):
        evaluate(run)


def test_load_run_opens_a_run_as_it_was_measured(run):
    loaded = load_run(run, device="cpu")
    assert loaded.results == read_record(run / "results.json")
    measured = loaded.parts.evaluator.compute("test")
    assert measured["neg_elbo"] == loaded.results["test"]["neg_elbo"]
    assert loaded.parts.visualizer.name.endswith("epoch 1")
    assert not loaded.parts.model.training
    assert not loaded.parts.objective.training
    with pytest.raises(RunError, match=r"results\.last\.json"):
        load_run(run, "last")
    record = read_record(run / "results.json")
    record["checkpoint"]["sha256"] = "0" * 64
    write_record(run / "results.json", record)
    with pytest.raises(RunError, match="not of its best checkpoint"):
        load_run(run)


def test_scalars_are_named_by_split_and_quantity_and_leave_lists_and_counts_out():
    results = {
        "test": {"recon": 1.5, "num_images": 3, "settings": {"x": 1.0}},
        "iwae": {"iwae_64": 2.5},
        "latent": {"active_units": 4, "kl_per_dimension": [1.0]},
        "fid": {"pixels": {"generation": 3.5, "reference": "test", "per_class": {"Bag": {"generation": 1.0}}}},
        "accuracy": {"generated": {"overall": 0.5, "confusion": [[1]]}},
        "provenance": {"threads": 1},
    }
    assert flat_scalars(json.loads(json.dumps(results))) == {
        "test/recon": 1.5,
        "test/iwae_64": 2.5,
        "latent/active_units": 4,
        "fid/pixels/generation": 3.5,
        "accuracy/generated/overall": 0.5,
    }


def test_several_workers_measure_what_one_does(run, caplog):
    """Each run once, the damaged one told of."""
    expected = read_record(run / "results.json")["test"]
    copies = [run.with_name(f"{name}-{run.name}") for name in "ab"]
    for copy in copies:
        shutil.copytree(run, copy)
    for directory in (run, *copies):
        (directory / "results.json").unlink()
    (copies[0] / "checkpoints" / "best.safetensors").write_bytes(b"")
    settings = compose([f"run={run.parent}", "workers=2", "threads=1", *SMALL, *PICTURES], "evaluate")
    with pytest.raises(RunError, match=r"1 of 3 could not be measured \(.*a-conditional"):
        evaluate_runs(settings)
    for directory in (run, copies[1]):
        assert read_record(directory / "results.json")["test"] == expected
    assert "best.safetensors" in caplog.text


# --- features of a classifier ---------------------------------------------------------------------------------

# by its file, as these are other images than it knows
JUDGED = [f"evaluation.accuracy.weights={SHIPPED['blurred']}", "evaluation.accuracy.num_per_class=2"]
AUTO = [*JUDGED, "evaluation.extractor.precision=auto"]
CHECK = {"change": 1e-4, "standard_error": 1.0, "num_images": 600}


@pytest.fixture
def bf16_passes(monkeypatch) -> None:
    """The dataset is too small to tell; and this processor may have no units."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(AutoFeatures, "_num_checked", 600)
    monkeypatch.setattr(AutoFeatures, "_compared", lambda *_: dict(CHECK))


@pytest.fixture
def loads(monkeypatch) -> list[Any]:
    """What is loaded, in order, by a process that has loaded nothing yet."""
    seen: list[Any] = []
    features._network.cache_clear()
    monkeypatch.setattr(
        features, "load_classifier", lambda *given: seen.append(given[0]) or load_classifier(*given)
    )
    return seen


def test_bf16_that_was_chosen_is_what_verify_computes_with(run, bf16_passes, monkeypatch):
    """On a machine that would not choose it, too; and that it was chosen changes no number."""
    accuracy = evaluate(run, *AUTO)["accuracy"]
    assert accuracy["settings"]["precision"] == "bf16"
    assert accuracy["precision_check"]["change"] == CHECK["change"]
    before = snapshot(run)
    evaluate(run, *AUTO)
    assert snapshot(run) == before
    assert not [tag for tag in scalar_events(run) if "check" in tag]

    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    found = verify(find_runs(run)[0], device="cpu")
    assert found.problems == []
    assert "accuracy" in found.measures
    record = read_record(run / "results.json")
    record["accuracy"]["real"]["overall"] += 1e-9
    write_record(run / "results.json", record)
    (problem,) = verify(find_runs(run)[0], device="cpu").problems
    assert problem.startswith("accuracy/real.overall: ")


@pytest.mark.slow
def test_where_bf16_is_not_chosen_its_numbers_are_not_kept(run, bf16_passes, monkeypatch):
    assert evaluate(run, *AUTO)["accuracy"]["settings"]["precision"] == "bf16"
    monkeypatch.setattr(AutoFeatures, "_compared", lambda *_: CHECK | {"change": 10.0})
    accuracy = evaluate(run, *AUTO)["accuracy"]
    assert accuracy["settings"]["precision"] == "fp32"
    assert "precision_check" not in accuracy
    assert accuracy == evaluate(run, *JUDGED, "force=true")["accuracy"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "control"])
def test_runs_that_are_measured_together_load_a_classifier_once(shared, run, loads, monkeypatch):
    if not shared:
        monkeypatch.setattr(features, "_network", features._network.__wrapped__)
    shutil.copytree(run, run.with_name(f"a-{run.name}"))
    settings = compose([f"run={run.parent}", *SMALL, *PICTURES, *JUDGED], "evaluate")
    assert len(evaluate_runs(settings)) == 2
    assert len(set(loads)) == 1
    assert (len(loads) == 1) == shared
