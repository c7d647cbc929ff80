"""Numbers that are none, in every kind of model: nothing is learned from them, nothing of them is kept.

``tests/training/test_trainer.py`` has the loop's own checks, on one model; here is every model, and its files.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fmvae.data import Split
from fmvae.errors import NumericsError
from fmvae.models import ConditionalVAE
from fmvae.objectives import ELBO, Terms, elbo_terms
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.observer import Observer
from fmvae.training import Checkpointer, VAETrainer
from fmvae.training.loop import Trainer
from tests.cli.process import ROOT, Finished, Study, call, refused
from tests.faults.warmed import warmed
from tests.idx import write_idx_dataset
from tests.training.cases import CASES, NUM_STEPS, Case, data_of, same, snapshot

# the schedulers and early stopping take no part
MODELS = {name: replace(case, settings={}, scheduler=None) for name, case in CASES.items()} | {
    "conditional_conv_prior": Case(
        lambda: ConditionalVAE(2, backbone="conv", prior="learned"),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    ),
}
del MODELS["capacity_milestones"]  # the same model again
NUMBERS = [math.nan, math.inf, -math.inf]


class Watch(Observer):
    """The state after the newest step, and how far it is."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_start(self, trainer: VAETrainer) -> None:
        self.learned = learned(trainer)

    def on_step(self, trainer: VAETrainer, step: int) -> None:
        self.steps, self.learned = self.steps + 1, learned(trainer)


def learned(trainer: VAETrainer) -> dict[str, Tensor]:
    """Parameters and the optimizer's state: all but what batch norm counts of a batch that it has seen."""
    parameters = {f"model.{name}" for name, _ in trainer.model.named_parameters()}
    return {
        name: it for name, it in snapshot(trainer).items() if name in parameters or name.startswith("optimizer.")
    }


class AfterFirstEpoch(Observer):
    """Does something to the trainer when its first epoch is kept."""

    def __init__(self, act: Callable[[VAETrainer], None]):
        self.act = act

    def on_epoch_end(self, trainer: VAETrainer, row: Any) -> None:
        if trainer.epoch == 1:
            self.act(trainer)


def kept(run: RunDirectory) -> dict[str, Any]:
    """Every checkpoint on the disk: it verifies, and all in it is finite, the best epoch too."""
    found = {path.stem: load_checkpoint(path) for path in sorted(run.checkpoints.glob("*.safetensors"))}
    for checkpoint in found.values():
        assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
        json.dumps(checkpoint.meta, allow_nan=False)
    assert "best" not in found or math.isfinite(found["best"].meta["history"][-1]["val/objective"])
    return {name: checkpoint.meta["epoch"] for name, checkpoint in found.items()}


@pytest.fixture
def make(small_data, tmp_path) -> Callable[..., tuple[VAETrainer, RunDirectory, Watch]]:
    """A trainer of a model, with checkpoints, and with something that happens after its first epoch."""

    def made(name: str, act: Callable[[VAETrainer], None], **settings: Any):
        run, watch = RunDirectory(tmp_path / "run"), Watch()
        observers = [watch, Checkpointer(run, {}), AfterFirstEpoch(act)]
        return MODELS[name].trainer(data_of(small_data), observers=observers, **settings), run, watch

    return made


Made = tuple[VAETrainer, RunDirectory, Watch]


def ends(made: Made, where: str, steps: int) -> None:
    """After so many steps training ends with the error, and has learned nothing since and kept nothing of it."""
    trainer, run, watch = made
    with pytest.raises(NumericsError, match=where):
        trainer.train()
    assert watch.steps == steps
    assert same(learned(trainer), watch.learned)
    assert trainer.epoch == len(trainer.history) == 1
    assert trainer.best is trainer.history[0]
    assert kept(run) == {"best": 1, "last": 1}


# --- what is put in, and where --------------------------------------------------------------------------------


class Spoiled(Split):
    """A split whose second batch holds a pixel that is no number."""

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for n, (x, labels) in enumerate(super().batches(batch_size, generator)):
            if n == 1:
                x[0, 0, 14, 14] = self.pixel  # pyright: ignore[reportAttributeAccessIssue]
            yield x, labels


def spoil_image(number: float) -> Callable[[VAETrainer], None]:
    def act(trainer: VAETrainer) -> None:
        split = trainer.data.train
        trainer.data.train = Spoiled(split.name, split.images, split.labels)
        object.__setattr__(trainer.data.train, "pixel", number)

    return act


def spoil_term(term: str, number: float) -> Callable[[VAETrainer], None]:
    """One image's, in the second batch."""

    def act(trainer: VAETrainer) -> None:
        calls = []

        class Spoiled(ELBO):
            def __call__(self, model: Any, batch: Any, numbers: Any) -> Terms:
                calls.append(None)
                output = model(batch.x, batch.labels, noise=batch.noise)
                found = elbo_terms(self.likelihood, output.logits, batch.x, output.mu, output.logvar)
                if len(calls) == 2:
                    factor = torch.ones_like(found.kl)
                    factor[0] = number
                    found = found._replace(**{term: getattr(found, term) * factor})
                recon, kl = found.recon.mean(), found.kl.mean()
                return Terms(recon + self.beta.penalty(kl, numbers), {"recon": recon, "kl": kl})

        trainer.objective = Spoiled(trainer.objective.likelihood, trainer.objective.beta)

    return act


def spoil_gradient(number: float) -> Callable[[VAETrainer], None]:
    """One element of one parameter's, in the second batch."""

    def act(trainer: VAETrainer) -> None:
        calls = []

        def spoil(gradient: Tensor) -> Tensor:
            calls.append(None)
            if len(calls) != 2:
                return gradient
            spoiled = gradient.clone()
            spoiled.view(-1)[0] = number
            return spoiled

        trainer.model.get_parameter("mu.weight").register_hook(spoil)

    return act


def force_logvar(number: float) -> Callable[[VAETrainer], None]:
    def act(trainer: VAETrainer) -> None:
        with torch.no_grad():
            trainer.model.get_parameter("logvar.weight").zero_()
            trainer.model.get_parameter("logvar.bias").fill_(number)

    return act


SECOND_STEP, STEPS_BEFORE = "^epoch 2, step 2: ", NUM_STEPS + 1
everywhere = pytest.mark.parametrize("name", MODELS)
with_numbers = pytest.mark.parametrize("number", NUMBERS)


@everywhere
@with_numbers
def test_an_image(name, number, make):
    ends(make(name, spoil_image(number)), SECOND_STEP + r"recon is (nan|-?inf); lower optimizer\.lr", STEPS_BEFORE)


@everywhere
@with_numbers
@pytest.mark.parametrize("term", ["recon", "kl"])
def test_a_term_of_the_loss(name, number, term, make):
    ends(make(name, spoil_term(term, number)), f"{SECOND_STEP}{term} is {number}; ", STEPS_BEFORE)


@everywhere
@with_numbers
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_gradient(name, number, max_grad_norm, make):
    made = make(name, spoil_gradient(number), max_grad_norm=max_grad_norm)
    ends(made, rf"{SECOND_STEP}gradient of mu\.weight is (nan|inf); ", STEPS_BEFORE)


@everywhere
def test_a_variance_beyond_all_numbers(name, make):
    """exp(1e4 / 2) is infinite, and so is whatever is drawn and decoded."""

    def act(trainer: VAETrainer) -> None:
        force_logvar(1e4)(trainer)
        watch.learned = learned(trainer)

    trainer, run, watch = make(name, act)
    ends((trainer, run, watch), r"^epoch 2, step 1: (recon|kl) is (nan|inf); ", NUM_STEPS)


@everywhere
def test_a_variance_of_nothing_trains_on(name, make):
    """z is mu then, and the KL large but finite."""
    trainer, run, _ = make(name, force_logvar(-1e4))
    history = trainer.train()
    latent_dim = trainer.model.latent_dim
    assert history[1]["train/kl"] > 0.99 * latent_dim * 5000
    assert history[2]["train/recon"] < history[1]["train/recon"]
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert kept(run)["last"] == 3


@everywhere
def test_a_validation_that_is_no_number_is_never_best(name, make):
    def act(trainer: VAETrainer) -> None:
        split = trainer.data.val
        trainer.data.val = Spoiled(split.name, split.images.repeat(30, 1, 1, 1), split.labels.repeat(30))
        object.__setattr__(trainer.data.val, "pixel", math.nan)

    trainer, run, _ = make(name, act)
    with pytest.raises(NumericsError, match=r"^epoch 2, validation: val/\w+ is nan; "):
        trainer.train()
    assert trainer.best is trainer.history[0]
    assert kept(run) == {"best": 1, "last": 1}


def test_a_last_step_beyond_all_numbers_is_not_kept(small_data, tmp_path):
    """One step an epoch, too large for float32, and no validation that would tell."""
    run = RunDirectory(tmp_path / "run")
    case = replace(MODELS["base_adam"], optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e38))
    data = data_of(small_data, batch_size=100)
    trainer = case.trainer(data, observers=[Checkpointer(run, {})], validate_every=3)
    with pytest.raises(NumericsError):
        trainer.train()
    kept(run)


def test_a_variance_of_batch_norm_beyond_all_numbers_is_not_kept(small_data, tmp_path):
    """Of weights as no training has made them yet: the loss and the gradients are finite, the variance is not."""
    run = RunDirectory(tmp_path / "run")
    trainer = MODELS["batch_norm_adamw_cosine_warmup"].trainer(
        data_of(small_data), observers=[Checkpointer(run, {})], epochs=1
    )
    with torch.no_grad():
        for layer in ("encoder.0", "encoder.2"):
            trainer.model.get_parameter(f"{layer}.weight").mul_(1e10)
    with contextlib.suppress(NumericsError):
        trainer.train()
    kept(run)


# --- negative controls ----------------------------------------------------------------------------------------


@pytest.fixture
def unchecked(monkeypatch) -> None:
    monkeypatch.setattr("fmvae.training.loop.not_finite", lambda *_: None)
    monkeypatch.setattr(VAETrainer, "_validate", lambda *_: {})


@pytest.mark.usefixtures("unchecked")
@everywhere
@pytest.mark.parametrize(
    "act",
    [spoil_image(math.nan), spoil_term("recon", math.nan), spoil_gradient(math.nan), force_logvar(1e4)],
    ids=["image", "term", "gradient", "logvar"],
)
def test_negative_control_unchecked_it_reaches_the_parameters(name, act, make, monkeypatch):
    monkeypatch.setattr(Trainer, "check_state", lambda *_: None)
    trainer, run, _ = make(name, act)
    with pytest.raises(ValueError, match="JSON"):  # the checkpoint's own refusal of a history that is no number
        trainer.train()
    assert any(not parameter.isfinite().all() for parameter in trainer.parameters)
    assert set(kept(run).values()) == {1}


# --- whole processes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("numerics")
    return Study(folder / "data", write_idx_dataset(folder / "data", 900, 800), folder / "outputs")


def train(study: Study, outputs: Path, arguments: str) -> Finished:
    return warmed().call("train.py", *study.settings, f"output_root={outputs}", *arguments.split())


# what diverges, after how many epochs that are kept, and what the line names
DIVERGING = {
    "optimizer.lr=1e12": (0, "epoch 1, step 2: "),
    "optimizer=sgd optimizer.lr=1e12 model=conv": (0, "epoch 1, "),
    "optimizer.lr=1e12 data.batch_size=1000": (0, "epoch 1, validation: val/"),
    "optimizer.lr=1e12 data.batch_size=1000 trainer.validate_every=2 trainer.epochs=3": (1, "epoch 2, step 1: "),
    "scheduler=step scheduler.step_size=1 scheduler.gamma=1e15 trainer.epochs=3": (1, "epoch 2, step 2: "),
    "scheduler=step scheduler.step_size=2 scheduler.gamma=1e15 trainer.epochs=3 model=conditional": (
        2,
        "epoch 3, step 2: ",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "epochs", "where"), [(a, *told) for a, told in DIVERGING.items()], ids=DIVERGING
)
@pytest.mark.one_in(4)
def test_a_run_that_diverges_fails_in_one_line_and_again_in_the_same(dataset, tmp_path, arguments, epochs, where):
    first = train(dataset, tmp_path, arguments)
    line = refused(first, f"fmvae: error: {where}", " is ", "lower optimizer.lr")
    (path,) = (config.parent for config in tmp_path.glob("*/config.yaml"))
    run = RunDirectory(path)
    status = run.read_status()
    assert (status["state"], status["epoch"]) == ("failed", epochs)
    assert line == f"fmvae: error: {status['error']}"
    assert "Traceback" in run.log.read_text()
    found = kept(run)
    assert ("last" in found) == bool(epochs)
    assert all(epoch == epochs for name, epoch in found.items() if name == "last")
    assert not run.results.exists()

    before = {path: path.read_bytes() for path in run.checkpoints.glob("*")}
    again = train(dataset, tmp_path, arguments)
    assert refused(again) == line
    assert ("resuming" in again.stdout) == bool(epochs)
    assert {path: path.read_bytes() for path in run.checkpoints.glob("*")} == before


@pytest.mark.slow
def test_a_whole_process_says_the_same(dataset, tmp_path):
    arguments = [*dataset.settings, f"output_root={tmp_path}", "optimizer.lr=1e12"]
    whole = call(str(ROOT / "train.py"), *arguments)
    assert refused(whole) == refused(train(dataset, tmp_path / "warm", "optimizer.lr=1e12"))
