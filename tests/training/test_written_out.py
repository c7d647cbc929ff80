"""The gradients that are written out are autograd's to the last bit, and left to it where they would not hold."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim import SGD, Adam

from fmvae.data import FashionMNISTManager
from fmvae.models import BaseVAE, BetaVAE
from fmvae.objectives import Bernoulli, Capacity, Gaussian, Objective, Warmup
from fmvae.training import VAETrainer, written_out
from tests.training.cases import BASE, Case, data_of, same, snapshot

CPU = torch.device("cpu")
CASES = {
    "adam": BASE,
    "capacity": Case(lambda: BaseVAE(10, hidden_dim=16), lambda p: SGD(p, lr=1e-4), lambda: Capacity(10.0, 5.0)),
    "warmup, clipped": Case(
        lambda: BaseVAE(1, hidden_dim=16),
        lambda p: Adam(p, lr=1e-2),
        lambda: Warmup(4.0, 0.5),
        settings={"max_grad_norm": 50.0},
    ),
}


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)  # its last batch is a short one


def trained(case: Case, data: FashionMNISTManager) -> dict[str, torch.Tensor]:
    trainer = case.trainer(data)
    trainer.train()
    return snapshot(trainer)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains_as_autograd_does_to_the_bit(case, data, monkeypatch):
    ours = trained(case, data)
    monkeypatch.setattr(written_out, "of", lambda *_: None)
    assert same(ours, trained(case, data))


@pytest.mark.parametrize("position", range(10))
def test_negative_control_each_gradient_counts(position, data, monkeypatch):
    right, backward = trained(BASE, data), written_out._MeanTerms.backward

    def off(*arguments: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = list(backward(*arguments))
        gradient = gradients[2 + position]
        assert gradient is not None
        gradients[2 + position] = gradient * 1.001
        return tuple(gradients)

    monkeypatch.setattr(written_out._MeanTerms, "backward", staticmethod(off))
    assert not same(right, trained(BASE, data))


def test_in_double_precision_the_gradients_are_finite_differences():
    model = BaseVAE(2, hidden_dim=3, image_shape=(1, 2, 2)).double()
    x, noise = torch.rand(3, 1, 2, 2, dtype=torch.double), torch.randn(3, 2, dtype=torch.double)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    parameters = [p.detach().clone().requires_grad_() for layer in linear for p in (layer.weight, layer.bias)]

    def terms(*values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return written_out._MeanTerms.apply(x.flatten(1), noise, *values)

    assert torch.autograd.gradcheck(terms, parameters)


def test_what_is_frozen_stays():
    model = BaseVAE(2, hidden_dim=4)
    model.mu.weight.requires_grad_(False)
    recon, kl = written_out.mean_terms(model, torch.rand(3, 1, 28, 28), torch.randn(3, 2))
    (recon + kl).backward()
    assert model.mu.weight.grad is None
    assert model.mu.bias.grad is not None


def noticed(layer: nn.Module, register: str) -> None:
    getattr(layer, register)(lambda *_: None)


CHANGES: dict[str, Callable[[BaseVAE], object]] = {
    "another activation": lambda model: model.decoder.__setitem__(1, nn.Tanh()),
    "one more layer": lambda model: model.encoder.append(nn.Dropout(0.5)),
    "no bias": lambda model: setattr(model, "mu", nn.Linear(4, 2, bias=False)),
    "parametrized": lambda model: parametrizations.weight_norm(model.logvar),
    "another method": lambda model: setattr(model, "decode", lambda z, labels=None: model.decoder(2 * z)),
    "a hook on the output": lambda model: noticed(model.decoder[0], "register_forward_hook"),
    "a hook on the input": lambda model: noticed(model, "register_forward_pre_hook"),
    "a hook on gradients": lambda model: noticed(model.mu, "register_full_backward_hook"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_model_is_left_to_autograd(change):
    model = BaseVAE(2, hidden_dim=4)
    assert written_out.of(model, Objective(), CPU) is model
    change(model)
    assert written_out.of(model, Objective(), CPU) is None


def test_other_models_terms_and_devices_are_left_to_autograd():
    class Mine(BaseVAE):
        def decode(self, z, labels=None):
            return 2 * super().decode(z, labels)

    class Reweighted(Bernoulli):
        def nll(self, logits, x):
            return 2 * super().nll(logits, x)

    model = BaseVAE(2, hidden_dim=4)
    assert written_out.of(Mine(2, hidden_dim=4), Objective(), CPU) is None
    assert written_out.of(BetaVAE(2), Objective(), CPU) is None
    assert written_out.of(model, Objective(Gaussian()), CPU) is None
    assert written_out.of(model, Objective(Reweighted()), CPU) is None
    assert written_out.of(model, Objective(), torch.device("cuda")) is None


@pytest.mark.parametrize(("precision", "calls"), [("fp32", 4), ("bf16", 0)])
def test_bf16_is_left_to_autocast(precision, calls, data, monkeypatch):
    begun, mean_terms = [], written_out.mean_terms
    monkeypatch.setattr(written_out, "mean_terms", lambda *given: begun.append(1) or mean_terms(*given))
    trainer: VAETrainer = BASE.trainer(data, epochs=1, precision=precision)
    trainer.train()
    assert len(begun) == calls


def test_another_way_through_the_model_is_taken(data):
    class Denoising(VAETrainer):
        def _forward(self, batch):
            return self.model(batch.x.where(batch.x > 0.5, 0), noise=batch.noise)

    plain, other = BASE.trainer(data), BASE.trainer(data)
    other.__class__ = Denoising
    for trainer in (plain, other):
        trainer.train()
    assert not same(snapshot(plain), snapshot(other))
