"""The same bits after saving and loading, after a kill within a fit, with any number of threads, in any mode."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from fmvae.config import compose
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers import network
from fmvae.evaluation.samplers.base import Latents, Sampler
from fmvae.evaluation.samplers.flow import FlowSampler
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.evaluation.samplers.network import NetworkSampler
from fmvae.evaluation.samplers.two_stage import TwoStageSampler
from tests.evaluation.samplers.latents import clusters, generator

MAKE: dict[str, Callable[..., Any]] = {
    "gmm": lambda c=0: GaussianMixtureSampler(c, num_components=[1, 5]),
    "flow": lambda c=0: FlowSampler(c, transforms=2, hidden=[8], bins=4, epochs=7),
    "two_stage": lambda c=0: TwoStageSampler(c, hidden=[8], epochs=7),
}
NETWORKS = ("flow", "two_stage")
EVERY = pytest.mark.parametrize("name", MAKE)


def fitted(name: str, classes: int = 0, seed: int = 0, num: int = 300) -> Any:
    sampler = MAKE[name](classes)
    sampler.fit(clusters(num, 3, seed=1), clusters(90, 3, seed=2), seed)
    return sampler


def same(a: Sampler, b: Sampler) -> bool:
    """Whether two fits, and what is drawn from them, are equal bit for bit."""
    labels = torch.arange(50) % 3
    (tensors, meta), (others, other_meta) = a.state(), b.state()
    fits = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in tensors)
    draws = [each.sample(50, labels, generator(4)) for each in (a, b)]
    logs = [each.log_prob(draws[0], labels) if each.density else draws[0] for each in (a, b)]
    return fits and meta == other_meta and torch.equal(*draws) and torch.equal(*logs)


@EVERY
@pytest.mark.one_in(2)
@pytest.mark.parametrize("classes", [0, 3])
def test_a_loaded_fit_is_the_same(name, classes):
    sampler, other = fitted(name, classes), MAKE[name](classes)
    tensors, meta = sampler.state()
    assert all(tensor.dtype == torch.float64 for tensor in tensors.values() if tensor.is_floating_point())
    state = torch.get_rng_state()
    other.load_state({key: tensor.clone() for key, tensor in tensors.items()}, meta)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(sampler, other)
    assert not same(sampler, fitted(name, classes, seed=1))  # control: bits of another seed differ


@EVERY
def test_a_fit_depends_on_no_global_state_and_changes_none(name):
    before = fitted(name)
    torch.rand(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():  # as within a measure
        train, val = (
            Latents(*(part.clone() for part in each)) for each in (clusters(300, 3, 1), clusters(90, 3, 2))
        )
        sampler = MAKE[name]()
        sampler.fit(train, val, 0)
        assert same(sampler, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    z = sampler.sample(3, None, generator())
    assert not z.requires_grad


# --- threads --------------------------------------------------------------------------------------------------


@EVERY
def test_threads_change_no_bit(name, monkeypatch):
    num = 3000 if name == "gmm" else 300
    alone, threads = fitted(name, num=num), torch.get_num_threads()
    used: set[int] = set()
    values: list[int] = []  # threads of a mixture's log-likelihoods: those of the fit, then those of ``same``
    if name == "gmm":
        from sklearn.mixture import GaussianMixture

        plain = GaussianMixture.fit

        def watched(self: Any, *given: Any) -> Any:
            used.update(pool["num_threads"] for pool in threadpool_info())
            return plain(self, *given)

        monkeypatch.setattr(GaussianMixture, "fit", watched)
        plain_value = GaussianMixtureSampler._log_prob

        def watched_value(self: Any, *given: Any) -> Tensor:
            values.append(torch.get_num_threads())
            return plain_value(self, *given)

        monkeypatch.setattr(GaussianMixtureSampler, "_log_prob", watched_value)
    else:
        plain_loss = network.NetworkSampler._held_out

        def watched_loss(self: Any, *given: Any) -> float:
            used.add(torch.get_num_threads())
            return plain_loss(self, *given)

        monkeypatch.setattr(network.NetworkSampler, "_held_out", watched_loss)
    try:
        torch.set_num_threads(2)
        with threadpool_limits(2):
            assert 2 in {pool["num_threads"] for pool in threadpool_info()}  # else nothing is tried
            assert same(fitted(name, num=num), alone)
    finally:
        torch.set_num_threads(threads)
    assert used == {1}
    assert values == ([1, 1, 2, 2] if name == "gmm" else [])  # each of two numbers, each of two samplers


# --- a kill within a fit --------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class Memory(Partial):
    """Keeps the state of a fit after each epoch, as a file would, and kills the fit once, after some epochs."""

    is_due = True  # type: ignore[assignment]

    def __init__(self, kill_after: int = 0):
        super().__init__()
        self.kill_after, self.times = kill_after, 0
        self.saved: tuple[dict[str, Tensor], dict[str, Any]] = {}, {}

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.saved

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
        assert values is not None
        copies = {key: tensor.clone() for key, tensor in tensors.items()}
        self.saved = copies, {**values, "history": [*values["history"]]}
        self.times += 1
        if self.times == self.kill_after:
            raise Killed


def epochs_of(fit: Callable[[], Any], monkeypatch) -> int:
    """The number of epochs that a fit trains."""
    epochs, plain = [], NetworkSampler._held_out
    with monkeypatch.context() as patched:
        patched.setattr(NetworkSampler, "_held_out", lambda *given: epochs.append(1) or plain(*given))
        fit()
    return len(epochs)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_killed_fit_is_resumed_with_the_same_bits(name, classes, monkeypatch):
    whole = fitted(name, classes)
    latents = clusters(300, 3, seed=1), clusters(90, 3, seed=2)
    memory = Memory(kill_after=6)
    with pytest.raises(Killed):
        MAKE[name](classes).fit(*latents, 0, memory)
    assert len(memory.saved[1]["history"]) == memory.kill_after
    resumed = MAKE[name](classes)
    assert epochs_of(lambda: resumed.fit(*latents, 0, memory), monkeypatch) == 1
    assert same(resumed, whole)
    tensors, meta = memory.saved  # control: without Adam's averages, it would be another fit
    forgetful = {key: 0 * t if "exp_avg" in key else t for key, t in tensors.items()}
    memory.saved, other = (forgetful, meta), MAKE[name](classes)
    memory.saved[1]["history"] = meta["history"][:6]
    other.fit(*latents, 0, memory)
    assert not same(other, whole)


def test_the_best_epoch_is_kept_and_training_ends_early(monkeypatch):
    """Of thirty images, a flow learns the noise."""
    monkeypatch.setattr(FlowSampler, "PATIENCE", 3)
    sampler = FlowSampler(transforms=2, hidden=[32], bins=8, epochs=40)
    train, val = clusters(30, 3, seed=1), clusters(300, 3, seed=2)
    sampler.fit(train, val, 0)
    _, meta = sampler.state()
    history, best = meta["history"], meta["best_epoch"]
    assert len(history) == best + 3 < 40
    assert min(history) == history[best - 1]
    generated = network.validation_draws(val, 0)
    assert -sampler.log_prob(generated).mean().item() == pytest.approx(history[best - 1], abs=1e-9)
    assert history[-1] > history[best - 1] + 1e-6  # control: the last epoch's weights would give another number


def test_each_epoch_has_draws_of_its_own_and_the_rate_falls_along_a_cosine(monkeypatch):
    """All of the steps of a fit that does not end early, and every posterior once in an epoch."""
    rates: list[float] = []
    drawn: list[Tensor] = []
    plain_step, plain_loss = torch.optim.Adam.step, TwoStageSampler.loss

    def step(self: Any, *given: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return plain_step(self, *given)

    def loss(self: Any, net: Any, z: Tensor, *given: Any) -> Tensor:
        if torch.is_grad_enabled():  # in training, and not of validation draws
            drawn.append(z)
        return plain_loss(self, net, z, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(TwoStageSampler, "loss", loss)
    sampler, train = TwoStageSampler(hidden=[4], epochs=3), clusters(100, 3, seed=1)
    sampler.fit(train, clusters(30, 3, seed=2), 0)
    assert len(rates) == len(drawn) == 3 * network.STEPS
    expected = network.RATE * (1 + torch.arange(150.0, dtype=torch.float64).mul(torch.pi / 150).cos()) / 2
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), expected, rtol=1e-9, atol=0)
    assert rates[-1] < 1e-3 * network.RATE
    epochs = [sampler.scale.undo(torch.cat(drawn[i : i + network.STEPS])) for i in range(0, 150, network.STEPS)]
    mu, std = train.mu.double(), (0.5 * train.logvar.double()).exp()
    seeds = [network.rng.stream(0, "samplers", network.FIRST_EPOCH + epoch) for epoch in (1, 2, 3)]
    for z, generator_of_epoch in zip(epochs, seeds, strict=True):
        expected = mu + std * torch.randn(100, 3, generator=generator_of_epoch, dtype=torch.float64)
        torch.testing.assert_close(z.sort(0).values, expected.sort(0).values, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(epochs[0].sort(0).values, epochs[1].sort(0).values)  # control: other draws


# --- mistakes -------------------------------------------------------------------------------------------------


def test_without_zuko_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(
        ConfigError, match=r"^evaluation\.flow: a flow needs the library zuko .*; install it: in the"
    ):
        fitted("flow")


def test_a_fit_that_is_not_finite_ends_in_one_line(monkeypatch):
    plain = TwoStageSampler.loss
    monkeypatch.setattr(TwoStageSampler, "loss", lambda *given: plain(*given) / 0)
    with pytest.raises(RunError, match=r"^sampler two_stage: its loss is (nan|-?inf) after epoch 1; leave it out"):
        fitted("two_stage")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_without_units_or_with_a_billion_is_refused(name):
    sampler = MAKE[name]()
    sampler.check(10)
    for width in (0, 10**9):
        sampler.hidden = [8, width]
        problem = rf"^evaluation\.{name}\.hidden: \[8, {width}\] is not a list of .*"
        units = problem + ">= 1 and <= 10000; give from 1 to 10,000 units"
        key = problem + ">= 1 and <= 10000; leave the key out"
        with pytest.raises(ConfigError, match=units):
            sampler.check(10)
        with pytest.raises(ConfigError, match=key):  # whether it is among the samplers or not
            compose([f"evaluation.{name}.hidden=[8,{width}]"])
