"""Epochs that stay on the device are those of the plain loop to the last bit, stopped and resumed likewise."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from fmvae.data import FashionMNISTManager
from fmvae.errors import NumericsError
from fmvae.models import BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE
from fmvae.objectives import Capacity, Cyclical, Terms, Warmup
from fmvae.runs.observer import Observer
from fmvae.training import VAETrainer
from fmvae.training.engines.cuda_graph import EAGER_STEPS, CUDAGraph, can_stay
from tests.training.cases import NUM_STEPS, Case, data_of, same, snapshot

CASES = {
    "base_adam": Case(lambda: BaseVAE(2, hidden_dim=16), lambda p: Adam(p, lr=1e-2, fused=True)),
    "batch_norm_adamw_cosine_warmup": Case(
        lambda: BetaVAE(3),
        lambda p: AdamW(p, lr=1e-3, fused=True),
        lambda: Warmup(4.0, fraction=0.5),
        lambda optimizer: CosineAnnealingLR(optimizer, 3),
    ),
    "conv_momentum_clipped": Case(
        lambda: ConvVAE(2),
        lambda p: SGD(p, lr=1e-4, momentum=0.9, fused=True),
        lambda: Cyclical(2.0, num_cycles=2),
        settings={"max_grad_norm": 50.0, "seed": 3},
    ),
    "residual_group_norm": Case(
        lambda: ResidualVAE(2, width=8, norm="group"), lambda p: Adam(p, lr=1e-3, fused=True)
    ),
    "conditional_residual": Case(
        lambda: ConditionalVAE(2, backbone="residual", width=8),
        lambda p: Adam(p, lr=1e-3, fused=True),
    ),
    "conditional_capacity_steps": Case(
        lambda: ConditionalVAE(2, hidden_dim=16, prior="learned"),
        lambda p: Adam(p, lr=1e-3, fused=True),
        lambda: Capacity(10.0, 5.0),
        lambda optimizer: StepLR(optimizer, 1, gamma=0.5),
        {"validate_every": 2},
    ),
    "gated_adam_warmup": Case(
        lambda: GatedVAE(2, hidden_dim=16),
        lambda p: Adam(p, lr=1e-3, fused=True),
        lambda: Warmup(1.0, fraction=0.5),
    ),
    "bf16": Case(lambda: BaseVAE(2, hidden_dim=16), lambda p: Adam(p, fused=True), settings={"precision": "bf16"}),
}


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)


def with_engine(case: Case, data: FashionMNISTManager, **settings: Any) -> VAETrainer:
    trainer = case.trainer(data, **settings)
    trainer.engine = CUDAGraph(trainer, capture=data.device.type == "cuda")
    return trainer


def engine_of(trainer: VAETrainer) -> CUDAGraph:
    assert isinstance(trainer.engine, CUDAGraph)
    return trainer.engine


def trained(trainer: VAETrainer) -> tuple[Any, Any]:
    history = trainer.train()
    return snapshot(trainer), history


class StopAt(Observer):
    def __init__(self, epoch: int, step: int):
        self.at = epoch, step

    def on_step(self, trainer: Any, step: int) -> None:
        if (trainer.epoch + 1, step) == self.at:
            trainer.stop.asked = 15
            trainer.stop._handlers[15] = self._raise

    def _raise(self, *_: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", CASES)
def test_the_same_to_the_last_bit(name, data):
    ours, our_history = trained(with_engine(CASES[name], data))
    theirs, their_history = trained(CASES[name].trainer(data))
    assert same(ours, theirs)
    assert our_history == their_history
    assert [list(row) for row in our_history] == [list(row) for row in their_history], "columns in another order"


@pytest.mark.parametrize("step", [1, 2, NUM_STEPS])
@pytest.mark.parametrize("name", ["base_adam", "batch_norm_adamw_cosine_warmup"])
def test_stopped_within_an_epoch_it_goes_on_exactly(name, step, data):
    whole, history = trained(CASES[name].trainer(data))
    first = with_engine(CASES[name], data)
    first.observers.append(StopAt(2, step))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert first.within is not None
    assert first.within.step == step
    for second in (with_engine(CASES[name], data), CASES[name].trainer(data)):  # the plain loop can go on with it
        second.load_state(*deepcopy(first.state()))  # an optimizer would step on what it is given
        assert same(trained(second)[0], whole)
        assert second.history == history


def test_it_goes_on_where_the_plain_loop_was_stopped(data):
    case = CASES["base_adam"]
    whole, history = trained(case.trainer(data))
    first, second = case.trainer(data), with_engine(case, data)
    first.observers.append(StopAt(2, 3))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second.load_state(*first.state())
    assert same(trained(second)[0], whole)
    assert second.history == history


def spoil(trainer: VAETrainer, data: FashionMNISTManager, epoch: int, step: int) -> None:
    """The terms of one step are NaN."""
    compute, count = trainer.compute, iter(range(1, 1000))

    def spoiled(batch: Any, numbers: Any) -> Terms:
        terms = compute(batch, numbers)
        factor = math.nan if next(count) == (epoch - 1) * NUM_STEPS + step else 1.0
        return Terms(terms.loss * factor, {**terms.parts, "recon": terms.parts["recon"] * factor})

    trainer.compute = spoiled  # type: ignore[method-assign]


@pytest.mark.parametrize("step", [1, 3, NUM_STEPS])
@pytest.mark.parametrize("name", ["base_adam", "conv_momentum_clipped"])
def test_after_a_step_that_is_not_finite_no_weight_changes(name, step, data):
    plain, ours = CASES[name].trainer(data), with_engine(CASES[name], data)
    for trainer in (plain, ours):
        spoil(trainer, data, 2, step)
        with pytest.raises(NumericsError, match=rf"epoch 2, step {step}\b.*recon is nan"):
            trainer.train()
    assert same(snapshot(ours), snapshot(plain))


def test_negative_control_unguarded_the_weights_change(data, monkeypatch):
    trainer = with_engine(CASES["base_adam"], data)
    spoil(trainer, data, 2, 3)
    monkeypatch.setattr(Adam, "found_inf", property(lambda self: None, lambda self, value: None), raising=False)
    with pytest.raises(NumericsError):
        trainer.train()
    assert not all(tensor.isfinite().all() for tensor in snapshot(trainer).values())


def test_a_stop_after_a_step_that_was_not_finite_saves_nothing(data):
    trainer = with_engine(CASES["base_adam"], data)
    spoil(trainer, data, 2, 2)
    told = []
    watcher = StopAt(2, 3)
    watcher.on_stop = lambda *_: told.append(True)  # type: ignore[method-assign]
    trainer.observers.append(watcher)
    with pytest.raises(NumericsError, match="step 2"):
        trainer.train()
    assert not told


def leave_out(trainer: VAETrainer, name: str) -> None:
    """What lies on the device under this name is not laid out anew for an epoch."""
    engine = engine_of(trainer)
    lay_out, kept = engine._lay_out, getattr(engine, name)

    def without(epoch: int, done: int) -> None:
        before = kept.clone()
        lay_out(epoch, done)
        kept.copy_(before)

    engine._lay_out = without  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["order", "schedule"])
def test_negative_control_what_differs_between_steps_is_laid_out_anew(name, data):
    case = CASES["batch_norm_adamw_cosine_warmup"]
    whole, _ = trained(case.trainer(data))
    trainer = with_engine(case, data)
    leave_out(trainer, name)
    assert not same(trained(trainer)[0], whole)


def test_negative_control_without_going_back_to_the_first_step_the_second_epoch_has_no_images(data):
    trainer = with_engine(CASES["base_adam"], data)
    leave_out(trainer, "at")
    with pytest.raises((IndexError, RuntimeError)):
        trainer.train()
    assert trainer.epoch == 1


@pytest.mark.parametrize(
    ("make", "stays"),
    [
        (lambda p: Adam(p, fused=True), True),
        (lambda p: AdamW(p, fused=True), True),
        (lambda p: SGD(p, fused=True), True),
        (Adam, False),
        (SGD, False),
        (RMSprop, False),
    ],
)
def test_only_fused_optimizers_step_without_asking(make, stays, data):
    assert can_stay(Case(lambda: BaseVAE(2, hidden_dim=16), make).trainer(data)) is stays


# --- capturing, with a graph that only remembers what it was made of -------------------------------------------


class FakeGraph:
    made: list["FakeGraph"]

    def __init__(self):
        FakeGraph.made.append(self)
        self.replays, self.step = 0, None

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generator = generator

    def replay(self) -> None:
        assert self.step is not None
        self.replays += 1
        self.step()


@pytest.fixture
def captures(monkeypatch) -> Callable[[VAETrainer], None]:
    """Steps of this trainer are captured by ``FakeGraph``."""

    def use(trainer: VAETrainer, refuse: bool = False) -> None:
        ours = engine_of(trainer)
        ours.capture, step = True, ours._step
        FakeGraph.made = []

        @contextmanager
        def capture(graph: FakeGraph, **_: Any):
            assert all(group["capturable"] for group in trainer.optimizer.param_groups)
            assert graph.generator is ours.generator
            if refuse:
                raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
            ours._step = lambda size: setattr(graph, "step", lambda: step(size))  # type: ignore[method-assign]
            try:
                yield
            finally:
                ours._step = step  # type: ignore[method-assign]

        monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
        monkeypatch.setattr(torch.cuda, "graph", capture)
        monkeypatch.setattr(ours, "_step_aside", lambda size: step(size))

    return use


def test_whole_batches_are_replayed_and_the_rest_is_launched(data, captures):
    whole, history = trained(CASES["base_adam"].trainer(data))
    trainer = with_engine(CASES["base_adam"], data)
    captures(trainer)
    assert same(trained(trainer)[0], whole)
    assert trainer.history == history
    (graph,) = FakeGraph.made
    assert graph.replays == 3 * (NUM_STEPS - 1) - EAGER_STEPS
    assert "capturable" not in SGD([torch.zeros(1)], fused=True).param_groups[0]
    assert trainer.optimizer.param_groups[0]["capturable"] is False, "it would be in every checkpoint"


@pytest.mark.parametrize("name", ["batch_norm_adamw_cosine_warmup", "conditional_capacity_steps"])
def test_another_learning_rate_is_another_graph(name, data, captures):
    whole, _ = trained(CASES[name].trainer(data))
    trainer = with_engine(CASES[name], data)
    captures(trainer)
    assert same(trained(trainer)[0], whole)
    assert len(FakeGraph.made) == 2, "epochs 2 and 3; the first had no more than the steps before a capture"


def test_another_state_is_another_graph(data, captures):
    """A graph steps on the tensors that it was made with."""
    whole, _ = trained(CASES["base_adam"].trainer(data))
    trainer = with_engine(CASES["base_adam"], data)
    captures(trainer)
    trainer.epochs, epochs = 2, trainer.epochs
    trainer.train()
    made = len(FakeGraph.made)
    trainer.load_state(*deepcopy(trainer.state()))
    trainer.epochs = epochs
    assert same(trained(trainer)[0], whole)
    assert (made, len(FakeGraph.made)) == (1, 2)


def test_where_capturing_is_not_possible_steps_are_launched(data, captures, caplog):
    caplog.set_level("INFO", "fmvae")
    whole, _ = trained(CASES["conv_momentum_clipped"].trainer(data))
    trainer = with_engine(CASES["conv_momentum_clipped"], data)
    captures(trainer, refuse=True)
    before = engine_of(trainer).generator
    assert same(trained(trainer)[0], whole)
    (line,) = [m for m in caplog.messages if "CUDA graph" in m]
    assert line.endswith("operation not permitted when stream is capturing")
    assert engine_of(trainer).generator is not before, "it may be left in the middle of the capture"
    assert "capturable" not in trainer.optimizer.param_groups[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_a_captured_run_is_the_plain_one(name, small_data):
    data = data_of(small_data, device="cuda")
    case = CASES[name]
    made = [case.trainer(data) for _ in range(3)]
    for trainer in made:
        trainer.model.to("cuda")
    plain, captured, stopped = made
    captured.engine = CUDAGraph(captured)
    whole, history = trained(plain)
    assert same(trained(captured)[0], whole)
    assert captured.history == history
    assert engine_of(captured).capture, "it fell back"
    stopped.engine = CUDAGraph(stopped)
    stopped.observers.append(StopAt(2, 2))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = case.trainer(data)
    resumed.model.to("cuda")
    resumed.engine = CUDAGraph(resumed)
    resumed.load_state(*stopped.state())
    assert same(trained(resumed)[0], whole)
