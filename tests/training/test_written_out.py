"""The gradients that are written out are autograd's to the last bit, and left to it where they would not hold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations
from torch.optim import SGD, Adam

from fmvae.data import FashionMNISTManager
from fmvae.models import BaseVAE, BetaVAE
from fmvae.objectives import Bernoulli, Capacity, Gaussian, Objective, Warmup
from fmvae.training import VAETrainer, written_out
from tests.training.cases import BASE, Case, data_of, same, snapshot

X = torch.rand(3, 1, 28, 28)
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


@pytest.fixture
def taken(monkeypatch) -> list[int]:
    """One for each step that is taken with gradients written out."""
    steps, mean_terms = [], written_out.mean_terms
    monkeypatch.setattr(written_out, "mean_terms", lambda *given: steps.append(1) or mean_terms(*given))
    return steps


def trained(case: Case, data: FashionMNISTManager) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    trainer = case.trainer(data)
    history = trainer.train()
    return snapshot(trainer), history


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains_as_autograd_does_to_the_bit(case, data, taken, monkeypatch):
    ours, history = trained(case, data)
    assert len(taken) == 3 * 4  # epochs and steps
    monkeypatch.setattr(written_out, "base_as_built", lambda *_: None)
    theirs, its_history = trained(case, data)
    assert len(taken) == 3 * 4
    assert same(ours, theirs)
    assert history == its_history


def gradients(terms: Callable[[], tuple[Tensor, Tensor]], model: nn.Module) -> list[Tensor]:
    """Both terms, and the gradients of their weighted sum."""
    recon, kl = terms()
    return [recon, kl, *torch.autograd.grad(recon + 0.7 * kl, list(model.parameters()))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [128, 112])  # the last of 54,000 images has 112
@pytest.mark.parametrize("latent_dim", [1, 2, 10])
def test_of_the_size_that_is_trained_every_gradient_is_autograds(latent_dim, batch_size, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(latent_dim)
        model, objective = BaseVAE(latent_dim), Objective()
        x, noise = torch.rand(batch_size, 1, 28, 28), torch.randn(batch_size, latent_dim)

        def autograds() -> tuple[Tensor, Tensor]:
            output = model(x, noise=noise)
            terms = objective.terms(output.logits, x, output.mu, output.logvar)
            return terms.recon.mean(), terms.kl.mean()

        ours = gradients(lambda: written_out.mean_terms(model, x, noise), model)
        assert all(map(torch.equal, ours, gradients(autograds, model)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("position", range(10))
def test_negative_control_a_last_bit_of_each_gradient_counts(position, data, monkeypatch):
    (right, _), backward = trained(BASE, data), written_out._MeanTerms.backward

    def off(*arguments: Tensor) -> tuple[Tensor | None, ...]:
        given = list(backward(*arguments))
        gradient = given[2 + position]
        assert gradient is not None
        given[2 + position] = gradient.nextafter(torch.tensor(torch.inf))
        return tuple(given)

    monkeypatch.setattr(written_out._MeanTerms, "backward", staticmethod(off))
    assert not same(right, trained(BASE, data)[0])


def test_in_double_precision_the_gradients_are_finite_differences():
    torch.manual_seed(0)
    model = BaseVAE(2, hidden_dim=3, image_shape=(1, 2, 2)).double()
    x, noise = torch.rand(3, 4, dtype=torch.double), torch.randn(3, 2, dtype=torch.double)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    parameters = [p.detach().clone().requires_grad_() for layer in linear for p in (layer.weight, layer.bias)]

    def terms(*values: Tensor) -> tuple[Tensor, Tensor]:
        return written_out._MeanTerms.apply(x, noise, *values)

    assert torch.autograd.gradcheck(terms, parameters)


# --- what is left to autograd -------------------------------------------------------------------------------


class Residual(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(1)[:, :4] + super().forward(input)


class Wrapped(nn.Module):
    """A layer of another kind, that can't be looked into as a sequence can."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def hooked(module: nn.Module, register: str) -> None:
    getattr(module, register)(lambda *_: None)


def transposed(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())


CHANGES: dict[str, Callable[[BaseVAE, Objective], object]] = {
    "another activation": lambda model, _: model.decoder.__setitem__(1, nn.Tanh()),
    "one more layer": lambda model, _: model.encoder.append(nn.Dropout(0.5)),
    "another kind of encoder": lambda model, _: setattr(model, "encoder", Wrapped(model.encoder)),
    "another sequence": lambda model, _: setattr(model, "encoder", Residual(*model.encoder)),
    "no bias": lambda model, _: setattr(model, "mu", nn.Linear(4, 2, bias=False)),
    "parametrized": lambda model, _: parametrizations.weight_norm(model.logvar),
    "frozen": lambda model, _: model.decoder.requires_grad_(False),
    "strided": lambda model, _: transposed(model.mu),
    "compiled": lambda model, _: model.mu.compile(),
    "a method": lambda model, _: setattr(model, "decode", lambda z, labels=None: model.decoder(2 * z)),
    "a layer's method": lambda model, _: setattr(model.mu, "forward", lambda h: h[:, :2]),
    "the terms": lambda _, objective: setattr(objective, "terms", objective.terms),
    "the likelihood's method": lambda _, objective: setattr(objective.likelihood, "nll", torch.sub),
    "a hook on the output": lambda model, _: hooked(model.decoder[0], "register_forward_hook"),
    "a hook on the input": lambda model, _: hooked(model, "register_forward_pre_hook"),
    "a hook on gradients": lambda model, _: hooked(model.mu, "register_full_backward_hook"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_left_to_autograd(change):
    model, objective = BaseVAE(2, hidden_dim=4), Objective()
    assert written_out.base_as_built(model, objective, X) is model
    change(model, objective)
    assert written_out.base_as_built(model, objective, X) is None


def test_other_models_terms_and_devices_are_left_to_autograd():
    class Mine(BaseVAE):
        def decode(self, z, labels=None):
            return 2 * super().decode(z, labels)

    class Reweighted(Bernoulli):
        def nll(self, logits, x):
            return 2 * super().nll(logits, x)

    model = BaseVAE(2, hidden_dim=4)
    assert written_out.base_as_built(Mine(2, hidden_dim=4), Objective(), X) is None
    assert written_out.base_as_built(BetaVAE(2), Objective(), X) is None
    assert written_out.base_as_built(model, Objective(Gaussian()), X) is None
    assert written_out.base_as_built(model, Objective(Reweighted()), X) is None
    assert written_out.base_as_built(model, Objective(), X.clone().requires_grad_()) is None
    assert written_out.base_as_built(model, Objective(), X.to("meta")) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert written_out.base_as_built(model, Objective(), X) is None


def test_a_hook_on_all_modules_is_left_to_autograd():
    model, handle = BaseVAE(2, hidden_dim=4), register_module_forward_hook(lambda *_: None)
    try:
        assert written_out.base_as_built(model, Objective(), X) is None
    finally:
        handle.remove()


def test_bf16_is_left_to_autocast(data, taken):
    BASE.trainer(data, epochs=1, precision="bf16").train()
    assert not taken


def test_another_trainer_is_left_to_autograd(data, taken):
    class Denoising(VAETrainer):
        def _forward(self, batch: Any):
            return self.model(batch.x.where(batch.x > 0.5, 0), noise=batch.noise)

    trainer = BASE.trainer(data, epochs=1)
    trainer.__class__ = Denoising
    trainer.train()
    assert not taken


def test_a_change_within_an_epoch_is_heeded(data, taken):
    trainer = BASE.trainer(data, epochs=1)
    steps = trainer.steps(1)
    batch = next(steps)
    numbers = trainer._step(batch)
    hooked(trainer.model, "register_forward_hook")
    trainer._step(steps.send(numbers))
    assert len(taken) == 1
