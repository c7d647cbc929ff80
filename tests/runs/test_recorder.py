"""fmvae.runs.recorder: TensorBoard reads back what was recorded, once, and as one run."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch.utils.tensorboard
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer import event_file_writer

from fmvae.runs import events as events_module
from fmvae.runs import recorder as recorder_module
from fmvae.runs.directory import RunDirectory
from fmvae.runs.events import FinalEvents, make_earlier
from fmvae.runs.recorder import Recorder, pixels, render

METRICS = ("test/objective", "test/recon", "test/kl", "test/neg_elbo")
HPARAMS = {"model": "base", "beta": 0.5, "latent_dim": 2, "seed": 0}
CONFIG = "seed: 0\nmodel:\n  _name_: base\n"
TEXT = b"    seed: 0\n    model:\n      _name_: base"  # four spaces: a block of code


def rows(*epochs: int) -> list[dict[str, float]]:
    return [{"epoch": n, "beta": 0.5, "train/kl": 1 / n, "val/objective": 250.0 / n} for n in epochs]


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def record(run: RunDirectory, epoch: int, history: Sequence[dict[str, float]], close: bool = True) -> Recorder:
    """What a process records that starts after ``epoch`` and ends with ``history``."""
    recorder = Recorder(run, epoch, CONFIG, HPARAMS, METRICS)
    for row in history[epoch:]:
        recorder.on_epoch_end(SimpleNamespace(history=history[: int(row["epoch"])]), row)
    if close:
        recorder.close(complete=True)
    return recorder


def killed(run: RunDirectory, epoch: int, history: Sequence[dict[str, float]], order: int = 1) -> None:
    """The same, without an end; its events are named as those of an earlier process are."""
    record(run, epoch, history, close=False).writer.flush()
    (newest,) = (path for path in event_files(run) if "killed" not in path.name)
    newest.rename(run.path / f"events.out.tfevents.{order:010d}.killed")


def event_files(run: RunDirectory) -> list[Path]:
    return sorted(run.path.rglob("*tfevents*"))


def events(run: RunDirectory) -> EventAccumulator:
    return EventAccumulator(str(run.path), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalar(run: RunDirectory, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(tag)]


def picture(shade: float = 0.5) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().imshow(np.linspace(0, shade, 12).reshape(3, 4), vmin=0, vmax=1)
    return figure


# --- TensorBoard ---------------------------------------------------------------------------------------------


def test_scalars_read_back_with_tag_step_and_value(run):
    history = rows(1, 2, 3)
    record(run, 0, history)
    tags = {"schedule/beta": "beta", "Train/kl": "train/kl", "Val/objective": "val/objective"}  # epochs are steps
    assert set(events(run).Tags()["scalars"]) == set(tags)
    for tag, key in tags.items():
        assert scalar(run, tag) == [(row["epoch"], pytest.approx(row[key], rel=1e-6)) for row in history]


def test_an_epoch_can_be_seen_before_the_run_ends(run):
    record(run, 0, rows(1), close=False)
    assert [step for step, _ in scalar(run, "Train/kl")] == [1]


def test_the_config_is_shown_as_a_block_of_code(run):
    record(run, 0, rows(1))
    (event,) = events(run).Tensors("config/text_summary")
    assert event.tensor_proto.string_val == [TEXT]


def test_hparams_live_in_the_runs_own_file(run):
    record(run, 0, rows(1))
    assert [path.parent for path in event_files(run)] == [run.path]
    content = events(run).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    shown = {name: value.WhichOneof("kind") for name, value in start.hparams.items()}
    assert set(shown) == set(HPARAMS)
    assert start.hparams["beta"].number_value == 0.5
    assert start.hparams["model"].string_value == "base"
    experiment = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert {info.name.tag for info in experiment.metric_infos} == set(METRICS)
    assert {info.name for info in experiment.hparam_infos} == set(HPARAMS)


def test_without_a_list_of_metrics_no_experiment_is_defined_that_could_hide_those_of_others(run):
    Recorder(run, 0, CONFIG, HPARAMS).close(complete=True)
    assert set(events(run).PluginTagToContent("hparams")) == {
        metadata.SESSION_START_INFO_TAG,
        metadata.SESSION_END_INFO_TAG,
    }


def test_add_hparams_would_make_a_second_run(run):
    recorder = record(run, 0, rows(1), close=False)
    recorder.writer.add_hparams(HPARAMS, {"test/kl": 1.0})
    recorder.close(complete=True)
    assert {path.parent for path in event_files(run)} != {run.path}


@pytest.mark.parametrize("complete", [True, False])
def test_only_a_complete_run_is_marked_as_ended(complete, run):
    recorder = record(run, 0, rows(1), close=False)
    assert metadata.SESSION_END_INFO_TAG not in events(run).PluginTagToContent("hparams")
    recorder.close(complete=complete)
    content = events(run).PluginTagToContent("hparams")
    assert metadata.SESSION_START_INFO_TAG in content
    assert (metadata.SESSION_END_INFO_TAG in content) == complete


def test_final_numbers_join_the_epochs(run):
    recorder = record(run, 0, rows(1, 2), close=False)
    recorder.album.show({"test/kl": 6.5, "fid/pixels/floor": 0.25}, 2)
    recorder.close(complete=True)
    assert scalar(run, "test/kl") == [(2, 6.5)]
    assert scalar(run, "fid/pixels/floor") == [(2, 0.25)]


# --- resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_a_resumed_run_shows_every_epoch_once(epoch, run):
    """The killed process recorded epoch 3, but its newest checkpoint may be an older one."""
    killed(run, 0, rows(1, 2, 3))
    record(run, epoch, rows(1, 2, 3, 4))
    for tag in ("Train/kl", "Val/objective"):
        assert [step for step, _ in scalar(run, tag)] == [1, 2, 3, 4]
    assert {text.tensor_proto.string_val[0] for text in events(run).Tensors("config/text_summary")} == {TEXT}
    assert {path.parent for path in event_files(run)} == {run.path}


def test_a_run_killed_twice_shows_every_epoch_once(run):
    killed(run, 0, rows(1, 2, 3), order=1)
    killed(run, 2, rows(1, 2, 3, 4), order=2)
    record(run, 3, rows(1, 2, 3, 4, 5))
    assert [step for step, _ in scalar(run, "Train/kl")] == [1, 2, 3, 4, 5]


def test_a_run_that_an_earlier_version_began_keeps_the_names_of_its_curves(run, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr("fmvae.runs.recorder.CURVES", {})
        killed(run, 0, rows(1, 2))
    record(run, 2, rows(1, 2, 3))
    assert [step for step, _ in scalar(run, "train/kl")] == [1, 2, 3]
    assert "Train/kl" not in events(run).Tags()["scalars"]


@pytest.mark.parametrize("epoch", [0, 2])
def test_without_a_purge_the_killed_epochs_would_show_twice(epoch, run, monkeypatch):
    killed(run, 0, rows(1, 2, 3))
    writer = torch.utils.tensorboard.SummaryWriter
    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", lambda path, purge_step: writer(path))
    record(run, epoch, rows(1, 2, 3, 4))
    steps = [step for step, _ in scalar(run, "Train/kl")]
    assert len(steps) > len(set(steps))


# names of a killed process's events that come after those of the next one, as text
LATER = {
    "in the same second": lambda name: name.replace(
        name.rpartition(".")[2], "9"
    ),  # and the next one's counter: 10
    "before the clock was set back": lambda name: name.replace(
        name.split(".")[3], f"{int(name.split('.')[3]) + 3600}"
    ),
}


def resumed_after(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, cause: str, then: int
) -> list[tuple[int, float]]:
    """Killed after epoch 2, resumed after epoch ``then``; both at the same time by the clock."""
    clock, counter = SimpleNamespace(time=lambda: 1.8e9), SimpleNamespace(get=lambda: 10)
    for module in (event_file_writer, recorder_module, events_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)
    record(run, 0, rows(1, 2), close=False).writer.flush()
    (file,) = event_files(run)
    file.rename(file.with_name(LATER[cause](file.name)))
    recorder = record(run, then, rows(1, 2, 3), close=False)
    recorder.album.show({"test/kl": 6.5}, 3)
    recorder.close(complete=True)
    return [(event.step, event.value) for tag in ("Train/kl", "test/kl") for event in events(run).Scalars(tag)]


@pytest.mark.parametrize("then", [1, 2])
@pytest.mark.parametrize("cause", LATER)
def test_a_resumed_run_is_read_after_what_it_continues(cause, then, run, monkeypatch):
    shown = resumed_after(run, monkeypatch, cause, then)
    assert [step for step, _ in shown] == [1, 2, 3, 3]


@pytest.mark.parametrize("cause", LATER)
def test_negative_control_with_the_names_as_they_were_epochs_are_lost(cause, run, monkeypatch):
    monkeypatch.setattr(recorder_module, "make_earlier", lambda *_: None)
    monkeypatch.setattr(events_module, "make_earlier", lambda *_: None)
    shown = resumed_after(run, monkeypatch, cause, 1)
    assert [step for step, _ in shown] != [1, 2, 3, 3]


@pytest.mark.parametrize(
    "seconds",
    [
        [5, 6, 7],
        [50, 99, 500],
        [98, 99, 100],
        [100, 100, 100],
        [99, 4102444800],
        [101],
        [3, 2000, 2001, 2002, 9**9],
    ],
)
@pytest.mark.parametrize("now", [102, 100, 2])
def test_files_are_made_earlier_in_their_order_and_none_is_lost(seconds, now, tmp_path):
    """Also where host, process and counter are equal, as in containers; a clock at 1970 loses only their order."""
    names = [f"events.out.tfevents.{then:010d}.host.1.{seconds[:i].count(then)}" for i, then in enumerate(seconds)]
    for i, name in enumerate(names):
        (tmp_path / name).write_text(str(i))
    make_earlier(tmp_path, now)
    found = sorted(tmp_path.iterdir())
    assert sorted(file.read_text() for file in found) == sorted(map(str, range(len(names))))
    if now > len(seconds):
        assert [file.read_text() for file in found] == [str(i) for i in range(len(names))]
        assert all(int(file.name.split(".")[3]) < now for file in found)
    if max(seconds) < now:
        assert [file.name for file in found] == names  # nothing to do


@pytest.mark.parametrize("ahead", [0, 3600])
def test_final_numbers_follow_a_training_that_began_by_a_later_clock(ahead, run, monkeypatch):
    record(run, 0, rows(1))
    (file,) = event_files(run)
    now = int(file.name.split(".")[3])
    file.rename(file.with_name(file.name.replace(str(now), str(now + ahead))))
    final = FinalEvents(run.path)
    final.scalars({"test/kl": 6.5})
    final.write(1)
    assert [path.name.endswith(".final") for path in event_files(run)] == [False, True]
    assert scalar(run, "test/kl") == [(1, 6.5)]


# --- metrics.jsonl ---------------------------------------------------------------------------------------------


def test_metrics_hold_the_history_to_the_last_digit(run):
    history = rows(1, 2, 3)
    record(run, 0, history)
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == history


def test_metrics_are_written_whole_at_every_epoch(run):
    recorder, history = Recorder(run, 0, CONFIG, HPARAMS, METRICS), rows(1, 2, 3)
    for n, row in enumerate(history, 1):
        recorder.on_epoch_end(SimpleNamespace(history=history[:n]), row)
        assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == history[:n]
    recorder.close(complete=True)


def test_metrics_of_a_resumed_run_equal_those_of_an_undisturbed_one(run, tmp_path):
    history, other = rows(1, 2, 3, 4), RunDirectory(tmp_path / "undisturbed")
    killed(run, 0, history[:3])
    record(run, 2, history)
    record(other, 0, history)
    assert run.metrics.read_bytes() == other.metrics.read_bytes()


def test_a_number_that_json_cannot_say_keeps_the_old_metrics(run):
    recorder = record(run, 0, rows(1), close=False)
    with pytest.raises(ValueError):
        recorder.write_history([{"epoch": 1, "val/kl": float("nan")}])
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == rows(1)
    recorder.close(complete=False)


# --- figures ---------------------------------------------------------------------------------------------------


def shown_images(run: RunDirectory, tag: str) -> list[tuple[int, np.ndarray]]:
    return [(e.step, pixels(e.encoded_image_string)) for e in events(run).Images(tag)]


def test_the_png_and_the_tensorboard_image_are_the_same_pixels(run):
    recorder = Recorder(run, 0, CONFIG, HPARAMS, METRICS)
    recorder.album.figure("samples", picture())
    recorder.album.show({}, 4)
    recorder.close(complete=True)
    ((step, shown),) = shown_images(run, "figures/samples")
    saved = pixels((run.figures / "samples.png").read_bytes())
    assert step == 4
    assert saved.dtype == np.uint8
    assert saved.shape == (110, 220, 3)
    assert np.array_equal(shown, saved)
    assert not np.array_equal(saved, pixels(render(picture(0.6))))  # and not blank: another figure differs


def test_a_figure_of_an_epoch_is_shown_but_not_saved(run):
    recorder = Recorder(run, 0, CONFIG, HPARAMS, METRICS)
    recorder.glance("samples", picture(), 1)
    recorder.close(complete=True)
    assert len(shown_images(run, "training/samples")) == 1
    assert not run.figures.exists()


def test_the_same_figure_is_the_same_file():
    assert render(picture()) == render(picture())
