"""Asked to stop, training ends after a step, saves, and goes on from there to the bits of an undisturbed run."""

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fmvae.common.stop import Stop
from fmvae.runs.checkpoint import load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.observer import Observer
from fmvae.runs.resuming import newest_checkpoint
from fmvae.training import Checkpointer
from tests.training.cases import BASE, CASES, NUM_STEPS, data_of, same, snapshot
from tests.training.test_classifier import data as classifier_data  # noqa: F401
from tests.training.test_classifier import trainer_of as classifier_of

SHA256 = "0" * 64
IDENTITY = {"config_sha256": SHA256}


@pytest.fixture(scope="module")
def data(small_data):
    return data_of(small_data)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


class At(Observer):
    """Calls a function after the ``n``-th step in all."""

    def __init__(self, n: int, function: Callable[[], object]):
        self.left, self.function = n, function

    def on_step(self, trainer, step):
        self.left -= 1
        if self.left == 0:
            self.function()


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def stopped_at(n: int, make: Callable[..., Any], run: RunDirectory, every: int = 1) -> Any:
    """A trainer that was interrupted after its ``n``-th step."""
    trainer = make(observers=[At(n, interrupt), Checkpointer(run, IDENTITY, every)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer


def resumed(make: Callable[..., Any], run: RunDirectory, every: int = 1) -> Any:
    """Fresh objects, of another initialisation, trained to the end from what the run has."""
    trainer = make(init_seed=99, observers=[Checkpointer(run, IDENTITY, every)])
    checkpoint = newest_checkpoint(run, SHA256)
    assert checkpoint is not None
    trainer.load_state(checkpoint.tensors, checkpoint.meta)
    trainer.train()
    return trainer


def equal(a: Any, b: Any) -> bool:
    """Whether two trainers are the same to the last bit."""
    return same(snapshot(a), snapshot(b)) and json.dumps(a.state().meta) == json.dumps(b.state().meta)


def maker(name: str, data) -> Callable[..., Any]:
    return lambda **settings: CASES[name].trainer(data, **settings)


STEPS = [(name, n) for name in CASES for n in (range(1, 3 * NUM_STEPS + 1) if name == "base_adam" else (2, 7, 8))]


@pytest.mark.parametrize(("name", "n"), STEPS)
def test_stopped_after_any_step_and_resumed_the_bits_are_the_same(name, n, data, run):
    make = maker(name, data)
    undisturbed = make(observers=[Checkpointer(RunDirectory(run.path.with_name("undisturbed")), IDENTITY)])
    undisturbed.train()
    trainer = stopped_at(n, make, run)
    assert load_checkpoint(run.stopped).meta["within"]["step"] == (n - 1) % NUM_STEPS + 1
    assert trainer.epoch == (n - 1) // NUM_STEPS
    assert equal(resumed(make, run), undisturbed)
    for file in ("last", "best"):
        there = run.path.with_name("undisturbed") / "checkpoints" / f"{file}.safetensors"
        assert getattr(run, file).read_bytes() == there.read_bytes()
    assert not run.stopped.exists()


@pytest.mark.parametrize("n", [1, 4, 6, 11])
def test_the_classifiers_training_too(n, classifier_data, run):  # noqa: F811
    """Whose random crops come from torch's own generator, and whose images depend on the losses before."""

    def make(**settings: Any) -> Any:
        return classifier_of(classifier_data, **settings)

    undisturbed = make()
    undisturbed.train()
    stopped_at(n, make, run)
    assert equal(resumed(make, run), undisturbed)


def test_stopped_again_and_again_with_few_checkpoints(data, run):
    make = maker("batch_norm_adamw_cosine_warmup", data)
    undisturbed = make()
    undisturbed.train()
    stopped_at(6, make, run, every=5)  # of the twelve; no `last` yet
    for _ in range(2):
        trainer = make(init_seed=99, observers=[At(2, interrupt), Checkpointer(run, IDENTITY, 5)])
        checkpoint = newest_checkpoint(run, SHA256)
        assert checkpoint is not None
        trainer.load_state(checkpoint.tensors, checkpoint.meta)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert load_checkpoint(run.stopped).meta["epoch"] == 2
    assert equal(resumed(make, run, every=5), undisturbed)


def _lose_sums(tensors: dict[str, Any], meta: dict[str, Any]) -> None:
    meta["within"]["sums"] = {}


def _shift_step(tensors: dict[str, Any], meta: dict[str, Any]) -> None:
    meta["within"]["step"] -= 1


def _lose_noise(tensors: dict[str, Any], meta: dict[str, Any]) -> None:
    tensors["within.generator"] = torch.Generator().manual_seed(0).get_state()


@pytest.mark.parametrize("forget", [_lose_sums, _shift_step, _lose_noise])
def test_negative_control_without_a_part_of_it_another_run_comes_out(forget, data, run):
    make = maker("base_adam", data)
    undisturbed = make()
    undisturbed.train()
    stopped_at(6, make, run)
    tensors, meta, _ = load_checkpoint(run.stopped)
    forget(tensors, meta)
    trainer = make(init_seed=99)
    trainer.load_state(tensors, meta)
    trainer.train()
    assert not equal(trainer, undisturbed)


def test_the_step_in_progress_is_finished(data, run):
    def make(**settings: Any) -> Any:
        trainer = BASE.trainer(data, **settings)
        trainer.model.register_forward_pre_hook(lambda *_: interrupt())  # as if in the midst of the first
        return trainer

    trainer = make(observers=[Checkpointer(run, IDENTITY)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert load_checkpoint(run.stopped).meta["within"]["step"] == 1


def test_a_second_time_it_is_not_finished(data, run):
    trainer = BASE.trainer(data, observers=[Checkpointer(run, IDENTITY)])
    before = snapshot(trainer)
    trainer.model.register_forward_pre_hook(lambda *_: (interrupt(), interrupt()))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert same(snapshot(trainer), before)
    assert not run.checkpoints.exists()


def test_between_epochs_there_is_no_step_to_save(data, run):
    class AtTheEnd(Observer):
        def on_epoch_end(self, trainer, row):
            interrupt()

    trainer = BASE.trainer(data, observers=[AtTheEnd(), Checkpointer(run, IDENTITY)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert load_checkpoint(run.last).meta["epoch"] == 1
    assert not run.stopped.exists()


def test_a_damaged_one_is_passed_over_and_costs_steps_alone(data, run, caplog):
    make = maker("base_adam", data)
    undisturbed = make()
    undisturbed.train()
    stopped_at(7, make, run)
    content = bytearray(run.stopped.read_bytes())
    content[-5] ^= 1
    run.stopped.write_bytes(content)
    with caplog.at_level(logging.WARNING, "fmvae"):
        assert equal(resumed(make, run), undisturbed)
    assert "stopped.safetensors" in caplog.text


@pytest.mark.parametrize("how", ["missing", "damaged", "of an earlier epoch"])
def test_who_lacks_the_best_epoch_goes_back_to_an_epochs_end(how, data, run):
    """Where it can be saved again, if it is the last; within the next epoch it can't."""
    make = maker("base_adam", data)
    undisturbed = make(observers=[Checkpointer(RunDirectory(run.path.with_name("undisturbed")), IDENTITY)])
    undisturbed.train()
    stopped_at(2 * NUM_STEPS + 1, make, run)
    best = load_checkpoint(run.best)
    assert best.meta["epoch"] == 2
    if how == "of an earlier epoch":
        run.best.unlink()
        run.best.write_bytes(run.previous.read_bytes())
    else:
        run.best.unlink()
        if how == "damaged":
            run.best.write_bytes(b"no checkpoint")
    checkpoint = newest_checkpoint(run, SHA256)
    assert checkpoint is not None
    assert "within" not in checkpoint.meta
    assert equal(resumed(make, run), undisturbed)
    there = run.path.with_name("undisturbed") / "checkpoints" / "best.safetensors"
    assert run.best.read_bytes() == there.read_bytes()


# --- signals ------------------------------------------------------------------------------------------------


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stop() as stop:
        interrupt()
        assert stop.asked == signal.SIGINT
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_is_ignored_stays_ignored():
    """As Ctrl-C is by what a shell runs in its background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            interrupt()
            stop.heed()
        assert stop.asked is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_training_goes_on_without_it():
    """As in a worker of a launcher: Python's signals come to the main thread alone."""
    entered = []

    def enter() -> None:
        with Stop() as stop:
            entered.append(stop.asked)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [None]


def test_a_signal_without_a_handler_ends_the_process_as_it_would():
    program = """
import os
from fmvae.common.stop import Stop
with Stop() as stop:
    os.kill(os.getpid(), 15)
    print("the end of a step", flush=True)
    stop.heed()
    print("never")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, timeout=120, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "the end of a step\n")
