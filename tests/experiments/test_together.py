"""What happens to runs of a stack beside their numbers: stops while measuring, bugs, misfits, logs."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest

import fmvae.objectives
from fmvae.cli import main as cli
from fmvae.common.stop import Stop
from fmvae.config import compose
from fmvae.config.identity import semantic, whole
from fmvae.errors import Terminated
from fmvae.experiments import stackable, train, train_together
from fmvae.experiments.run_log import logging_to
from fmvae.experiments.vae import VAEExperiment
from fmvae.measurement.verification import verify
from fmvae.objectives import BetaSchedule, Constant
from fmvae.runs.directory import MEASURING, RunDirectory, find_runs
from fmvae.runs.files import read_record, write_record
from fmvae.sweeps.status import status
from fmvae.training import VAETrainer
from tests.idx import write_idx_dataset


@pytest.fixture
def settings(tmp_path) -> list[Any]:
    """Three runs of different lengths, on little data."""
    digests = write_idx_dataset(tmp_path / "data", 300, 60)
    sha256 = ",".join(f"{name}:'{digest}'" for name, digest in digests.items())
    usual = [
        *(f"data.root={tmp_path / 'data'}", f"data.sha256={{{sha256}}}", f"output_root={tmp_path}"),
        *(
            "sweep_name=s",
            "data.val_size=50",
            "model.hidden_dim=8",
            "evaluation=fast",
            "figures=none",
            "device=cpu",
        ),
    ]
    return [(compose([*usual, f"trainer.epochs={epochs}"]), []) for epochs in (1, 2, 3)]


def states(tmp_path: Path) -> dict[int, str]:
    found = [json.loads(file.read_text()) for file in tmp_path.glob("s/*/status.json")]
    return {status["epochs"]: status["state"] for status in found if "epochs" in status}


def test_a_stop_while_one_is_measured_ends_all(settings, tmp_path, monkeypatch):
    def stopped(*_: Any) -> None:
        raise Terminated(143)

    monkeypatch.setattr(VAEExperiment, "measure", stopped)
    with pytest.raises(Terminated):
        train_together(settings)
    found = [json.loads(file.read_text())["state"] for file in tmp_path.glob("s/*/status.json")]
    assert found == ["interrupted"] * 3
    monkeypatch.undo()
    assert len([r for r in train_together(settings) if isinstance(r, dict)]) == 3
    assert set(states(tmp_path).values()) == {"complete"}


def test_while_one_is_measured_signals_are_not_put_off(settings, monkeypatch):
    entered = []
    monkeypatch.setattr(Stop, "__enter__", lambda self: entered.append(1) or self)
    monkeypatch.setattr(Stop, "__exit__", lambda self, *_: entered.pop() and None)
    measure = VAEExperiment.measure
    monkeypatch.setattr(VAEExperiment, "measure", lambda *given: seen.append(len(entered)) or measure(*given))
    seen: list[int] = []
    train_together(settings)
    assert seen == [0, 0, 0]


def test_status_says_that_a_run_is_measured(settings, tmp_path, monkeypatch):
    seen = []
    measure = VAEExperiment.measure

    def look(self, run, *given):
        seen.append((status(run.path.parent).count(MEASURING), run.read_status()["phase"]))
        measure(self, run, *given)

    monkeypatch.setattr(VAEExperiment, "measure", look)
    write = RunDirectory.write_status
    phases = []
    monkeypatch.setattr(
        RunDirectory,
        "write_status",
        lambda self, state, **details: (
            phases.append((state, details.get("phase"))) or write(self, state, **details)
        ),
    )
    train(*settings[0])
    train_together(settings[1:])
    assert seen == [(1, MEASURING)] * len(settings)
    before, after = phases[: phases.index(("complete", None)) + 1][:-2], phases[-1]
    assert set(before) == {("running", None)}  # the control: not while it is trained
    assert after == ("complete", None)
    assert MEASURING not in status(tmp_path / "s")


@pytest.mark.parametrize("stacked", [True, False])
def test_a_signal_after_the_last_look_is_heeded(stacked, settings, monkeypatch):
    leave = Stop.__exit__

    def late(stop: Stop, *given: Any) -> None:
        stop.asked = signal.SIGINT
        leave(stop, *given)

    monkeypatch.setattr(Stop, "__exit__", late)
    with pytest.raises(KeyboardInterrupt):
        train_together(settings) if stacked else train(*settings[0])


def test_what_ends_a_run_is_told_when_it_does_and_a_bug_by_its_name(settings, monkeypatch):
    trained, told = VAETrainer.end_epoch, []

    def broken(trainer: VAETrainer, row: dict[str, float]) -> None:
        if trainer.epochs == 3:
            raise RuntimeError("the size of tensor a must match the size of tensor b")
        trained(trainer, row)

    monkeypatch.setattr(VAETrainer, "end_epoch", broken)
    measure = VAEExperiment.measure
    monkeypatch.setattr(VAEExperiment, "measure", lambda *given: told.append("measured") or measure(*given))
    *others, last = train_together(settings, told.append)
    assert all(isinstance(result, dict) for result in others)
    assert isinstance(last, RuntimeError)
    assert told == [last, "measured", "measured"]
    assert cli.explain(last) is None, "it was called a wrong command line"


@pytest.mark.parametrize(("optimizer", "fits"), [("Adam", True), ("SGD", True), ("Adafactor", False)])
def test_optimizers_that_look_at_more_than_a_weight_are_not_stacked(optimizer, fits):
    config = compose(["~optimizer.fused", f"optimizer._target_=torch.optim.{optimizer}"])
    assert (stackable(config) is not None) is fits


def test_logs_end_in_any_order(tmp_path):
    log = logging.getLogger("fmvae")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        runs = [RunDirectory(tmp_path / name) for name in "ab"]
        contexts = [logging_to(run) for run in runs]
        for run, context in zip(runs, contexts, strict=True):
            run.path.mkdir()
            context.__enter__()
        contexts[0].__exit__(None, None, None)
        log.info("said while the other is still open")
        assert "still open" in runs[1].log.read_text()
        assert "still open" not in runs[0].log.read_text()
        contexts[1].__exit__(None, None, None)
        assert log.level == logging.WARNING
    finally:
        log.setLevel(level)


def test_a_key_that_names_no_run_at_its_default_is_there_for_comparing():
    named = semantic(compose([]))
    assert whole(named)["trainer"]["precision"] == "fp32"
    assert "precision" not in named["trainer"]
    assert whole(named)["loss"] == {"_target_": "fmvae.objectives.ELBO"}
    assert "loss" not in named
    assert whole(named)["prior"] == {"_target_": "fmvae.models.StandardPrior"}
    assert "prior" not in named
    changes = ["loss=beta_tcvae", "prior=mixture"]
    bf16 = semantic(compose(["trainer.precision=bf16", *changes]))
    assert whole(bf16) == bf16
    assert {"loss", "prior", "trainer"} <= bf16.keys()
    classifier = semantic(compose([], "classifier"))
    assert whole(classifier) == classifier


class Power(BetaSchedule):
    """A penalty of one's own, which uses an argument that is in no ``numbers``."""

    def __init__(self, value: float = 1.0, power: float = 1.0):
        super().__init__(value)
        self.power = power

    def penalty(self, kl: Any, numbers: Any) -> Any:
        return numbers["beta"] * kl**self.power


class Tempered(Constant):
    """Our penalty, and one more number."""

    def numbers(self, progress: float) -> dict[str, float]:
        return super().numbers(progress) | {"temperature": progress}


def test_schedules_of_ones_own_are_stacked_only_where_one_formula_serves_all(monkeypatch):
    for kind in (Power, Tempered):
        monkeypatch.setattr(fmvae.objectives, kind.__name__, kind, raising=False)
        monkeypatch.setattr(kind, "__module__", "fmvae.objectives")

    def text(kind: str, *overrides: str) -> str | None:
        return stackable(compose([f"beta._target_=fmvae.objectives.{kind}", *overrides]))

    assert text("Power", "+beta.power=2") != text("Power", "+beta.power=1")
    assert text("Power", "+beta.power=2", "seed=1") == text("Power", "+beta.power=2")
    assert text("Tempered") != text("Constant")
    assert text("Tempered", "beta=3") == text("Tempered")
    assert text("Constant", "beta=3") == text("Constant") == text("Warmup", "+beta.fraction=0.5")


def test_runs_of_a_stack_verify(settings, tmp_path):
    train_together(settings[1:])
    for run in find_runs(tmp_path / "s"):
        record = read_record(run.results)
        assert record["provenance"]["training"]["stacked_epochs"] in (2, 3)
        assert verify(run, recompute=False).problems == []
        record["provenance"]["training"]["stacked_epochs"] += 1
        write_record(run.results, record)
        (problem,) = verify(run, recompute=False).problems
        assert "provenance.training not of the best checkpoint" in problem
