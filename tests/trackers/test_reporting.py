"""What a tracker gets of a run, and that it costs a run nothing: no bit, no failure and little time."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError
from fmvae.experiments import train
from fmvae.runs import tracking
from fmvae.runs.recorder import by_tag
from fmvae.runs.results import flat_scalars, read_results
from fmvae.runs.tracking import FILE, Reporter, Tracked
from fmvae.training import EpochLog
from tests.trackers.recording import TARGET, Recorded, recorded  # noqa: F401 (a fixture)


def run_of(config: dict[str, Any]) -> Path:
    return Path(config["output_root"], config["sweep_name"] or "", RunIdentity.of(config).name)


def weights_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "checkpoints").iterdir())}


@pytest.fixture
def plain(config, tmp_path) -> dict[str, bytes]:
    """The checkpoints of a run without a tracker, by name."""
    made = config("trainer.epochs=2", output_root=tmp_path / "plain")
    train(made)
    return weights_of(run_of(made))


def test_a_tracker_leaves_no_trace_in_name_and_identity(config):
    names = [RunIdentity.of(config(*o)) for o in ([], ["tracker=mlflow"], ["tracker=wandb", "tracker.project=a"])]
    assert len({identity.name for identity in names}) == len({identity.sha256 for identity in names}) == 1
    assert all("tracker" not in identity.semantic for identity in names)


def test_a_tracker_gets_what_tensorboard_gets_and_no_bit_changes(config, plain, recorded):  # noqa: F811
    made = config("trainer.epochs=2", TARGET, "figures=default", "figures.every=1", "figures.only=[samples]")
    train(made)
    run = run_of(made)
    assert weights_of(run) == plain
    assert recorded.calls[0][0] == "begin"
    ((_, begun),) = recorded.of("begin")
    assert (begun.name, begun.id, begun.parent, begun.sweep) == (run.name, None, None, None)
    assert (begun.path, begun.home) == (run, run.parent)
    assert begun.settings["latent_dim"] == 2
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    results = read_results(run / "results.json")
    final = (results["checkpoint"]["epoch"], flat_scalars(results))
    assert [call[1:] for call in recorded.of("scalars")] == [(1, by_tag(rows[0])), (2, by_tag(rows[1])), final]
    assert {call[1:] for call in recorded.of("picture")} == {
        ("reconstructions", 1, b"\x89PNG"),
        ("samples", 1, b"\x89PNG"),
    }
    files = {name: content for _, name, content in recorded.of("file")}
    assert set(files) == {"config.yaml", "results.json", "figures/samples.png"}
    assert all(content == (run / name).read_bytes() for name, content in files.items())
    assert [call[1:] for call in recorded.of("end")] == [("complete",)]


@pytest.mark.parametrize("method", ["begin", "scalars", "file", "end"])
@pytest.mark.one_in(2)
def test_a_tracker_that_fails_costs_one_warning(config, plain, recorded, caplog, method):  # noqa: F811
    made = config("trainer.epochs=2", TARGET, f"+tracker.fails={method}")
    with caplog.at_level(logging.WARNING, "fmvae"):
        train(made)
    run = run_of(made)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith(f"{run.name}: the tracker fmvae.trackers.Recorded failed")
    assert "No space left on device" in warning
    assert weights_of(run) == plain
    assert json.loads((run / "status.json").read_bytes())["state"] == "complete"
    assert len(recorded.of(method)) == 1  # it was not asked again
    assert warning in (run / "train.log").read_text()


def test_a_tracker_that_hangs_is_left_alone(config, plain, recorded, caplog, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tracking.Reporter.close, "__defaults__", (0.5,))
    made = config("trainer.epochs=2", TARGET, "+tracker.hangs=begin")
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "fmvae"):
        train(made)
    assert time.monotonic() - begun < 30  # the tracker would take 60
    assert [r.getMessage() for r in caplog.records if "no answer for 0." in r.getMessage()]
    assert weights_of(run_of(made)) == plain


def interrupt_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let Ctrl-C come after an epoch, before its checkpoint is saved: it is trained again."""
    usual = EpochLog.on_epoch_end

    def stop(self, trainer, row):
        usual(self, trainer, row)
        if row["epoch"] == epoch + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochLog, "on_epoch_end", stop)


def test_resuming_goes_on_in_the_same_place_and_repeats_nothing(config, recorded, monkeypatch):  # noqa: F811
    made = config("trainer.epochs=3", TARGET)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(made)
    assert [call[1:] for call in recorded.of("end")] == [("interrupted",)]
    (name,) = {call[0] for call in recorded.of("scalars")}
    train(made)
    assert {call[0] for call in recorded.of("scalars")} == {name}
    assert [call[1] for call in recorded.of("scalars")][:3] == [1, 2, 3]
    assert len(recorded.of("scalars")) == 4
    assert recorded.of("begin")[1][1].id == name
    (run_of(made) / FILE).write_text("{]")  # nothing is known: the history is told anew, to a new place
    status = run_of(made) / "status.json"
    status.write_text(status.read_text().replace('"complete"', '"running"'))
    recorded.calls.clear()
    train(made)
    assert recorded.of("begin")[0][1].id is None
    assert [call[1] for call in recorded.of("scalars")][:3] == [1, 2, 3]


def test_a_tracker_given_later_gets_the_epochs_before(config, recorded, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(config("trainer.epochs=3"))
    train(config("trainer.epochs=3", TARGET))
    assert [call[1] for call in recorded.of("scalars")][:3] == [1, 2, 3]


def test_runs_of_a_sweep_share_one_parent(tmp_path, recorded):  # noqa: F811
    runs = [Tracked(f"run-{n}", tmp_path / "sweep" / f"run-{n}", tmp_path, {"n": n}, "sweep") for n in range(5)]
    reporters = [Reporter(Recorded, run) for run in runs]  # their threads begin at once
    for reporter in reporters:
        reporter.close("complete")
    begun = [run for _, run in recorded.of("begin")]
    assert sum(not run.settings for run in begun) == 1
    parents = {run.parent for run in begun if run.settings}
    assert len(parents) == 1
    assert parents == {name for name, run in recorded.of("begin") if not run.settings}
    assert begun[0].name == "sweep"


def test_many_reports_that_wait_are_no_burden(tmp_path, recorded, monkeypatch, caplog):  # noqa: F811
    monkeypatch.setattr(tracking, "MOST_WAITING", 20)
    reporter = Reporter(lambda: Recorded(hangs="begin"), Tracked("a", tmp_path / "a", tmp_path, {"n": 1}))
    for step in range(100):
        reporter.epoch({"loss": 1.0}, step)
    assert sum("reports wait for its answer" in record.getMessage() for record in caplog.records) == 1
    begun = time.monotonic()
    reporter.close("complete", patience=0.2)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tracker=mlflow", "tracker.uri=http://me:secret@host"], ["tracker.uri", "holds a password"]),
        (["tracker=wandb", "tracker.mode=somehow"], ["tracker.mode", "offline, online"]),
        (["tracker=mlflow", "+tracker.url=http://host"], ["tracker.url", "did you mean tracker.uri?"]),
        (["+tracker._target_=fmvae.models.BaseVAE"], ["tracker._target_", "does not inherit from Tracker"]),
        (["+tracker._target_=os.system"], ["tracker._target_", "not allowed"]),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(config, tmp_path, overrides, words):
    with pytest.raises(ConfigError) as refused:
        train(config(*overrides))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "secret" not in str(refused.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and ".locks" not in path.parts]


@pytest.mark.parametrize("library", ["mlflow", "wandb"])
def test_without_the_library_a_line_says_what_to_install(config, monkeypatch, library):
    monkeypatch.setattr(f"fmvae.trackers.{library}.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=rf"tracker: needs the library {library}, not installed; install it.*\[{library}\]"
    ):
        train(config(f"tracker={library}"))
