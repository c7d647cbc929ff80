"""Every loss, prior and likelihood, and binarised data: resumed, refused, stacked and measured like the usual."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError, NumericsError
from fmvae.experiments.vae import VAEExperiment
from fmvae.objectives import Batch, Terms
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.training import VAETrainer
from fmvae.training.engines.cuda_graph import CUDAGraph
from fmvae.training.engines.stack import Stack
from tests.cli.process import ROOT
from tests.idx import write_idx_dataset
from tests.training.cases import same, snapshot
from tests.training.test_cuda_graph import StopAt
from tests.training.test_stack import train_epoch, worst

FACTOR = ["loss=factor_vae", "loss.width=16", "loss.depth=2", "loss.gamma=5"]
FAMILY = {
    "tc": ["loss=beta_tcvae", "beta=warmup", "beta.value=4"],
    "tc, weighted": ["loss=beta_tcvae", "loss.estimate=mws", "beta=2"],
    "factor": FACTOR,
    "dip1": ["loss=dip_vae"],
    "dip2": ["loss=dip_vae", "loss.variant=2"],
    "info": ["loss=info_vae", "beta=2"],
    "wae": ["loss=wae_mmd", "loss.kernel=gaussian"],
    "iwae": ["loss=iwae", "loss.num_samples=3"],
    "iwae, doubly": ["loss=iwae", "loss.num_samples=3", "loss.doubly_reparameterised=true"],
    "mixture": ["prior=mixture", "prior.num_components=5"],
    "vamp": ["prior=vamp", "prior.num_components=7"],
    "vamp, batch norm": ["prior=vamp", "prior.num_components=7", "model=beta"],
    "flow": ["prior=flow"],
    "optimal scale": ["likelihood=gaussian_learned"],
    "trained scale": ["likelihood=gaussian_learned", "likelihood.method=trained"],
    "laplace": ["likelihood=laplace"],
    "static": ["data.binarize=static"],
    "dynamic": ["data.binarize=dynamic"],
    "all that learns": [*FACTOR, "prior=flow", "likelihood=gaussian_learned", "likelihood.method=trained"],
    "all that draws": ["loss=iwae", "loss.num_samples=2", "prior=vamp", "data.binarize=dynamic"],
}
every = pytest.mark.parametrize("name", FAMILY)
Make = Callable[..., VAETrainer]


@pytest.fixture(scope="module")
def make(tmp_path_factory) -> Make:
    """A maker of trainers: 100 training images in batches of 32, the last of four; three epochs."""
    folder = tmp_path_factory.mktemp("family")
    digests = write_idx_dataset(folder, 120, 40)
    named = ",".join(f"{name}:'{digest}'" for name, digest in digests.items())
    usual = [
        *(f"data.root={folder}", f"data.sha256={{{named}}}", "data.val_size=20", "data.batch_size=32"),
        *("trainer.epochs=3", "latent_dim=3", "evaluation=fast", "figures=none", "+optimizer.eps=1e-5"),
    ]

    def made(name: str, *overrides: str) -> VAETrainer:
        small = [] if "model=beta" in FAMILY[name] else ["model.hidden_dim=16"]
        config = compose([*usual, *small, *FAMILY[name], *overrides])
        trainer = VAEExperiment(config, torch.device("cpu")).trainer
        assert isinstance(trainer, VAETrainer)
        return trainer

    return made


def test_every_option_is_tried():
    for group, default in (("loss", "elbo"), ("prior", "standard"), ("likelihood", "")):
        tried = {o.partition("=")[2] for options in FAMILY.values() for o in options if o.startswith(f"{group}=")}
        known = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - {default}
        assert known - tried <= {"bernoulli", "continuous_bernoulli", "gaussian"}


@every
@pytest.mark.one_in(4)
def test_stopped_at_five_moments_and_resumed_it_has_the_bits_of_one_left_alone(name, make, tmp_path):
    whole = make(name)
    whole.train()
    moments = sorted(random.sample([(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)], 5))
    trainer = make(name)
    for moment in moments:
        trainer.observers.append(StopAt(*moment))
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        tensors, meta = trainer.state()
        save_checkpoint(tmp_path / "stopped", tensors, meta)
        trainer = make(name)
        checkpoint = load_checkpoint(tmp_path / "stopped")
        trainer.load_state(checkpoint.tensors, checkpoint.meta)
    trainer.train()
    assert same(snapshot(trainer), snapshot(whole)), moments
    assert trainer.history == whole.history


@pytest.mark.parametrize(
    "part", ["network_optimizer.", "objective.network.", "model.latent_prior.", "objective.lik"]
)
def test_negative_control_a_part_that_is_not_restored_changes_bits(part, make):
    name = "all that learns"
    whole = make(name)
    whole.train()
    first, second = make(name), make(name)
    first.observers.append(StopAt(2, 2))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    tensors, meta = first.state()
    lost = {n: torch.zeros_like(t) if n.startswith(part) and n[-4:] != "step" else t for n, t in tensors.items()}
    assert any(not torch.equal(lost[n], tensors[n]) for n in tensors)
    second.load_state(lost, meta)
    second.train()
    assert not same(snapshot(second), snapshot(whole))


@every
@pytest.mark.one_in(4)
def test_a_step_that_is_not_finite_changes_nothing(name, make):
    trainer = make(name)
    compute, calls = trainer.compute, iter(range(100))

    def spoiled(batch: Batch, numbers: Any) -> Terms:
        terms = compute(batch, numbers)
        return terms._replace(loss=terms.loss * math.nan) if next(calls) == 2 else terms

    trainer.compute = spoiled  # type: ignore[method-assign]
    before: dict[str, Tensor] = {}
    trainer.observers.append(Keep(before, 2))
    with pytest.raises(NumericsError, match="epoch 1, step 3"):
        trainer.train()
    after = snapshot(trainer)
    buffers = {name for name, _ in trainer.model.named_buffers(prefix="model")}
    buffers |= {name for name, _ in trainer.objective.named_buffers(prefix="objective")}
    assert before
    assert all(torch.equal(before[n], after[n]) for n in before if n not in buffers)


def test_so_does_the_loss_of_a_network(make):
    trainer = make("factor")
    compute = trainer.compute

    def spoiled(batch: Batch, numbers: Any) -> Terms:
        terms = compute(batch, numbers)
        assert terms.network_loss is not None
        return terms._replace(network_loss=terms.network_loss * math.nan)

    trainer.compute = spoiled  # type: ignore[method-assign]
    before = snapshot(trainer)
    with pytest.raises(NumericsError, match=r"gradient of objective\.network\."):
        trainer.train()
    after = snapshot(trainer)
    assert all(torch.equal(before[n], after[n]) for n in before)


class Keep(StopAt):
    """Keeps a snapshot after a step of the first epoch."""

    def __init__(self, place: dict[str, Tensor], step: int):
        self.place, self.at = place, step

    def on_step(self, trainer: Any, step: int) -> None:
        if step == self.at:
            self.place |= snapshot(trainer)


@every
@pytest.mark.one_in(4)
def test_stacked_each_is_the_run_it_would_be_alone(name, make):
    alone, stacked = ([make(name, f"seed={seed}") for seed in (0, 1)] for _ in range(2))
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked)
    for _ in range(3):
        train_epoch(stack)
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(snapshot(ours), snapshot(theirs)) < (2e-3 if stack.batched else 1e-6)
        assert worst(snapshot(ours), snapshot(stacked[0])) > 1e-2 or ours is stacked[0]


@every
@pytest.mark.one_in(4)
def test_in_bf16_it_trains_nearly_as_in_fp32(name, make):
    ours, exact = make(name, "trainer.precision=bf16", "trainer.epochs=1"), make(name, "trainer.epochs=1")
    (row,), (wanted,) = ours.train(), exact.train()
    assert row != wanted
    assert row["train/recon"] == pytest.approx(wanted["train/recon"], rel=0.02, abs=1)
    assert row["train/objective"] == pytest.approx(wanted["train/objective"], rel=0.05, abs=5)


@every
@pytest.mark.one_in(4)
def test_without_reading_from_the_device_it_is_the_same_to_the_last_bit(name, make):
    plain, ours = make(name), make(name)
    ours.engine = CUDAGraph(ours, capture=False)
    assert ours.train() == plain.train()
    assert same(snapshot(ours), snapshot(plain))


@every
@pytest.mark.one_in(3)
def test_gradients_are_those_of_finite_differences_in_float64(name, make):
    """Along a random direction through all weights that a loss trains."""
    trainer = make(name)
    torch.manual_seed(0)
    model, objective = trainer.model.double(), trainer.objective.double()
    # running statistics change with every pass in training mode, and an optimal scale leaves out its own gradient
    model.eval()
    objective.eval()
    x, labels = next(trainer.data.train.batches(6))
    batch = trainer.batch(x.double(), labels, rng.stream(0, "noise"))
    numbers = objective.numbers(0.5)
    rules = trainer.rules if "doubly" not in name else []
    for i, rule in enumerate(rules):
        direction = [torch.randn_like(p) for p in rule.parameters]

        def loss(shift: float, i: int = i, rule: Any = rule, direction: Any = direction) -> Tensor:
            with torch.no_grad():
                for parameter, d in zip(rule.parameters, direction, strict=True):
                    parameter.add_(shift * d)
            return trainer.losses(objective(model, batch, numbers))[i]

        grads = torch.autograd.grad(loss(0.0), rule.parameters)
        slope = sum((g * d).sum() for g, d in zip(grads, direction, strict=True))
        eps = 1e-6
        above = loss(eps).item()
        below = loss(-2 * eps).item()
        loss(eps)
        assert float(slope) == pytest.approx((above - below) / (2 * eps), rel=1e-4)


def test_priors_and_losses_leave_the_first_weights_of_a_model_as_they_are(make):
    """So that runs that differ in them begin with the same model."""
    usual = dict(make("laplace").model.state_dict())
    for name in ("factor", "vamp", "mixture", "flow", "all that learns"):
        ours = make(name).model.state_dict()
        assert all(torch.equal(ours[n], t) for n, t in usual.items()), name


def test_a_run_measured_from_its_checkpoint_has_the_scale_that_it_learned(make, tmp_path: Path):
    trainer = make("trained scale")
    trainer.train()
    tensors, meta = trainer.state()
    save_checkpoint(tmp_path / "last", tensors, meta)
    again = make("trained scale")
    start = again.evaluate()
    again.load_state(load_checkpoint(tmp_path / "last").tensors, meta)
    assert again.evaluate() == trainer.evaluate() != start
    assert trainer.history[-1]["val/sigma"] == again.evaluate(again.data.val)["sigma"] != start["sigma"]


def test_a_layer_of_the_network_may_be_frozen(make):
    parts = make("factor")
    network = parts.objective.network
    network[0].requires_grad_(False)
    before = [parameter.clone() for parameter in network.parameters()]
    VAETrainer(parts.model, parts.objective, parts.data, parts.optimizer, epochs=1).train()
    changed = [not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True)]
    assert changed == [parameter.requires_grad for parameter in network.parameters()]


def test_an_optimizer_without_the_parameters_of_the_likelihood_is_refused(make):
    """As one of ``model.parameters()``, with which sigma would keep its first value."""
    parts = make("trained scale")
    arguments = (parts.model, parts.objective, parts.data)
    with pytest.raises(ConfigError, match=r"^optimizer: .* likelihood\.log_sigma of ELBO; .*trained_by_optimizer"):
        VAETrainer(*arguments, torch.optim.Adam(parts.model.parameters()), epochs=1)
    parts.objective.requires_grad_(False)  # it may be kept on purpose
    VAETrainer(*arguments, torch.optim.Adam(parts.model.parameters()), epochs=1)
