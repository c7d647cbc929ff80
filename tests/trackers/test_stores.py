"""Runs in MLflow (a SQLite store, a real server on loopback) and in wandb (offline): what is there afterwards."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.experiments import train
from fmvae.measurement.evaluate import evaluate_runs
from fmvae.runs import tracking
from fmvae.runs.recorder import by_tag
from fmvae.runs.results import flat_scalars, read_results
from fmvae.training import EpochLog
from tests.cli.process import call
from tests.faults.warmed import warmed
from tests.trackers.conftest import QUICK
from tests.trackers.test_reporting import interrupt_after, run_of, weights_of

mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    """Trackers set defaults of their libraries in the environment of the process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def client_of(place: str | Path) -> Any:
    return mlflow.MlflowClient(place if isinstance(place, str) else f"sqlite:///{place / 'mlflow.db'}")


def runs_in(client: Any) -> list[Any]:
    (found,) = [one for one in client.search_experiments() if one.name == "fmvae"]
    return client.search_runs([found.experiment_id])


def files_in(client: Any, run: str, folder: str | None = None) -> set[str]:
    found = set()
    for file in client.list_artifacts(run, folder):
        found |= files_in(client, run, file.path) if file.is_dir else {file.path}
    return found


def history_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def check_metrics(client: Any, one: Any, run: Path) -> None:
    """The final numbers are those of results.json, and each epoch is there once."""
    final = flat_scalars(read_results(run / "results.json"))
    assert len(final) >= 5
    assert {name: one.data.metrics[name] for name in final} == final
    for name in ("Train/objective", "Val/kl"):
        told = {metric.step: metric.value for metric in client.get_metric_history(one.info.run_id, name)}
        assert told == {row["epoch"]: by_tag(row)[name] for row in history_of(run)}
        assert len(client.get_metric_history(one.info.run_id, name)) == len(told)


def test_a_sweep_of_four_is_a_parent_with_four_children(arguments, tmp_path):
    outputs = tmp_path / "outputs"
    sweep = ["-m", "beta=1,4", "seed=0,1", "sweep_name=four", "trainer.epochs=2", "tracker=mlflow"]
    ended = warmed().call("train.py", *arguments, f"output_root={outputs}", *sweep)
    assert (ended.status, ended.stderr) == (0, "")
    client = client_of(outputs)
    check_sweep(client, outputs / "four", 4)
    assert {run.data.params["seed"] for run in runs_in(client) if run.data.params} == {"0", "1"}


def test_an_interrupted_run_goes_on_in_the_same_mlflow_run(config, tmp_path, monkeypatch):
    made = config("trainer.epochs=3", "tracker=mlflow", "figures=default", "figures.only=[samples]")
    client, run = client_of(tmp_path / "outputs"), run_of(made)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(made)
    assert [one.info.status for one in runs_in(client)] == ["KILLED"]
    train(made)
    (one,) = runs_in(client)
    assert one.info.status == "FINISHED"
    check_metrics(client, one, run)
    assert {"config.yaml", "results.json", "figures/samples.png"} <= files_in(client, one.info.run_id)


def test_a_finished_run_is_put_into_mlflow_later_and_once(config, tmp_path):
    made = config("trainer.epochs=2")
    train(made)
    run = run_of(made)
    for _ in range(2):
        again = [f"run={run}", f"output_root={tmp_path}/outputs", "evaluation=fast", "figures=none", "device=cpu"]
        evaluate_runs(
            compose([*again, "evaluation.samplers=[]", "evaluation.cache=null", "tracker=mlflow"], "evaluate")
        )
    client = client_of(tmp_path / "outputs")
    (one,) = runs_in(client)
    check_metrics(client, one, run)
    assert one.data.params["epochs"] == "2"


@pytest.mark.parametrize("what", ["no server", "no store", "mute server"])
@pytest.mark.parametrize("patience", [1.0, pytest.param(None, marks=pytest.mark.slow)], ids=["short", "usual"])
def test_a_place_that_does_not_answer_costs_a_warning(config, tmp_path, caplog, monkeypatch, what, patience):
    """However long a run waits for it at its end; the usual half a minute is for the slow tests."""
    if patience:
        monkeypatch.setattr(tracking.Reporter.close, "__defaults__", (patience,))
    outputs = tmp_path / "outputs"
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if what == "mute server":
            mute.listen()
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        uri = [] if what == "no store" else [f"tracker.uri=http://127.0.0.1:{mute.getsockname()[1]}"]
        (outputs / "mlflow.db").mkdir(parents=True)  # of "no store"
        made = config("trainer.epochs=1", "tracker=mlflow", *uri)
        begun = time.monotonic()
        with caplog.at_level(logging.WARNING):
            train(made)
        assert time.monotonic() - begun < 60
    told = [record for record in caplog.records if record.levelno >= logging.WARNING and record.name == "fmvae"]
    assert len(told) == 1, [record.getMessage() for record in told]
    assert "the tracker mlflow" in told[0].getMessage()
    usual = config("trainer.epochs=1", output_root=tmp_path / "plain")
    train(usual)
    assert weights_of(run_of(made)) == weights_of(run_of(usual))


class Server:
    """MLflow's own server on loopback, with a SQLite store in a folder."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.start()

    def start(self) -> None:
        store = f"sqlite:///{self.folder}/server.db"
        command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", store, "--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        until = time.monotonic() + 180
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.3)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # the group of this session alone
            self.process.wait()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    one = Server(tmp_path / "server")
    yield one
    one.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_costs_a_warning_and_gets_the_rest_later(
    config, tmp_path, server, monkeypatch, caplog
):
    made = config("trainer.epochs=4", "tracker=mlflow", f"tracker.uri={server.uri}")
    run, usual = run_of(made), EpochLog.on_epoch_end

    def kill_after_two(self, trainer, row):
        usual(self, trainer, row)
        if row["epoch"] == 3:
            until = time.monotonic() + 60
            sent = run / "tracker.json"
            while time.monotonic() < until and not (sent.exists() and '"epoch": 2' in sent.read_text()):
                time.sleep(0.1)
            server.kill()

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "fmvae"):
        patch.setattr(EpochLog, "on_epoch_end", kill_after_two)
        train(made)
    warnings = [r.getMessage() for r in caplog.records if r.name == "fmvae" and r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert server.uri in warnings[0]
    plain = config("trainer.epochs=4", output_root=tmp_path / "plain")
    train(plain)
    assert weights_of(run) == weights_of(run_of(plain))
    server.start()
    client = client_of(server.uri)
    (before,) = runs_in(client)
    assert len(client.get_metric_history(before.info.run_id, "Val/kl")) == 2
    quick = [option for option in QUICK if option.startswith(("evaluation", "figures", "device", "threads"))]
    later = [f"run={run}", *quick, "tracker=mlflow", f"tracker.uri={server.uri}"]
    evaluate_runs(compose(later, "evaluate"))
    (after,) = runs_in(client)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    check_metrics(client, after, run)
    assert {"config.yaml", "results.json"} <= files_in(client, after.info.run_id)


def check_sweep(client: Any, folder: Path, number: int) -> None:
    """A sweep is a parent, with the report, of runs with the final numbers of their results.json."""
    runs = {run.info.run_name: run for run in runs_in(client)}
    parent = runs.pop(folder.name)
    assert set(runs) == {path.parent.name for path in folder.glob("*/config.yaml")}
    assert len(runs) == number
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        check_metrics(client, run, folder / name)
        assert {"config.yaml", "results.json"} <= files_in(client, run.info.run_id)
    assert parent.info.status == "FINISHED"
    assert {"report/index.html", "report/table.csv"} <= files_in(client, parent.info.run_id)


@pytest.mark.slow
def test_runs_of_a_sweep_side_by_side_share_one_parent(arguments, tmp_path):
    outputs = tmp_path / "outputs"
    sweep = ["-m", "beta=1,4", "sweep_name=two", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    settings = [*arguments, f"output_root={outputs}", *sweep, "tracker=mlflow", "trainer.epochs=1"]
    ended = call("train.py", *settings)
    assert ended.status == 0, ended.stderr
    check_sweep(client_of(outputs), outputs / "two", 2)


# --- wandb ------------------------------------------------------------------------------------------------------


def records_in(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format behind a header of 7 bytes (wandb's reader is in Go)."""
    from wandb.proto import wandb_internal_pb2

    record: Any = vars(wandb_internal_pb2)["Record"]

    content, place, parts = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        place += 7
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last part
            yield record.FromString(parts)
            parts = b""


def told_to_wandb(folder: Path) -> tuple[list[dict[str, float]], list[Any]]:
    """The rows of all offline runs in a folder, and the records that begin them."""
    rows, begun = [], []
    for file in sorted(folder.glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in records_in(file):
            if record.HasField("run"):
                begun.append(record.run)
            if record.HasField("history"):
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                rows.append({key: value for key, value in row.items() if not key.startswith("_")})
    return rows, begun


def test_wandb_offline_holds_every_epoch_and_the_final_numbers_also_after_an_interruption(
    config, tmp_path, monkeypatch
):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    made = config("trainer.epochs=3", "tracker=wandb", "sweep_name=some")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(made)
    train(made)
    run = run_of(made)
    rows, begun = told_to_wandb(tmp_path / "outputs" / "wandb")
    mine = [one for one in begun if one.display_name == run.name]
    (name,) = {one.run_id for one in mine}
    assert name == json.loads((run / "tracker.json").read_text())["wandb offline /fmvae"]["id"]
    assert {one.run_group for one in mine} == {"some"}
    assert {one.job_type for one in begun} == {"run", "sweep"}
    final = flat_scalars(read_results(run / "results.json"))
    epoch = read_results(run / "results.json")["checkpoint"]["epoch"]
    assert rows == [
        *({**by_tag(row), "epoch": row["epoch"]} for row in history_of(run)),
        {**final, "epoch": epoch},
    ]
    assert RunIdentity.of(made).name == run.name
