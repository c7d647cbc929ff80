"""Lower precision: what is computed in it, what stays float32, and that nothing else of a run knows."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from fmvae.config import compose
from fmvae.config.identity import RunIdentity, semantic
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.experiments.together import stackable
from fmvae.models import BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, GatedVAE, ResidualVAE
from fmvae.training import precision
from fmvae.training.engines.stack import Stack
from fmvae.training.vae import Epoch
from tests.training.cases import Case, data_of
from tests.training.test_stack import train_epoch

MODELS = {
    "base": lambda: BaseVAE(3, hidden_dim=32),
    "conv": lambda: ConvVAE(3),
    "gated": lambda: GatedVAE(3, hidden_dim=32),
    "batch_norm": lambda: BetaVAE(3),
    "residual": lambda: ResidualVAE(3, width=8),
    "residual_group_norm": lambda: ResidualVAE(3, width=8, norm="group"),
    "conditional": lambda: ConditionalVAE(3, hidden_dim=32),
    "conditional_conv": lambda: ConditionalVAE(3, backbone="conv", prior="learned"),
}


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)


def trainer_of(kind: str, data: FashionMNISTManager, **settings: Any):
    return Case(MODELS[kind], lambda p: Adam(p, lr=1e-3, fused=True), settings=settings).trainer(data)


def logits_of(trainer: Any, data: FashionMNISTManager) -> Tensor:
    batch = next(Epoch(trainer, 1)).batch
    model = precision.in_precision(trainer.model, trainer.precision, batch.x)
    return model(batch.x, batch.labels, noise=batch.noise).logits.detach()


@pytest.mark.parametrize("kind", MODELS)
def test_bf16_is_close_and_keeps_its_state_in_float32(kind, data):
    fp32, bf16 = trainer_of(kind, data), trainer_of(kind, data, precision="bf16")
    for trainer in (fp32, bf16):
        trainer.train()
    state = bf16.state().tensors
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}
    assert any(name.startswith("optimizer.") for name in state)
    for ours, theirs in zip(bf16.history, fp32.history, strict=True):
        assert ours != theirs, "nothing was computed in bfloat16"
        assert ours["train/objective"] == pytest.approx(theirs["train/objective"], rel=0.02)
        assert ours["val/neg_elbo"] == pytest.approx(theirs["val/neg_elbo"], rel=0.02)


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def test_products_are_those_of_rounded_factors(data):
    """A second implementation, in float64, of a pass whose factors and results are rounded to 8 bits."""
    trainer = trainer_of("base", data, precision="bf16")
    batch = next(Epoch(trainer, 1)).batch

    def linear(layer: Any, x: Tensor) -> Tensor:
        return rounded(rounded(x) @ rounded(layer.weight).T + rounded(layer.bias))

    m: Any = trainer.model
    hidden = linear(m.encoder[1], batch.x.flatten(1)).relu()
    z = linear(m.mu, hidden) + batch.noise.double() * (0.5 * linear(m.logvar, hidden)).exp()
    wanted = linear(m.decoder[2], linear(m.decoder[0], z).relu()).view(-1, 1, 28, 28)

    ours, exact = logits_of(trainer, data), logits_of(trainer_of("base", data), data)
    assert (ours.double() - wanted).norm() < 0.01 * wanted.norm()
    assert torch.equal(ours.float(), ours.bfloat16().float())
    assert not torch.equal(exact, exact.bfloat16().float())


def test_what_it_measures_is_in_float32(data):
    trainer, plain = trainer_of("base", data, precision="bf16"), trainer_of("base", data)
    plain.model.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate() == plain.evaluate()


def test_it_resumes_exactly(data):
    whole, first, second = (trainer_of("batch_norm", data, precision="bf16") for _ in range(3))
    whole.train()
    first.epochs, epochs = 1, first.epochs
    first.train()
    second.load_state(*first.state())
    second.epochs = epochs
    second.train()
    for name, tensor in whole.state().tensors.items():
        assert torch.equal(tensor, second.state().tensors[name]), name


@pytest.mark.parametrize("kind", ["base", "batch_norm", "residual_group_norm", "conditional_conv"])
def test_a_stack_has_it_too(kind, data):
    alone = [trainer_of(kind, data, precision="bf16", seed=seed) for seed in (1, 2)]
    stacked = [trainer_of(kind, data, precision="bf16", seed=seed) for seed in (1, 2)]
    seen = []
    stack = Stack(stacked)
    next(m for m in stack.template.modules() if isinstance(m, nn.Linear)).register_forward_hook(
        lambda layer, inputs, output: seen.append(output.dtype)
    )
    train_epoch(stack)
    assert set(seen) == {torch.bfloat16}
    for ours, theirs in zip(stacked, alone, strict=True):
        theirs.epochs = 1
        theirs.train()
        assert ours.history[0]["train/objective"] == pytest.approx(theirs.history[0]["train/objective"], rel=5e-3)


def test_runs_are_stacked_with_others_of_one_precision():
    assert stackable(compose(["trainer.precision=bf16"])) != stackable(compose([]))
    assert stackable(compose(["trainer.precision=bf16"])) == stackable(
        compose(["trainer.precision=bf16", "beta=4"])
    )


def test_the_key_names_a_run_only_where_it_changes_it():
    default, bf16 = semantic(compose([])), semantic(compose(["trainer.precision=bf16"]))
    assert "precision" not in default["trainer"], "runs from before the key would be trained again"
    assert bf16["trainer"]["precision"] == "bf16"
    assert RunIdentity.of(default).name == "base-b1-z2-s0-d1c89a85"  # as the first release named it
    assert RunIdentity.of(bf16).name != RunIdentity.of(default).name
    classifier = semantic(compose(["trainer.precision=fp32"], "classifier"))
    assert classifier["trainer"]["precision"] == "fp32", "its default is another"


def test_tf32_is_set_for_a_step_alone_and_put_back_after_an_error():
    def switches() -> tuple[object, object]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = switches()
    with suppress(ZeroDivisionError), precision.step_in("tf32"):
        assert switches() == (True, True)
        raise ZeroDivisionError
    assert switches() == before
    with precision.step_in("fp32"):
        assert switches() == before


@pytest.mark.parametrize(
    ("value", "said"),
    [("tf32", "'tf32' needs a GPU, and training is on the cpu"), ("auto", "fp32, tf32, bf16")],
)
def test_what_is_not_to_be_had_is_refused(value, said, data):
    with pytest.raises(ConfigError) as caught:
        trainer_of("base", data, precision=value)
    assert caught.value.subject == "trainer.precision"
    assert value in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("able", [True, False])
def test_bf16_is_warned_of_where_there_are_no_units_for_it(able, data, caplog, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16", lambda device: able)
    trainer_of("base", data, precision="bf16")
    warned = "trainer.precision: this cpu has no units for bf16" in caplog.text
    assert warned == (not able)
