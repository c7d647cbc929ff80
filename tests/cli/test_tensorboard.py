"""A sweep in TensorBoard: one run per directory, one HParams row each, and no number twice, whatever happened.

Every guarantee is asked of TensorBoard itself, by both of its loaders, and of sweeps where it is broken.
"""

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fmvae.config import compose
from fmvae.experiments import train
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.runs import hparams as hparam_settings
from fmvae.runs.directory import RunDirectory, find_runs
from fmvae.runs.events import PREFIX
from fmvae.runs.files import read_record
from fmvae.runs.recorder import Recorder
from tests.cli.tensorboard import TensorBoard
from tests.idx import write_idx_dataset

EPOCHS = 3
NAMES = ("complete", "evaluated", "resumed", "measured_twice", "killed", "failed")  # by seed
FINISHED = NAMES[:4]
PICTURES = ["figures.only=[samples,kl_per_dimension]", "figures.num_samples=4", "figures.gif=false"]
SMALL = ["evaluation.iwae.num_samples=2", "evaluation.iwae.num_images=20", "evaluation.cache=null"]


class Killed(BaseException):
    """Ends a run in the middle; its events are as far as they were flushed."""


def at_epoch(last: int, error: BaseException) -> Callable[[pytest.MonkeyPatch], None]:
    """A run that ends when an epoch is recorded, and not yet in a checkpoint."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        record = Recorder.on_epoch_end

        def on_epoch_end(self, trainer, row):
            record(self, trainer, row)
            if row["epoch"] == last:
                raise error

        monkeypatch.setattr(Recorder, "on_epoch_end", on_epoch_end)

    return patch


def when_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends with everything measured and shown, before it says that it is complete."""

    def write_status(self, state, **details):
        if state == "complete":
            raise Killed
        write(self, state, **details)

    write = RunDirectory.write_status
    monkeypatch.setattr(RunDirectory, "write_status", write_status)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A folder of runs, each with its own past. Not to be changed."""
    root = tmp_path_factory.mktemp("tensorboard")
    digests = ",".join(f"{name}:'{sha}'" for name, sha in write_idx_dataset(root / "data", 400, 200).items())
    settings = [
        f"data.root={root}/data",
        f"data.sha256={{{digests}}}",
        "data.download=false",
        "data.val_size=50",
        "model.hidden_dim=16",
        "trainer.epochs=3",
        "evaluation=fast",
        "figures.every=1",
        "figures.projector=30",
        "device=cpu",
        *PICTURES,
        f"output_root={root}/outputs",
        "sweep_name=sweep",
    ]

    def run(name: str, *overrides: str) -> None:
        train(compose([*settings, f"seed={NAMES.index(name)}", *overrides]))

    def ended(name: str, patch: Callable[[pytest.MonkeyPatch], None], error: type[BaseException]) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            patch(monkeypatch)
            with pytest.raises(error):
                run(name)

    run("complete")
    run("complete", "restart=true")
    ended("resumed", at_epoch(2, Killed()), Killed)
    run("resumed")
    ended("measured_twice", when_measured, Killed)
    run("measured_twice")
    ended("killed", at_epoch(2, Killed()), Killed)
    ended("failed", at_epoch(2, RuntimeError("broken")), RuntimeError)
    run("evaluated")
    outputs = root / "outputs" / "sweep"
    for force in ("false", "true"):
        evaluate_runs(
            compose([f"run={found(outputs, 'evaluated')}", *SMALL, *PICTURES, f"force={force}"], "evaluate")
        )
    return outputs


def found(sweep: Path, name: str) -> Path:
    """A run's directory."""
    (path,) = (run.path for run in find_runs(sweep) if f"-s{NAMES.index(name)}-" in run.path.name)
    return path


def titles(layout: Mapping) -> list[str]:
    return [
        f"{category['title']}/{chart['title']}" for category in layout["category"] for chart in category["chart"]
    ]


@pytest.fixture(scope="module", params=["python", "data_server"])
def board(request, sweep) -> TensorBoard:
    if request.param == "data_server" and not importlib.util.find_spec("tensorboard_data_server"):
        pytest.skip("TensorBoard has no data server here")
    return TensorBoard(sweep, fast=request.param == "data_server")


@pytest.fixture
def copied(sweep, tmp_path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_every_run_directory_is_one_run_and_nothing_else_is(board, sweep):
    assert len(list(sweep.glob("*.old-1"))) == 1
    assert (sweep / ".locks").is_dir()
    assert board.runs() == sorted(found(sweep, name).name for name in NAMES)


def test_negative_control_a_ghost_run_and_one_moved_aside_would_show(copied):
    with SummaryWriter(str(found(copied, "complete"))) as writer:
        writer.add_hparams({"beta": 1.0}, {"test/kl": 1.0})
    (aside,) = copied.glob("*.old-1")
    for file in aside.glob("events.*"):
        file.rename(file.with_name(file.name.replace("hidden", "tfevents")))
    assert len(TensorBoard(copied).runs()) == len(NAMES) + 2


def test_no_tag_shows_a_step_twice(board):
    assert board.repeated() == []


def test_negative_control_a_number_appended_again_would_show_twice(copied):
    run = found(copied, "complete")
    with SummaryWriter(str(run)) as writer:
        writer.add_scalar("test/kl", 1.0, EPOCHS)
    assert board_repeats(copied) == [(run.name, "test/kl")]


def board_repeats(folder: Path) -> list[tuple[str, str]]:
    return [(run, tag) for run, tag, _ in TensorBoard(folder).repeated()]


@pytest.mark.parametrize("name", NAMES)
def test_every_epoch_is_there_once(name, board, sweep):
    run = found(sweep, name).name
    epochs = list(range(1, EPOCHS + 1 if name in FINISHED else 3))
    for tag in ("Train/objective", "Val/recon", "Val/kl", "schedule/beta", "schedule/lr"):
        assert [step for step, _ in board.scalar(run, tag)] == epochs


@pytest.mark.parametrize("name", FINISHED)
def test_the_final_numbers_are_those_of_the_results_at_their_checkpoints_epoch(name, board, sweep):
    results = read_record(found(sweep, name) / "results.json")
    step = results["checkpoint"]["epoch"]
    for tag in ("objective", "recon", "kl", "neg_elbo"):
        ((shown_at, value),) = board.scalar(found(sweep, name).name, f"test/{tag}")
        assert (shown_at, value) == (step, pytest.approx(results["test"][tag], rel=1e-6))


def test_hparams_have_a_row_per_run_that_says_whether_it_is_complete(board, sweep):
    rows = board.sessions()
    status = {name: rows[found(sweep, name).name]["status"] for name in NAMES}
    assert len(rows) == len(NAMES)
    assert status == {name: "STATUS_SUCCESS" if name in FINISHED else "STATUS_UNKNOWN" for name in NAMES}
    assert [rows[found(sweep, name).name]["hparams"]["seed"] for name in NAMES] == list(range(len(NAMES)))
    assert all("test/neg_elbo" in rows[found(sweep, name).name]["metrics"] for name in FINISHED)
    assert not any(rows[found(sweep, name).name]["metrics"] for name in ("killed", "failed"))


def test_negative_control_a_killed_run_with_an_end_would_count_as_complete(copied):
    run = found(copied, "killed")
    with SummaryWriter(str(run)) as writer:
        writer.file_writer.add_summary(hparams({}, {})[2])  # type: ignore[union-attr]
    assert TensorBoard(copied).sessions()[run.name]["status"] == "STATUS_SUCCESS"


def test_hparams_show_what_was_measured_afterwards(board, sweep):
    run = found(sweep, "evaluated")
    metrics, results = board.sessions()[run.name]["metrics"], read_record(run / "results.json")
    assert metrics["latent/active_units"] == results["latent"]["active_units"]
    # K = 2 is not the usual one, so it has no column; nothing else is lost
    assert board.scalar(run.name, "test/iwae_2")
    columns = {metric["name"]["tag"] for metric in experiment(board)["metricInfos"]}
    measured = {"test/iwae_64", "fid/resnet18/generation", "fid/pixels/generation", "accuracy/generated/overall"}
    assert measured | {"test/objective", "test/recon", "test/kl", "test/neg_elbo"} <= columns


def experiment(board: TensorBoard) -> dict:
    return board.post("plugin/hparams/experiment", experimentName="")


def test_hparams_show_the_settings_of_a_sweep_first(board):
    first = [hparam["name"] for hparam in experiment(board)["hparamInfos"]][:5]
    assert first == ["beta", "beta_schedule", "latent_dim", "model", "seed"]


@pytest.mark.slow
def test_hparams_show_every_key_in_which_the_runs_of_a_folder_differ(copied):
    """Whichever run TensorBoard finds first, and on the columns that it shows for the folder."""
    given = ["model=conv", "loss=beta_tcvae", "trainer.patience=3", "trainer.precision=bf16", "data.num_train=77"]
    settings = hparam_settings.hparams(compose(given), 64)
    first = hparam_settings.first(["data.num_train=77"], settings)
    other, others = RunDirectory(copied / "zz"), hparam_settings.others()
    Recorder(other, 0, "", settings, ("test/kl",), other_hparams=others, first=first).close(complete=True)
    for aside in ("zz", "aa"):  # the last, and the first
        other.path.rename(copied / aside)
        other = RunDirectory(copied / aside)
        shown = TensorBoard(copied)
        columns = [hparam["name"] for hparam in experiment(shown)["hparamInfos"]]
        row = shown.sessions()[aside]["hparams"]
        rest = shown.sessions()[found(copied, "complete").name]["hparams"]
        differ = {key for key in {**row, **rest} if row.get(key) != rest.get(key)}
        assert {"model", "loss", "loss.estimate", "trainer.patience", "trainer.precision", "batch_size"} <= differ
        assert differ <= set(columns)
        assert (row["trainer.patience"], rest["trainer.patience"]) == ("3", "null")
        assert (row["data.num_train"], rest["data.num_train"]) == ("77", "null")
        assert row["data.sha256"] == "null"
        assert len(rest["data.sha256"]) == 64  # one column for its own four files
        assert len(columns) == len(set(columns)) <= 90
    alone = [hparam["name"] for hparam in experiment(TensorBoard(other.path))["hparamInfos"]]
    assert "data.num_train" in alone[:5]  # what the command line gave is shown by default
    # the control: with the keys of each run alone, those of the others have no column
    for name in ("aa", *(path.name for path in copied.glob("*-s*") if not path.name.endswith("old-1"))):
        for file in (copied / name).glob("events*"):
            file.unlink()
    for name, settings in (("aa", rest), ("zz", row)):
        Recorder(RunDirectory(copied / name), 0, "", settings, ("test/kl",)).close(complete=True)
    assert not differ <= {hparam["name"] for hparam in experiment(TensorBoard(copied))["hparamInfos"]}


def test_curves_come_before_all_other_groups(board, sweep):
    run = found(sweep, "evaluated").name
    tags = board.tags("scalars")[run] | board.tags("images")[run]
    groups = sorted({tag.partition("/")[0] for tag in tags})  # by code point, as TensorBoard's pages sort them
    assert groups[:2] == ["Train", "Val"]
    assert sorted(group.lower() for group in groups)[:2] != ["train", "val"]  # the control: what they were before


def test_a_run_names_the_pages_that_belong_to_it(board, sweep):
    run = found(sweep, "complete").name
    (text,) = board.get("plugin/text/text", run=run, tag="pages/text_summary")
    assert "explorer.html" in text["text"]
    assert "../report/index.html" in text["text"]


def test_the_custom_scalars_are_one_layout_whose_charts_all_find_their_tags(board, sweep):
    layout = board.get("plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["training", "schedule", "test"]
    assert len(set(titles(layout))) == len(titles(layout))
    run = found(sweep, "evaluated").name
    shown = {
        f"{category['title']}/{chart['title']}": {
            tag
            for pattern in chart["multiline"]["tag"]
            for tag in board.get("plugin/custom_scalars/scalars", run=run, tag=pattern)["tag_to_events"]
        }
        for category in layout["category"]
        for chart in category["chart"]
    }
    for title, quantity in (("objective", "objective"), ("reconstruction", "recon"), ("KL", "kl")):
        assert shown[f"training/{title}"] == {f"Train/{quantity}", f"Val/{quantity}"}
    assert shown["schedule/beta"] == {"schedule/beta"}
    # no distances of data this small, and no factors
    assert {title for title, tags in shown.items() if not tags} == {
        "test/FID of samples",
        "test/FID of reconstructions",
        "test/disentanglement",
        *(f"test/FID of samples, by sampler ({features})" for features in ("resnet18", "pixels")),
    }


def test_negative_control_another_layout_of_a_run_would_show_a_chart_twice(copied):
    run = RunDirectory(copied / "other")
    Recorder(run, 0, "", {"seed": 9}, (), {"training": {"KL": ["train/kl$"]}}).close(complete=False)
    shown = titles(TensorBoard(copied).get("plugin/custom_scalars/layout"))
    assert shown.count("training/KL") == 2


def test_pictures_of_every_epoch_and_final_ones(board, sweep):
    """The last epoch's are the final ones."""
    tags = board.tags("images")
    for name in FINISHED:
        run = found(sweep, name)
        step = read_record(run / "results.json")["checkpoint"]["epoch"]
        assert tags[run.name] >= {"figures/samples", "figures/kl_per_dimension", "training/samples"}
        assert board.image_steps(run.name, "figures/samples") == [step]
        assert board.image_steps(run.name, "training/samples") == list(range(1, EPOCHS))


def test_the_projector_has_the_images_and_classes_of_every_finished_run(board, sweep):
    names = sorted(found(sweep, name).name for name in FINISHED)
    assert sorted(board.get("plugin/projector/runs")) == names
    for run in names:
        (tensor,) = board.get("plugin/projector/info", run=run)["embeddings"]
        name = tensor["tensorName"]
        assert tensor["sprite"]["singleImageDim"] == [28, 28]
        metadata = board.client.get("/data/plugin/projector/metadata", query_string={"run": run, "name": name})
        assert metadata.text.splitlines()[0] == "class\tindex"
        assert len(metadata.text.splitlines()) == 1 + (200 if run == found(sweep, "evaluated").name else 30)
        sprite = board.client.get("/data/plugin/projector/sprite_image", query_string={"run": run, "name": name})
        assert sprite.data.startswith(b"\x89PNG")


def test_what_was_recorded_before_is_hidden_but_kept(sweep):
    (aside,) = sweep.glob("*.old-1")
    assert not list(aside.glob(f"{PREFIX}*"))
    assert len(list(aside.glob("events.out.hidden.*"))) == 2
