"""Train VAEs. All random numbers come from named streams, so that observers cannot change the trained weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmvae import rng
from fmvae.data import ImageData, Split
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import BLOCKS, NO_NUMBERS
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.models import VAE
from fmvae.objectives import Batch, Objective, Terms, draw_noise
from fmvae.training.loop import Trainer
from fmvae.training.precision import check_precision, in_precision, step_in
from fmvae.training.step import GRAD_NORM, NETWORK_GRAD_NORM, Rule, add_up

# names that parts of an objective cannot have: history rows, figures and results use them for other values
RESERVED = ("objective", "neg_elbo", "recon_at_mean", "objective_at_mean", GRAD_NORM, NETWORK_GRAD_NORM, "beta")
RESERVED += NO_NUMBERS


def trained_by_optimizer(model: VAE, objective: Objective) -> list[nn.Parameter]:
    """Return the parameters of model, prior and likelihood, but not those of the objective's network."""
    own = set(objective.network.parameters()) if objective.network is not None else set()
    return [*model.parameters(), *(parameter for parameter in objective.parameters() if parameter not in own)]


class Engine(Protocol):
    """Another way to run an epoch than step by step."""

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; return its history row without the validation columns."""
        ...


class Step(NamedTuple):
    """The input of one training step.

    Attributes:
        numbers: the values of the objective's schedules, by name.
        epoch, number: the epoch, and the step in it, both from 1.
    """

    batch: Batch
    numbers: Mapping[str, float]
    epoch: int
    number: int


class Epoch:
    """One pass over the training split: an iterator over steps; call ``took`` after each.

    Args:
        epoch: from 1. An epoch that was stopped resumes after its last step.
    """

    def __init__(self, trainer: VAETrainer, epoch: int):
        trainer.training_mode()
        self.trainer, self.epoch = trainer, epoch
        self.generator = rng.stream(trainer.seed, "noise", epoch, trainer.data.device)
        self.done, self.sums, _ = trainer._begun(self.generator)
        shuffle = rng.stream(trainer.seed, "shuffle", epoch)
        images = trainer.data.train_of_epoch(epoch)
        self.batches = islice(images.batches(trainer.data.batch_size, shuffle), self.done, None)

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        trainer = self.trainer
        x, labels = next(self.batches)
        numbers = trainer.objective.numbers(trainer.progress(self.epoch, self.done))
        return Step(trainer.batch(x, labels, self.generator), numbers, self.epoch, self.done + 1)

    def took(self, numbers: Mapping[str, float], num_images: int) -> None:
        """Record the last step's numbers, which are means over ``num_images`` images, and notify the observers.

        If a stop was requested, it raises here.
        """
        self.done += 1
        add_up(self.sums, numbers, num_images)
        self.trainer._end_step(self.done, lambda: self.sums, self.generator)

    def row(self) -> dict[str, float]:
        """Return the history row of the finished epoch."""
        return self.trainer.row(self.epoch, self.sums)


class VAETrainer(Trainer):
    """Train a VAE with its objective; see ``Trainer`` for the other arguments.

    Args:
        precision: of the passes through the model: ``fp32``, ``bf16``, or, on a GPU, ``tf32``.

    Attributes:
        engine: runs the epochs; None runs them step by step.
    """

    @property
    def terms(self) -> tuple[str, ...]:
        return ("objective", *(self.named or ("recon", "kl")))

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        data: ImageData,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        *,
        precision: str = "fp32",
        **settings: Any,
    ):
        self._check_model(model)
        super().__init__(model, data, optimizer, scheduler, **settings)
        check_precision(precision, "VAE", data.device)
        self.model: VAE = model
        self.objective, self.precision = objective, precision
        self.engine: Engine | None = None
        self.named: tuple[str, ...] | None = None  # the parts of the objective, known after the first step
        self.trained["objective"] = objective
        by_optimizer = [p for p in trained_by_optimizer(model, objective) if p.requires_grad]
        self._check_optimizer(by_optimizer)
        self.rules[0] = self.rules[0]._replace(parameters=by_optimizer)
        if objective.network is not None:
            own = [p for p in objective.network.parameters() if p.requires_grad]
            self.rules.append(Rule(objective.network_optimizer(), own, norm=NETWORK_GRAD_NORM))

    def _check_model(self, model: VAE) -> None:
        if model.conditional:
            raise ConfigError(
                "model", f"{type(model).__name__} needs labels", "train it with ConditionalVAETrainer"
            )

    def _check_optimizer(self, trained: Sequence[nn.Parameter]) -> None:
        """Refuse an optimizer without the parameters of the objective, which would silently keep their values."""
        missing = set(trained).difference(*(group["params"] for group in self.optimizer.param_groups))
        for name, parameter in self.objective.named_parameters():
            if parameter in missing:
                problem = f"it does not train {name} of {type(self.objective).__name__}"
                way_out = "make it from fmvae.training.trained_by_optimizer(model, objective)"
                raise ConfigError("optimizer", problem, way_out)

    # --- an epoch -------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        if self.engine:
            return self.engine.train_epoch(epoch)
        steps = Epoch(self, epoch)
        for step in steps:
            steps.took(self._step(step), len(step.batch.x))
        return steps.row()

    def progress(self, epoch: int, step: int) -> float:
        """Return the share of the whole training before step ``step`` (from 0) of an epoch, in [0, 1)."""
        return ((epoch - 1) * self.num_steps + step) / (self.epochs * self.num_steps)

    def batch(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Batch:
        """Combine images (B, C, H, W) in [0, 1] and labels (B,) with noise from the generator."""
        noise = draw_noise(x, self.model.latent_dim, self.objective.num_draws, generator)
        return Batch(x, labels, noise, len(self.data.train))

    def row(self, epoch: int, sums: Mapping[str, float]) -> dict[str, float]:
        """Compute the epoch's history row from the steps' numbers, each summed over the images."""
        beta = self.objective.beta.weight(self.progress(epoch, self.num_steps - 1))
        lr = self.optimizer.param_groups[0]["lr"]
        means = {f"train/{name}": total / len(self.data.train) for name, total in sums.items()}
        return {"epoch": epoch, "beta": beta, "lr": float(lr), **means}

    # --- a step ---------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> dict[str, float]:
        """Compute the objective and take a step; return its parts, its value and the gradient norm."""
        with step_in(self.precision):
            terms = self.compute(step.batch, step.numbers)
            return self._take_step(self.losses(terms), self.recorded(terms), step.epoch, step.number)

    def training_mode(self) -> None:
        """Set the model and the objective to training mode."""
        for module in self.trained.values():
            module.train()

    def losses(self, terms: Terms) -> list[Tensor]:
        """Return the loss of each of ``rules``.

        Raises:
            ConfigError: the objective has a network and gives no loss for it, or has none and gives one.
        """
        found = [terms.loss, *([] if terms.network_loss is None else [terms.network_loss])]
        if len(found) != len(self.rules):
            kind, has = type(self.objective).__name__, self.objective.network is not None
            problem = f"{kind} has {'a' if has else 'no'} network and returns {'no' if has else 'a'} network_loss"
            raise ConfigError("loss", problem, "give both or neither")
        return found

    def compute(self, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        """Compute the objective on a batch, in this trainer's precision."""
        return self.compute_with(self.model, batch, numbers)

    def compute_with(self, model: VAE, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        """Compute the objective with another model."""
        terms = self.objective(in_precision(model, self.precision, batch.x), batch, numbers)
        if not isinstance(terms, Terms):
            kind = type(self.objective).__name__
            raise ConfigError(
                "loss", f"{kind} returns {type(terms).__name__}", "return fmvae.objectives.Terms(loss, parts)"
            )
        return terms

    def recorded(self, terms: Terms) -> dict[str, Tensor]:
        """Return the values to record of a step: the objective's parts, ``recon`` and ``kl`` first, and itself.

        Raises:
            ConfigError: the parts do not start with recon and kl, are no scalars, or differ from those before.
        """
        if tuple(terms.parts) != self.named:
            self._check_parts(terms)
        return {**terms.parts, "objective": terms.loss}

    def _check_parts(self, terms: Terms) -> None:
        kind, names = type(self.objective).__name__, tuple(terms.parts)
        found = f"{kind} gives the parts {', '.join(names) or 'none'}"
        if self.named is not None:
            raise ConfigError("loss", f"{found}, and gave {', '.join(self.named)}", "give the same each time")
        if names[:2] != ("recon", "kl"):
            raise ConfigError("loss", found, "give recon, kl, and then any other parts")
        for name in names:
            taken = name in RESERVED or any(
                column.matches(name) for column in BLOCKS["iwae"]
            )  # its tags: test/...
            if taken or not re.fullmatch(r"[A-Za-z]\w*", name):
                raise ConfigError(
                    "loss", f"{kind} gives a part {name!r}", "give it another name, of letters and digits"
                )
        for name, value in {"loss": terms.loss, **terms.parts}.items():
            if not isinstance(value, Tensor) or value.dim():
                shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                way_out = "give a tensor of one number, the mean over the batch"
                raise ConfigError("loss", f"{kind} gives {name} as {shape}", way_out)
        if torch.is_grad_enabled() and not terms.loss.requires_grad:
            raise ConfigError(
                "loss", f"the loss of {kind} has no gradient", "compute it from the model's outputs, not detached"
            )
        self.named = names

    # --- validation -----------------------------------------------------------------------------------------

    def evaluate(self, split: Split | None = None, *, at_mean: bool = False) -> dict[str, float]:
        """Return the mean terms over a split (the test split by default), in nats per image; see ``measure_elbo``.

        The posterior draws are the same at every call, so that only the weights differ between epochs.
        """
        noise = rng.stream(self.seed, "evaluation", device=self.data.device)
        split = self.data.test if split is None else split  # an empty split is falsy
        return measure_elbo(
            self.model,
            self.objective,
            split,
            noise,
            at_mean=at_mean,
            batch_size=self.data.batch_size,
            num_train=len(self.data.train),
        )


class ConditionalVAETrainer(VAETrainer):
    """Train a conditional VAE, whose encoder and decoder need labels."""

    def _check_model(self, model: VAE) -> None:
        if not model.conditional:
            raise ConfigError("model", f"{type(model).__name__} takes no labels", "train it with VAETrainer")
