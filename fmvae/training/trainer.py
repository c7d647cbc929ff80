"""The training loop. It draws from named streams only, and what watches it cannot change a trained bit."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fmvae import rng
from fmvae.data import FashionMNISTManager, Split
from fmvae.errors import ConfigError, NumericsError
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.models import VAE, VAEOutput
from fmvae.objectives import Objective
from fmvae.runs.checkpoint import load_model
from fmvae.runs.observer import Observer
from fmvae.training.state import TrainerState, flatten_optimizer, from_json, to_json, unflatten_optimizer

WAY_OUT = "lower optimizer.lr, set trainer.max_grad_norm, or look at the data; the last checkpoint is untouched"


class VAETrainer:
    """Trains a VAE and remembers every epoch.

    Args:
        model: on the device of ``data``.
        objective: likelihood and beta schedule.
        data: the splits.
        optimizer: over the model's parameters.
        scheduler: stepped once per epoch, after validation; None keeps the learning rate.
        epochs: number of passes over the training split.
        seed: of the shuffle, noise and validation streams.
        validate_every: epochs between validations; the last epoch is always validated.
        patience: stop after so many validations without a better objective; None never does.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        observers: called at the start, after each step and at the end of each epoch.

    Attributes:
        epoch: completed epochs.
        history: one row per completed epoch: ``epoch``, ``beta``, ``lr``, ``train/...`` and ``val/...``.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        data: FashionMNISTManager,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        *,
        epochs: int,
        seed: int = 0,
        validate_every: int = 1,
        patience: int | None = None,
        max_grad_norm: float | None = None,
        observers: Iterable[Observer] = (),
    ):
        self._check_model(model)
        self.model, self.objective, self.data = model, objective, data
        self.optimizer, self.scheduler = optimizer, scheduler
        self.epochs, self.seed = epochs, seed
        self.validate_every, self.patience, self.max_grad_norm = validate_every, patience, max_grad_norm
        self.observers = list(observers)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.num_steps = math.ceil(len(data.train) / data.batch_size)  # per epoch

    def _check_model(self, model: VAE) -> None:
        if model.conditional:
            raise ConfigError(
                "model", f"{type(model).__name__} needs labels", "train it with ConditionalVAETrainer"
            )

    def _forward(self, x: Tensor, labels: Tensor, noise: torch.Generator) -> VAEOutput:
        return self.model(x, generator=noise)

    def train(self) -> list[dict[str, float]]:
        """Train up to ``epochs`` from wherever the state stands; returns the history.

        Raises:
            NumericsError: a loss or gradient is not finite; the optimizer has not stepped on it.
        """
        for observer in self.observers:
            observer.on_train_start(self)
        while self.epoch < self.epochs and not self.stopped_early:
            epoch = self.epoch + 1
            row = self._train_epoch(epoch)
            if epoch % self.validate_every == 0 or epoch == self.epochs:
                row |= self._validate(epoch)
            self._step_scheduler(row)
            self.history.append(row)
            self.epoch = epoch
            for observer in self.observers:
                observer.on_epoch_end(self, row)
        return self.history

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        shuffle = rng.stream(self.seed, "shuffle", epoch)
        noise = rng.stream(self.seed, "noise", epoch, self.data.device)
        sums: dict[str, float] = dict.fromkeys(("recon", "kl", "objective", "grad_norm"), 0.0)
        progress = 0.0
        for step, (x, labels) in enumerate(self.data.train.batches(self.data.batch_size, shuffle)):
            progress = ((epoch - 1) * self.num_steps + step) / (self.epochs * self.num_steps)

            # forward: the two terms, and what is optimised of them
            output = self._forward(x, labels, noise)
            terms = self.objective.terms(output.logits, x, output.mu, output.logvar)
            recon, kl = terms.recon.mean(), terms.kl.mean()
            loss = self.objective(recon, kl, progress)

            # backward, and a look at the numbers before they reach the weights
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            values = torch.stack([recon, kl, loss, grad_norm]).tolist()  # one read from the device
            numbers = dict(zip(sums, values, strict=True))
            self._check_finite(numbers, epoch, step + 1)

            # step
            if self.max_grad_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, grad_norm)
            self.optimizer.step()

            for name, number in numbers.items():
                sums[name] += number * len(x)
            for observer in self.observers:
                observer.on_step(self, step + 1)

        beta = self.objective.beta.weight(progress)
        lr = self.optimizer.param_groups[0]["lr"]
        means = {f"train/{name}": total / len(self.data.train) for name, total in sums.items()}
        return {"epoch": epoch, "beta": beta, "lr": float(lr), **means}

    def _check_finite(self, numbers: Mapping[str, float], epoch: int, step: int) -> None:
        """Raise NumericsError naming the first term that is not finite, before the optimizer steps."""
        if all(map(math.isfinite, numbers.values())):
            return
        term, value = next((name, v) for name, v in numbers.items() if not math.isfinite(v))
        if term == "grad_norm":
            named = ((n, p.grad) for n, p in self.model.named_parameters() if p.grad is not None)
            term = next((f"gradient of {n}" for n, grad in named if not grad.isfinite().all()), "gradient norm")
        raise NumericsError(f"epoch {epoch}, step {step}", f"{term} is {value}", WAY_OUT)

    def _validate(self, epoch: int) -> dict[str, float]:
        row = {f"val/{name}": value for name, value in self.evaluate(self.data.val).items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise NumericsError(f"epoch {epoch}, validation", f"{name} is {value}", WAY_OUT)
        return row

    def _step_scheduler(self, row: Mapping[str, float]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if "val/objective" in row:
                self.scheduler.step(row["val/objective"])
        elif self.scheduler is not None:
            self.scheduler.step()

    def evaluate(self, split: Split | None = None, *, at_mean: bool = False) -> dict[str, float]:
        """The mean terms over a split (the test split by default), in nats per image; see ``measure_elbo``.

        The posterior draws are the same at every call, so epochs differ by their weights alone.
        """
        noise = rng.stream(self.seed, "evaluation", device=self.data.device)
        split = self.data.test if split is None else split  # an empty split is falsy
        return measure_elbo(self.model, self.objective, split, noise, at_mean=at_mean)

    @property
    def best(self) -> dict[str, float] | None:
        """The row with the lowest finite validation objective, the earliest of equals; None before any."""
        rows = [row for row in self.history if math.isfinite(row.get("val/objective", math.nan))]
        return min(rows, key=lambda row: row["val/objective"], default=None)

    @property
    def stopped_early(self) -> bool:
        """Whether ``patience`` validations have passed since the best one."""
        if self.patience is None or self.best is None:
            return False
        since = [row for row in self.history if "val/objective" in row and row["epoch"] > self.best["epoch"]]
        return len(since) >= self.patience

    def state(self) -> TrainerState:
        """Everything the next epoch depends on: tensors by name, and JSON values."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        optimizer_tensors, optimizer_meta = flatten_optimizer(self.optimizer.state_dict())
        meta: dict[str, Any] = {
            "epoch": self.epoch,
            "history": self.history,
            "optimizer": optimizer_meta,
            "scheduler": to_json(self.scheduler.state_dict()) if self.scheduler else None,
        }
        return TrainerState(tensors | {f"optimizer.{k}": v for k, v in optimizer_tensors.items()}, meta)

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        load_model(self.model, tensors)
        prefix = "optimizer."
        optimizer_tensors = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.optimizer.load_state_dict(unflatten_optimizer(optimizer_tensors, meta["optimizer"]))
        if self.scheduler:
            self.scheduler.load_state_dict(from_json(meta["scheduler"]))
        self.epoch, self.history = meta["epoch"], list(meta["history"])


class ConditionalVAETrainer(VAETrainer):
    """Trains a conditional VAE: the labels go with the images."""

    def _check_model(self, model: VAE) -> None:
        if not model.conditional:
            raise ConfigError("model", f"{type(model).__name__} takes no labels", "train it with VAETrainer")

    def _forward(self, x: Tensor, labels: Tensor, noise: torch.Generator) -> VAEOutput:
        return self.model(x, labels, generator=noise)
