"""An objective with a part of its own is trained, recorded and measured like ours, whatever takes the steps."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from fmvae import rng
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.evaluation import measure_elbo
from fmvae.models import BaseVAE
from fmvae.objectives import ELBO, Batch, Constant, Objective, Terms, Warmup, kl_divergence
from fmvae.rng import seeded_init
from fmvae.training import VAETrainer
from fmvae.training.engines.cuda_graph import CUDAGraph
from fmvae.training.engines.stack import Stack
from tests.training.cases import data_of, same, snapshot
from tests.training.test_stack import train_epoch, worst


class Spread(ELBO):
    """The ELBO and a penalty on the variance of mu over the batch, whose weight follows a schedule of its own.

    It takes the mean of two posterior draws, too, and calls the model's methods itself.
    """

    num_draws = 2

    def __init__(self, gamma: float = 3.0, **options: Any):
        super().__init__(**options)
        self.gamma = Warmup(gamma, fraction=0.5)

    def numbers(self, progress: float) -> dict[str, float]:
        return super().numbers(progress) | {"gamma": self.gamma.weight(progress)}

    def __call__(self, model: Any, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        mu, logvar = model.encode(batch.x, batch.labels)
        recon: Any = 0.0
        for noise in batch.noise:
            logits = model.decode(model.reparameterize(mu, logvar, noise=noise), batch.labels)
            recon = recon + self.likelihood.nll(logits, batch.x).mean() / len(batch.noise)
        kl, spread = (
            kl_divergence(mu, logvar).sum(1).mean(),
            mu.var(0, correction=0).sum() * len(batch.x) / batch.num_train,
        )
        loss = recon + self.beta.penalty(kl, numbers) + numbers["gamma"] * spread
        return Terms(loss, {"recon": recon, "kl": kl, "spread": spread})

    def of_means(self, recon: float, kl: float) -> None:  # type: ignore[override]
        return None


class InTurn(Spread):
    """The same, said to be beyond ``vmap``."""

    vmap = False


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)


def trainer_of(
    data: FashionMNISTManager, objective: Objective | None = None, *, seed: int = 0, z: int = 2, **settings: Any
) -> VAETrainer:
    with seeded_init(seed):
        model = BaseVAE(z, hidden_dim=16)
    optimizer = Adam(model.parameters(), lr=1e-3, eps=1e-5, fused=True)
    objective = objective or Spread(beta=Warmup(2.0, fraction=0.5))
    options: dict[str, Any] = {"epochs": 3, "seed": seed} | settings
    return VAETrainer(model, objective, data, optimizer, **options)


def test_its_part_is_in_every_row(data):
    trainer = trainer_of(data)
    history = trainer.train()
    for row in history:
        names = [column.removeprefix("train/") for column in row if column.startswith("train/")]
        assert names == ["recon", "kl", "spread", "objective", "grad_norm"]
        assert row["val/spread"] > 0
    assert list(trainer.terms) == ["objective", "recon", "kl", "spread"]
    first, last = history[0]["train/spread"], history[-1]["train/spread"]
    free = trainer_of(data, Spread(gamma=0.0, beta=Warmup(2.0, fraction=0.5))).train()
    assert last / first < free[-1]["train/spread"] / free[0]["train/spread"], "the penalty presses on nothing"


def test_without_reading_from_the_device_it_is_the_same_to_the_last_bit(data):
    plain, ours = trainer_of(data), trainer_of(data)
    ours.engine = CUDAGraph(ours, capture=False)
    assert ours.train() == plain.train()
    assert same(snapshot(ours), snapshot(plain))


def by_hand(data: FashionMNISTManager, epochs: int) -> tuple[dict[str, Tensor], list[float]]:
    """The same training, written with nothing of the trainer's: the weights, and the mean spread of each epoch."""
    with seeded_init(0):
        model = BaseVAE(2, hidden_dim=16)
    optimizer = Adam(model.parameters(), lr=1e-3, eps=1e-5, fused=True)
    steps, spreads = -(-len(data.train) // data.batch_size), []
    for epoch in range(1, epochs + 1):
        noise, shuffle = rng.stream(0, "noise", epoch), rng.stream(0, "shuffle", epoch)
        order, total = torch.randperm(len(data.train), generator=shuffle), 0.0
        for step, index in enumerate(order.split(data.batch_size)):
            x = data.train.images[index].float() / 255
            draws = torch.randn(2, len(x), 2, generator=noise)
            progress = ((epoch - 1) * steps + step) / (epochs * steps)
            mu, logvar = model.encode(x)
            recon: Any = 0.0
            for draw in draws:
                logits = model.decode(mu + draw * (logvar / 2).exp())
                bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
                recon = recon + bce / len(x) / 2
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / len(x)
            spread = (mu - mu.mean(0)).square().mean(0).sum() * len(x) / len(data.train)
            loss = recon + 2.0 * min(progress / 0.5, 1) * kl + 3.0 * min(progress / 0.5, 1) * spread
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += spread.item() * len(x)
        spreads.append(total / len(data.train))
    return dict(model.state_dict()), spreads


def test_it_trains_as_written_out_by_hand(data):
    trainer = trainer_of(data)
    history = trainer.train()
    weights, spreads = by_hand(data, 3)
    assert [row["train/spread"] for row in history] == pytest.approx(spreads, rel=1e-4)
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [Spread, InTurn])
def test_stacked_each_is_the_run_it_would_be_alone(kind, data):
    def make() -> list[VAETrainer]:
        betas = (Warmup(2.0, fraction=0.5), Warmup(1.0))
        return [trainer_of(data, kind(beta=beta), seed=seed) for seed, beta in enumerate(betas)]

    alone, stacked = make(), make()
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked)
    assert stack.batched is kind.vmap
    for _ in range(3):
        train_epoch(stack)
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-4
        for a, b in zip(ours.history, theirs.history, strict=True):
            assert a == pytest.approx(b, rel=1e-4)
            assert "train/spread" in a


class OfItsOwnBeta(ELBO):
    """Uses a beta that is not among the numbers: in one pass for all, every run would have the first run's."""

    def __call__(self, model: Any, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        terms = super().__call__(model, batch, numbers)
        return terms._replace(loss=terms.parts["recon"] + self.beta.value * terms.parts["kl"])


class Reading(ELBO):
    """Asks for a number of the device, which ``vmap`` cannot give."""

    def __call__(self, model: Any, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        terms = super().__call__(model, batch, numbers)
        return terms if terms.loss.item() > 0 else terms._replace(loss=-terms.loss)


@pytest.mark.parametrize(("kind", "why"), [(OfItsOwnBeta, "a run's loss would be"), (Reading, "vmap")])
def test_what_cannot_run_as_one_batch_is_stepped_in_turn_and_said(kind, why, data, caplog):
    def make() -> list[VAETrainer]:
        return [trainer_of(data, kind(beta=Constant(value)), seed=seed) for seed, value in enumerate((1.0, 4.0))]

    alone, stacked = make(), make()
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked)
    for _ in range(3):
        train_epoch(stack)
    assert not stack.batched
    (said,) = [message for message in caplog.messages if "cannot run as one batch" in message]
    assert kind.__name__ in said
    assert why in said
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-4


def test_negative_control_not_tried_every_run_has_the_first_ones_beta(data):
    trainers = [trainer_of(data, OfItsOwnBeta(beta=Constant(value)), seed=0) for value in (1.0, 4.0)]
    stack = Stack(trainers)
    stack.tried = True
    for _ in range(3):
        train_epoch(stack)
    assert stack.batched
    assert trainers[0].history[-1]["train/objective"] == trainers[1].history[-1]["train/objective"]


def test_resumed_it_goes_on_exactly(data):
    whole, first = trainer_of(data), trainer_of(data, epochs=3)
    whole.train()
    first.end_epoch(first._train_epoch(1))
    second = trainer_of(data)
    second.load_state(*first.state())
    assert second.train() == whole.history
    assert same(snapshot(second), snapshot(whole))


# --- measured on a split ------------------------------------------------------------------------------------


def test_on_a_split_its_parts_are_means_over_training_batches_and_the_elbo_is_as_ever(data):
    trainer = trainer_of(data)
    trainer.train()
    ours = trainer.evaluate(data.test, at_mean=True)
    elbo = measure_elbo(trainer.model, ELBO(), data.test, rng.stream(0, "evaluation"), at_mean=True)
    for name in ("recon", "kl", "neg_elbo", "recon_at_mean"):
        assert ours[name] == elbo[name], "what compares across objectives depends on the objective"
    assert "objective_at_mean" not in ours
    noise = rng.stream(0, "evaluation")
    with torch.inference_mode():
        for x, labels in data.test.batches(500):
            trainer.model(x, labels, generator=noise)  # the draws of the terms come first
        spread = objective = 0.0
        for x, labels in data.test.batches(data.batch_size):
            draws = torch.randn(2, len(x), 2, generator=noise)
            terms = trainer.objective(
                trainer.model, Batch(x, labels, draws, len(data.train)), trainer.objective.numbers(1.0)
            )
            spread += terms.parts["spread"].item() * len(x) / len(data.test)
            objective += terms.loss.item() * len(x) / len(data.test)
    assert ours["spread"] == pytest.approx(spread, rel=1e-12)
    assert ours["objective"] == pytest.approx(objective, rel=1e-12)


class Halved(ELBO):
    """Another formula than its parent's, and nothing said about it."""

    def __call__(self, model: Any, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        terms = super().__call__(model, batch, numbers)
        return Terms(terms.loss / 2, terms.parts)


class Stated(Halved):
    ignores_unused_latents = True

    def of_means(self, recon: float, kl: float) -> float:
        return (recon + kl) / 2


def test_another_formula_does_not_inherit_what_holds_for_its_parents(data):
    assert not Halved.ignores_unused_latents
    assert Halved().of_means(3.0, 2.0) is None
    assert (ELBO.ignores_unused_latents, ELBO().of_means(3.0, 2.0)) == (True, 5.0)
    assert (Stated.ignores_unused_latents, Stated().of_means(3.0, 2.0)) == (True, 2.5)
    ours, theirs = (trainer_of(data, kind()).evaluate(data.test) for kind in (Halved, ELBO))
    assert ours["objective"] == pytest.approx(theirs["objective"] / 2, rel=1e-3)
    assert ours["neg_elbo"] == theirs["neg_elbo"]


# --- what an objective must give ----------------------------------------------------------------------------


class Giving(ELBO):
    """Gives other terms than it should."""

    def __init__(self, change: Any):
        super().__init__()
        self.change = change

    def __call__(self, model: Any, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        return self.change(super().__call__(model, batch, numbers))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: Terms(t.loss, {"kl": t.parts["kl"]}), "gives the parts kl; give recon, kl, and then"),
        (lambda t: Terms(t.loss, {}), "gives the parts none; give recon, kl"),
        (
            lambda t: Terms(t.loss, {**t.parts, "grad_norm": t.loss}),
            "gives a part 'grad_norm'; give it",
        ),
        (lambda t: Terms(t.loss, {**t.parts, "iwae_8": t.loss}), "gives a part 'iwae_8'; give it another name"),
        (lambda t: Terms(t.loss, {**t.parts, "columns": t.loss}), "gives a part 'columns'; give it another name"),
        (lambda t: Terms(t.loss, {**t.parts, "beta": t.loss}), "gives a part 'beta'; give it another name"),
        (lambda t: Terms(t.loss, {**t.parts, "a/b": t.loss}), "gives a part 'a/b'; give it another name"),
        (
            lambda t: Terms(t.loss, {**t.parts, "tc": cast("Tensor", 3.0)}),
            "gives tc as float; give a tensor",
        ),
        (lambda t: Terms(t.loss, {**t.parts, "tc": t.loss.expand(4)}), r"gives tc as \[4\]; give a tensor of one"),
        (lambda t: Terms(t.loss.expand(2), t.parts), r"gives loss as \[2\]; give a tensor of one number"),
    ],
)
def test_terms_that_cannot_be_recorded_are_refused(change, said, data):
    with pytest.raises(ConfigError, match=rf"^loss: Giving {said}"):
        trainer_of(data, Giving(change)).train()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.loss, "Giving returns Tensor; return fmvae.objectives.Terms"),
        (lambda t: None, "Giving returns NoneType; return fmvae.objectives.Terms"),
        (lambda t: (t.loss, t.parts), "Giving returns tuple; return fmvae.objectives.Terms"),
        (lambda t: Terms(t.loss.detach(), t.parts), "the loss of Giving has no gradient; compute it from"),
    ],
    ids=["tensor", "nothing", "tuple", "detached"],
)
def test_what_cannot_be_stepped_on_is_refused(change, said, data):
    for engine in (False, True):
        trainer = trainer_of(data, Giving(change))
        trainer.engine = CUDAGraph(trainer, capture=False) if engine else None
        with pytest.raises(ConfigError, match=f"^loss: {said}"):
            trainer.train()


def test_parts_that_come_and_go_are_refused(data):
    calls: list[None] = []

    def change(terms: Terms) -> Terms:
        calls.append(None)
        return terms if len(calls) == 1 else Terms(terms.loss, {**terms.parts, "late": terms.loss})

    with pytest.raises(ConfigError, match="gives the parts recon, kl, late, and gave recon, kl; give the same"):
        trainer_of(data, Giving(change)).train()
