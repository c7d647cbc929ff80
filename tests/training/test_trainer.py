"""The training loop is the textbook's to the last bit, resumes exactly, and stops before a bad number counts."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fmvae import rng
from fmvae.data import FashionMNISTManager, Split
from fmvae.errors import ConfigError, NumericsError
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.objectives import ELBO, Constant, Warmup
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.observer import Observer
from fmvae.training import ConditionalVAETrainer, VAETrainer
from tests.training.cases import BASE, CASES, NUM_STEPS, Case, data_of, same, snapshot


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)


# --- the loop, written out again -----------------------------------------------------------------------------

Weights = dict[str, Tensor]
Forward = Callable[[Any, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor, Tensor]]


def named_stream(seed: int, role: str, epoch: int) -> torch.Generator:
    head = hashlib.sha256(f"{seed}/{role}/{epoch}".encode()).digest()[:4]
    return torch.Generator().manual_seed(int.from_bytes(head, "big"))


def forward_by_hand(
    model: Any, x: Tensor, labels: Tensor, noise: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """BaseVAE out of its weights: logits, mu and logvar."""
    w: Weights = dict(model.named_parameters())

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, w[f"{name}.weight"], w[f"{name}.bias"])

    hidden = linear("encoder.1", x.reshape(len(x), 784)).clamp(min=0)
    mu, logvar = linear("mu", hidden), linear("logvar", hidden)
    z = mu + torch.randn(mu.shape, generator=noise) * torch.exp(0.5 * logvar)
    logits = linear("decoder.2", linear("decoder.0", z).clamp(min=0))
    return logits.reshape(-1, 1, 28, 28), mu, logvar


def forward_unconditional(model: Any, x: Tensor, labels: Tensor, noise: torch.Generator):
    logits, mu, logvar, _ = model(x, generator=noise)
    return logits, mu, logvar


def forward_conditional(model: Any, x: Tensor, labels: Tensor, noise: torch.Generator):
    logits, mu, logvar, _ = model(x, labels, generator=noise)
    return logits, mu, logvar


def train_by_hand(
    case: Case,
    data: FashionMNISTManager,
    forward: Forward,
    *,
    epochs: int,
    seed: int,
    beta: Callable[[float], float] = lambda progress: 1.0,
    max_grad_norm: float | None = None,
) -> tuple[Weights, list[dict[str, float]]]:
    """The loop as a textbook has it; returns the weights and a row per epoch."""
    with rng.seeded_init(0):
        model = case.model()
    optimizer = case.optimizer(model.parameters())
    scheduler = case.scheduler(optimizer) if case.scheduler else None
    images, labels = data.train.images, data.train.labels
    rows = []
    for epoch in range(1, epochs + 1):
        model.train()
        order = torch.randperm(len(images), generator=named_stream(seed, "shuffle", epoch))
        noise = named_stream(seed, "noise", epoch)
        row = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"]}
        sums = dict.fromkeys(("recon", "kl", "objective", "grad_norm"), 0.0)
        for step, start in enumerate(range(0, len(images), data.batch_size)):
            index = order[start : start + data.batch_size]
            x = images[index].float() / 255
            row["beta"] = beta(((epoch - 1) * NUM_STEPS + step) / (epochs * NUM_STEPS))

            logits, mu, logvar = forward(model, x, labels[index], noise)
            recon = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1).mean()
            kl = (0.5 * (mu**2 + torch.expm1(logvar) - logvar)).sum(1).mean()
            loss = recon + row["beta"] * kl

            optimizer.zero_grad()
            loss.backward()
            limit = math.inf if max_grad_norm is None else max_grad_norm
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
            for name, term in zip(sums, (recon, kl, loss, norm), strict=True):
                sums[name] += term.item() * len(x)
        if scheduler:
            scheduler.step()
        rows.append(row | {f"train/{name}": total / len(images) for name, total in sums.items()})
    return model.state_dict(), rows


def check_against_hand(case: Case, data: FashionMNISTManager, forward: Forward, **settings: Any) -> list[dict]:
    """Train both ways; the weights and rows must be the same bits. Returns the rows."""
    schedule = case.beta()
    weights, rows = train_by_hand(case, data, forward, beta=schedule.weight, **settings)
    trainer = case.trainer(data, **settings)
    history = trainer.train()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    trained = [{key: value for key, value in row.items() if not key.startswith("val/")} for row in history]
    assert trained == rows
    return rows


def test_base_vae_trains_as_written_out_by_hand(data):
    check_against_hand(BASE, data, forward_by_hand, epochs=2, seed=0)


def test_the_comparison_by_hand_sees_another_seed(data):
    weights, _ = train_by_hand(BASE, data, forward_by_hand, epochs=1, seed=1)
    trainer = BASE.trainer(data, epochs=1, seed=0)
    trainer.train()
    assert not torch.equal(trainer.model.state_dict()["mu.weight"], weights["mu.weight"])


@pytest.mark.parametrize(
    ("name", "forward"),
    [("batch_norm_adamw_cosine_warmup", forward_unconditional), ("conditional_plateau", forward_conditional)],
)
def test_other_models_train_as_written_out_by_hand(name, forward, data):
    case = CASES[name]
    if name == "conditional_plateau":  # its scheduler asks for validations
        case = Case(case.model, case.optimizer)
    check_against_hand(case, data, forward, epochs=2, seed=5)


def test_gradients_are_clipped_as_torch_clips_them(data):
    plain = check_against_hand(BASE, data, forward_by_hand, epochs=1, seed=0)
    clipped = check_against_hand(BASE, data, forward_by_hand, epochs=1, seed=0, max_grad_norm=5.0)
    assert clipped[0]["train/grad_norm"] > 5  # the norm before clipping is what is reported
    assert clipped != plain


@pytest.mark.parametrize("case", [BASE, CASES["conv_momentum"]], ids=["base", "conv"])
def test_a_generous_gradient_norm_changes_nothing(case, data):
    plain, generous = (case.trainer(data, epochs=1, max_grad_norm=norm) for norm in (None, 1e9))
    assert plain.train() == generous.train()
    assert same(snapshot(plain), snapshot(generous))


def test_the_beta_of_a_row_is_that_of_its_last_step(data):
    case = Case(BASE.model, BASE.optimizer, lambda: Warmup(4.0, fraction=0.5))
    history = check_against_hand(case, data, forward_by_hand, epochs=4, seed=0)
    last_steps = [(NUM_STEPS * epoch - 1) / (NUM_STEPS * 4) for epoch in (1, 2, 3, 4)]
    assert [row["beta"] for row in history] == [4.0 * min(progress / 0.5, 1.0) for progress in last_steps]
    assert history[0]["train/objective"] < history[0]["train/recon"] + 4 * history[0]["train/kl"]


def test_training_means_weigh_every_image_equally(small_data):
    """A short last batch counts by its images: with the weights at rest, batches do not matter."""
    means = []
    for batch_size in (100, 32, 7):
        data = data_of(small_data, batch_size=batch_size)
        (row,) = Case(BASE.model, lambda p: torch.optim.SGD(p, lr=0.0)).trainer(data, epochs=1).train()
        means.append(row["train/kl"])
    assert means == pytest.approx([means[0]] * 3, rel=1e-6)


def test_the_model_trains_in_training_mode_whatever_it_was_in(data):
    seen: list[bool] = []

    class Modes(Observer):
        def on_step(self, trainer: VAETrainer, step: int) -> None:
            seen.append(trainer.model.training)

        def on_epoch_end(self, trainer: VAETrainer, row: Mapping[str, float]) -> None:
            trainer.model.eval()

    trainer = CASES["batch_norm_adamw_cosine_warmup"].trainer(data, epochs=2, observers=[Modes()])
    trainer.model.eval()
    trainer.train()
    assert seen == [True] * 2 * NUM_STEPS


# --- who may train whom --------------------------------------------------------------------------------------


def test_a_trainer_refuses_the_other_kind_of_model(data):
    for kind, model, way_out in (
        (VAETrainer, ConditionalVAE(2, hidden_dim=4), "ConditionalVAE needs labels; train it with Conditional"),
        (ConditionalVAETrainer, BaseVAE(2, hidden_dim=4), "BaseVAE takes no labels; train it with VAETrainer"),
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        with pytest.raises(ConfigError, match=way_out):
            kind(model, ELBO(), data, optimizer, epochs=1)


# --- resuming ------------------------------------------------------------------------------------------------


class Saver(Observer):
    """Saves every epoch under its own name."""

    def __init__(self, directory: Path):
        self.directory = directory

    def on_epoch_end(self, trainer: VAETrainer, row: Mapping[str, float]) -> None:
        save_checkpoint(self.directory / f"{trainer.epoch}", *trainer.state())


def resumed(case: Case, data: FashionMNISTManager, path: Path, **settings: Any) -> VAETrainer:
    """Fresh objects, of another initialisation, with the state of a file."""
    trainer = case.trainer(data, init_seed=99, **settings)
    checkpoint = load_checkpoint(path)
    trainer.load_state(checkpoint.tensors, checkpoint.meta)
    return trainer


@pytest.mark.parametrize("name", CASES)
def test_resuming_at_any_epoch_gives_the_same_bits(name, data, tmp_path):
    case = CASES[name]
    undisturbed = case.trainer(data, observers=[Saver(tmp_path)])
    history = undisturbed.train()
    assert len({row["lr"] for row in history}) > 1 or not case.scheduler  # the scheduler has work to do
    for epoch in range(1, undisturbed.epochs + 1):
        trainer = resumed(case, data, tmp_path / str(epoch))
        assert trainer.epoch == epoch
        assert trainer.train() == history
        assert same(snapshot(trainer), snapshot(undisturbed))
        assert json.dumps(trainer.state().meta) == json.dumps(undisturbed.state().meta)


def test_resuming_twice_gives_the_same_bits(data, tmp_path):
    case = CASES["batch_norm_adamw_cosine_warmup"]
    undisturbed = case.trainer(data, observers=[Saver(tmp_path / "a")])
    undisturbed.train()
    for epoch in (1, 2):
        trainer = resumed(case, data, tmp_path / ("a" if epoch == 1 else "b") / str(epoch))
        trainer.observers.append(Saver(tmp_path / "b"))
        trainer.train()
        assert same(snapshot(trainer), snapshot(undisturbed))


def first_epoch(case: Case, data: FashionMNISTManager, path: Path) -> tuple[VAETrainer, dict, dict]:
    """An undisturbed trainer, and the tensors and meta after its first epoch."""
    undisturbed = case.trainer(data, observers=[Saver(path)])
    undisturbed.train()
    checkpoint = load_checkpoint(path / "1")
    return undisturbed, checkpoint.tensors, checkpoint.meta


@pytest.mark.parametrize("role", ["shuffle", "noise"])
def test_resuming_with_a_stream_one_epoch_off_would_differ(role, data, tmp_path, monkeypatch):
    undisturbed, _, _ = first_epoch(BASE, data, tmp_path)
    stream = rng.stream

    def shifted(seed, name, epoch=0, device="cpu"):
        return stream(seed, name, epoch + (name == role), device)

    monkeypatch.setattr(rng, "stream", shifted)
    trainer = resumed(BASE, data, tmp_path / "1")
    trainer.train()
    assert not same(snapshot(trainer), snapshot(undisturbed))


@pytest.mark.parametrize(
    ("name", "forgotten"),
    [
        ("base_adam", "optimizer.0.exp_avg"),
        ("base_adam", "optimizer.0.step"),
        ("conv_momentum", "optimizer.0.momentum_buffer"),
        ("batch_norm_adamw_cosine_warmup", "model.encoder.4.running_mean"),
        ("batch_norm_adamw_cosine_warmup", "scheduler"),
    ],
)
def test_resuming_without_a_part_of_the_state_would_differ(name, forgotten, data, tmp_path):
    case = CASES[name]
    undisturbed, tensors, meta = first_epoch(case, data, tmp_path)
    trainer = case.trainer(data)
    if forgotten == "scheduler":
        meta[forgotten]["last_epoch"] = 0
    else:
        tensors[forgotten] = torch.zeros_like(tensors[forgotten])
    trainer.load_state(tensors, meta)
    trainer.train()
    assert not same(snapshot(trainer), snapshot(undisturbed))


def test_a_trained_trainer_has_nothing_left_to_do(data):
    trainer = BASE.trainer(data, epochs=1)
    history = list(trainer.train())
    before = snapshot(trainer)
    assert trainer.train() == history
    assert same(snapshot(trainer), before)


def test_the_seed_and_nothing_else_decides_the_bits(data):
    a, b, other = (BASE.trainer(data, epochs=1, seed=seed) for seed in (3, 3, 4))
    torch.manual_seed(1)
    a.train()
    torch.manual_seed(2)
    b.train()
    other.train()
    assert same(snapshot(a), snapshot(b))
    assert not same(snapshot(a), snapshot(other))


def test_training_leaves_the_global_generator_alone(data):
    before = torch.get_rng_state()
    BASE.trainer(data, epochs=1).train()
    assert torch.equal(torch.get_rng_state(), before)


# --- watching and validating ---------------------------------------------------------------------------------


class Nosy(Observer):
    """Draws, evaluates, samples, and looks at the state."""

    def __init__(self, *, evaluating: bool = True) -> None:
        self.calls: list[str] = []
        self.evaluating = evaluating

    def look(self, trainer: VAETrainer) -> None:
        torch.rand(7)
        trainer.model.train(not self.evaluating)
        trainer.model.sample(3)
        trainer.model.train()
        trainer.evaluate(trainer.data.val, at_mean=True)
        trainer.state()

    def on_train_start(self, trainer: VAETrainer) -> None:
        self.calls.append("start")
        self.look(trainer)

    def on_step(self, trainer: VAETrainer, step: int) -> None:
        self.calls.append(f"step {step}")
        if step % 2:
            self.look(trainer)

    def on_epoch_end(self, trainer: VAETrainer, row: Mapping[str, float]) -> None:
        assert row is trainer.history[-1]
        assert row["epoch"] == trainer.epoch
        self.calls.append(f"end {trainer.epoch}")
        self.look(trainer)


@pytest.mark.parametrize("name", ["base_adam", "batch_norm_adamw_cosine_warmup"])
def test_watching_changes_no_bit(name, data):
    observer = Nosy()
    alone, watched = CASES[name].trainer(data, epochs=2), CASES[name].trainer(data, epochs=2, observers=[observer])
    assert alone.train() == watched.train()
    assert same(snapshot(alone), snapshot(watched))
    steps = [f"step {n}" for n in (1, 2, 3, 4)]
    assert observer.calls == ["start", *steps, "end 1", *steps, "end 2"]


def test_an_observer_that_samples_in_training_mode_would_be_noticed(data):
    """Batch norm learns from whatever passes through it then."""
    case = CASES["batch_norm_adamw_cosine_warmup"]
    alone, watched = case.trainer(data), case.trainer(data, observers=[Nosy(evaluating=False)])
    alone.train()
    watched.train()
    assert not same(snapshot(alone), snapshot(watched))


def test_an_observer_that_writes_would_be_noticed(data):
    class Meddler(Observer):
        def on_step(self, trainer: VAETrainer, step: int) -> None:
            with torch.no_grad():
                trainer.parameters[0].add_(1e-6)

    alone, meddled = BASE.trainer(data, epochs=1), BASE.trainer(data, epochs=1, observers=[Meddler()])
    alone.train()
    meddled.train()
    assert not same(snapshot(alone), snapshot(meddled))


@pytest.mark.parametrize("name", ["base_adam", "batch_norm_adamw_cosine_warmup"])
def test_validating_more_or_less_often_changes_no_bit_of_training(name, data):
    trainers = {every: CASES[name].trainer(data, epochs=3, validate_every=every) for every in (1, 2, 9)}
    validated = {}
    for every, trainer in trainers.items():
        history = trainer.train()
        validated[every] = [row["epoch"] for row in history if "val/objective" in row]
        assert same(snapshot(trainer), snapshot(trainers[1]))
        assert [row["train/kl"] for row in history] == [row["train/kl"] for row in trainers[1].history]
        assert history[-1] == trainers[1].history[-1]
    assert validated == {1: [1, 2, 3], 2: [2, 3], 9: [3]}  # the last epoch always is


def test_evaluate_takes_the_test_split_unless_told_and_repeats_itself(data):
    trainer = BASE.trainer(data)
    assert trainer.evaluate() == trainer.evaluate(data.test) == trainer.evaluate()
    assert trainer.evaluate(data.val) != trainer.evaluate()
    assert set(trainer.evaluate()) == {"objective", "recon", "kl", "neg_elbo"}
    assert set(trainer.evaluate(at_mean=True)) > {"recon_at_mean", "objective_at_mean"}


def test_validations_differ_by_the_weights_alone(data):
    """With the weights at rest every epoch validates the same, drawn noise included; training does not."""
    history = Case(BASE.model, lambda p: torch.optim.SGD(p, lr=0.0)).trainer(data).train()
    for key, value in history[0].items():
        others = [row[key] for row in history[1:]]
        assert (others == [value] * 2) == (key.startswith("val/") or key in ("beta", "lr")), key


def test_an_empty_split_is_not_taken_for_no_split(data):
    empty = Split("empty", data.val.images[:0], data.val.labels[:0])
    assert math.isnan(BASE.trainer(data).evaluate(empty)["recon"])


# --- numbers that are none -----------------------------------------------------------------------------------


class Poisoned(Split):
    """A split whose third batch holds a pixel that is no number, from its ``after``-th pass on."""

    def __init__(self, split: Split, after: int):
        super().__init__(split.name, split.images, split.labels)
        object.__setattr__(self, "passes_left", after)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        object.__setattr__(self, "passes_left", self.passes_left - 1)  # pyright: ignore[reportAttributeAccessIssue]
        for n, (x, labels) in enumerate(super().batches(batch_size, generator), 1):
            if n == 3 and self.passes_left < 0:  # pyright: ignore[reportAttributeAccessIssue]
                x[0, 0, 0, 0] = math.nan
            yield x, labels


class KeepLast(Observer):
    """The state after the newest step."""

    def on_train_start(self, trainer: VAETrainer) -> None:
        self.on_step(trainer, 0)

    def on_step(self, trainer: VAETrainer, step: int) -> None:
        self.step, self.state = step, snapshot(trainer)


def fails_at(trainer: VAETrainer, where: str, step: int, history: int = 0) -> None:
    """Training stops with the error, before the optimizer's step and with whole epochs only in the history."""
    trainer.observers.append(keeper := KeepLast())
    with pytest.raises(NumericsError, match=where):
        trainer.train()
    assert keeper.step == step - 1
    assert same(snapshot(trainer), keeper.state)
    assert trainer.epoch == len(trainer.history) == history


def test_a_pixel_that_is_no_number_stops_before_the_step(data):
    data.train = Poisoned(data.train, after=1)
    fails_at(BASE.trainer(data), r"epoch 2, step 3: recon is nan; lower optimizer\.lr", step=3, history=1)


def test_without_the_pixel_it_would_not_stop(data):
    data.train = Poisoned(data.train, after=99)
    assert len(BASE.trainer(data).train()) == 3


def test_a_divergence_that_overflows_is_named(data):
    trainer = BASE.trainer(data)
    with torch.no_grad():
        trainer.model.get_parameter("logvar.bias").fill_(100.0)  # exp(100) is beyond float32
    fails_at(trainer, "epoch 1, step 1: kl is inf", step=1)


class Diverging(Constant):
    """A weight that is infinite from half of training on."""

    def weight(self, progress: float) -> float:
        return 1.0 if progress < 0.5 else math.inf


def test_an_infinite_objective_is_named(data):
    case = Case(BASE.model, BASE.optimizer, Diverging)
    fails_at(case.trainer(data, epochs=1), "epoch 1, step 3: objective is inf", step=3)


@pytest.mark.parametrize(
    ("factor", "where"),
    [(math.nan, r"gradient of mu\.weight is nan"), (math.inf, r"gradient of mu\.weight is (nan|inf)")],
)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_named(factor, where, max_grad_norm, data):
    trainer = BASE.trainer(data, max_grad_norm=max_grad_norm)
    calls = []

    def spoil(gradient: Tensor) -> Tensor:
        calls.append(None)
        return gradient * factor if len(calls) == 6 else gradient

    trainer.model.get_parameter("mu.weight").register_hook(spoil)
    fails_at(trainer, f"epoch 2, step 2: {where}", step=2, history=1)


def test_finite_gradients_with_an_infinite_norm_are_named(data):
    trainer = BASE.trainer(data)
    trainer.model.get_parameter("mu.weight").register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    fails_at(trainer, "epoch 1, step 1: gradient norm is inf", step=1)


def test_a_validation_that_is_no_number_stops_and_names_itself(data):
    class NoNumber(Split):
        def batches(self, batch_size, generator=None):
            yield from ((x * math.nan, labels) for x, labels in super().batches(batch_size, generator))

    data.val = NoNumber("val", data.val.images, data.val.labels)
    trainer = BASE.trainer(data, validate_every=2)
    with pytest.raises(NumericsError, match=r"epoch 2, validation: val/\w+ is nan"):
        trainer.train()
    assert [row["epoch"] for row in trainer.history] == [1]


# --- the best epoch, and stopping early ----------------------------------------------------------------------


def scripted(trainer: VAETrainer, objectives: list[float]) -> VAETrainer:
    """A trainer whose n-th epoch validates at the n-th objective, whatever it learns."""

    def evaluate(split: Split | None = None, *, at_mean: bool = False) -> dict[str, float]:
        return {"objective": objectives[trainer.epoch]}

    trainer.evaluate = evaluate
    return trainer


@pytest.mark.parametrize(
    ("objectives", "best"),
    [
        ([3.0, 2.0, 1.0], 3),
        ([1.0, 2.0, 3.0], 1),
        ([2.0, 1.0, 1.0], 2),
        ([math.nan, 2.0, 1.5], 3),
        ([2.0, math.nan, 3.0], 1),
        ([math.inf, 7.0, -math.inf], 2),
        ([math.nan] * 3, None),
        ([], None),
    ],
)
def test_the_best_epoch_is_the_first_with_the_lowest_finite_objective(objectives, best, data):
    trainer = BASE.trainer(data)
    trainer.history = [{"epoch": n, "val/objective": value} for n, value in enumerate(objectives, 1)]
    assert (trainer.best and trainer.best["epoch"]) == best


def test_epochs_without_a_validation_are_never_best(data):
    trainer = BASE.trainer(data)
    trainer.history = [{"epoch": 1}, {"epoch": 2, "val/objective": 5.0}, {"epoch": 3}]
    assert trainer.best is trainer.history[1]


OBJECTIVES = [5.0, 4.0, 4.5, 4.2, 3.0, 3.5, 3.0, 3.1, 2.0, 9.0]


@pytest.mark.parametrize(
    ("patience", "validate_every", "epochs_run"),
    [(1, 1, 3), (2, 1, 4), (3, 1, 8), (4, 1, 10), (None, 1, 10), (1, 2, 4), (2, 2, 10), (1, 3, 10)],
)
def test_training_stops_after_so_many_validations_without_a_better_one(patience, validate_every, epochs_run, data):
    settings = {"epochs": 10, "patience": patience, "validate_every": validate_every}
    trainer = scripted(BASE.trainer(data, **settings), OBJECTIVES)
    assert len(trainer.train()) == trainer.epoch == epochs_run
    assert trainer.stopped_early or epochs_run == 10


def test_patience_survives_a_resume(data, tmp_path):
    settings = {"epochs": 10, "patience": 3}
    trainer = scripted(BASE.trainer(data, **settings, observers=[Saver(tmp_path)]), OBJECTIVES)
    trainer.train()
    for epoch in (1, 4, 7, 8):
        again = scripted(resumed(BASE, data, tmp_path / str(epoch), **settings), OBJECTIVES)
        assert len(again.train()) == 8
        assert same(snapshot(again), snapshot(trainer))


def test_training_learns(data):
    history = BASE.trainer(data, epochs=12).train()
    assert history[-1]["val/objective"] < 0.6 * history[0]["val/objective"]
