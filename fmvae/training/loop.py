"""The epoch loop shared by all trainers: validation, best epoch, early stopping, state, observers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fmvae.common.stop import Stop
from fmvae.data import ImageData, Split
from fmvae.data.checks import check_data
from fmvae.errors import NumericsError
from fmvae.runs.checkpoint import load_module
from fmvae.runs.observer import Observer
from fmvae.runs.optimizers import flatten_optimizer, unflatten_optimizer
from fmvae.training.state import TrainerState, from_json, to_json
from fmvae.training.step import WAY_OUT, Rule, not_finite, take_step

NETWORK = "network"  # an objective's own network, whose optimizer is saved beside that of the model
GENERATOR = "generator"  # the name in Within.tensors of the state of the epoch's generator


class Within(NamedTuple):
    """The state of an epoch that was stopped before its end.

    Attributes:
        step: number of steps taken.
        sums: sums over images of the recorded numbers so far, by name.
        tensors: other tensors that the next step depends on, by name.
    """

    step: int
    sums: dict[str, float]
    tensors: dict[str, Tensor]


class Trainer(ABC):
    """Train a model and record every epoch. Subclasses implement a training epoch and the evaluation of a split.

    Args:
        model: on the device of ``data``.
        data: the splits.
        optimizer: of the model's parameters, and of others that are trained with them.
        scheduler: stepped once per epoch, after validation; None keeps the learning rate.
        epochs: number of passes over the training split.
        seed: of every random stream.
        validate_every: epochs between validations; the last epoch is always validated.
        patience: stop after this many validations without improvement; None disables early stopping.
        max_grad_norm: larger gradients are scaled down to this norm; None disables clipping.
        observers: called at the start, after each step and at the end of each epoch.

    Attributes:
        epoch: completed epochs.
        history: one row per completed epoch: ``epoch``, ``lr``, ``train/...`` and ``val/...``.
        within: the state of the next epoch if it was stopped before its end, else None.
        stacked_epochs: epochs trained in a stack with other runs, which rounds differently than a single run.
        abreast: number of runs trained together in this process, this one included.
        stop: records a request to stop training.
        trained: modules whose tensors are in checkpoints, by the prefix of their names.
        rules: the update rules of a step; the first is that of the model, the optimizer and the gradient clipping.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
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
        check_data(data)
        self.model, self.data, self.optimizer, self.scheduler = model, data, optimizer, scheduler
        self.epochs, self.seed = epochs, seed
        self.validate_every, self.patience, self.max_grad_norm = validate_every, patience, max_grad_norm
        self.observers = list(observers)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.within: Within | None = None
        self.stacked_epochs, self.abreast = 0, 1
        self.stop = Stop()
        self.trained: dict[str, nn.Module] = {"model": model}
        self.rules = [Rule(optimizer, [p for p in model.parameters() if p.requires_grad], max_grad_norm)]
        self.num_steps = math.ceil(len(data.train) / data.batch_size)  # per epoch

    @property
    @abstractmethod
    def terms(self) -> Sequence[str]:
        """The names of the quantities in an epoch's log line; ``best`` minimises the first."""

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; return its history row without the validation columns."""

    @abstractmethod
    def evaluate(self, split: Split | None = None) -> dict[str, float]:
        """Evaluate a split (the test split by default); every call gives the same result for the same weights."""

    def train(self) -> list[dict[str, float]]:
        """Train from the current state up to ``epochs``; return the history.

        After Ctrl-C or SIGTERM, the current step is finished, observers get ``on_stop``, and the exception of the
        signal is raised.

        Raises:
            NumericsError: a loss or gradient is not finite; it has not changed the weights.
        """
        with self.stop:
            self.begin()
            while not self.finished:
                self.end_epoch(self._train_epoch(self.epoch + 1))
                self.stop.heed()
        self.stop.heed()  # a signal may have come after the last check
        return self.history

    def begin(self) -> None:
        """Notify the observers that training starts or resumes."""
        for observer in self.observers:
            observer.on_train_start(self)

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train."""
        return self.epoch >= self.epochs or self.stopped_early

    def end_epoch(self, row: dict[str, float]) -> None:
        """Validate, step the scheduler, append the epoch's row to the history, and notify the observers."""
        epoch = self.epoch + 1
        if epoch % self.validate_every == 0 or epoch == self.epochs:
            row |= self._validate(epoch)
        self._step_scheduler(row)
        self.history.append(row)
        self.epoch, self.within = epoch, None
        for observer in self.observers:
            observer.on_epoch_end(self, row)

    def _begun(self, generator: torch.Generator) -> Within:
        """Return where to begin the epoch: its start, or the step where it was stopped; restores the generator."""
        within, self.within = self.within, None
        if within is None:
            return Within(0, {}, {})
        generator.set_state(within.tensors[GENERATOR])
        return within

    def _end_step(
        self, step: int, sums: Callable[[], Mapping[str, float]], generator: torch.Generator, **tensors: Tensor
    ) -> None:
        """Notify the observers of a step; if a stop was requested, store ``Within`` and stop.

        Args:
            sums: returns ``Within.sums``; called only for a stop.
            tensors: tensors that later steps depend on, other than model, optimizer and generator.
        """
        for observer in self.observers:
            observer.on_step(self, step)
        if self.stop.asked is not None:
            self.within = Within(step, dict(sums()), {GENERATOR: generator.get_state(), **tensors})
            for observer in self.observers:
                observer.on_stop(self, step)
            self.stop.heed()

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The parameters that ``optimizer`` trains."""
        return self.rules[0].parameters

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of all trained modules; those of the model without a prefix."""
        for prefix, module in self.trained.items():
            for name, parameter in module.named_parameters():
                yield name if prefix == "model" else f"{prefix}.{name}", parameter

    def _take_step(
        self, losses: Sequence[Tensor], terms: Mapping[str, Tensor], epoch: int, step: int
    ) -> dict[str, float]:
        """Take an optimizer step of each rule on its loss; return the terms and gradient norms as numbers.

        Raises:
            NumericsError: one of them is not finite; the weights have not changed.
        """
        read: dict[str, float] = {}

        def look(numbers: Tensor) -> None:
            names = (*terms, *(rule.norm for rule in self.rules))
            read.update(zip(names, numbers.tolist(), strict=True))  # one read from the device
            gradients = ((name, parameter.grad) for name, parameter in self.named_parameters())
            if problem := not_finite(read, gradients, epoch, step):
                raise problem

        take_step(self.rules, losses, list(terms.values()), look)
        return read

    def check_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise NumericsError if a tensor of the state is not finite; finite gradients do not rule that out."""
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and name != "trainer.last_loss" and not tensor.isfinite().all():
                raise NumericsError(f"epoch {self.epoch}", f"{name} is not finite after it", WAY_OUT)

    def _validate(self, epoch: int) -> dict[str, float]:
        row = {f"val/{name}": value for name, value in self.evaluate(self.data.val).items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise NumericsError(f"epoch {epoch}, validation", f"{name} is {value}", WAY_OUT)
        return row

    def _step_scheduler(self, row: Mapping[str, float]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if self.monitor in row:
                self.scheduler.step(row[self.monitor])
        elif self.scheduler is not None:
            self.scheduler.step()

    @property
    def monitor(self) -> str:
        """The column of ``history`` by which epochs are compared; lower is better."""
        return f"val/{self.terms[0]}"

    @property
    def best(self) -> dict[str, float] | None:
        """The row with the lowest finite validation loss, the earliest of equal ones; None before a validation."""
        rows = [row for row in self.history if math.isfinite(row.get(self.monitor, math.nan))]
        return min(rows, key=lambda row: row[self.monitor], default=None)

    @property
    def stopped_early(self) -> bool:
        """Whether there have been ``patience`` validations since the best one."""
        if self.patience is None or self.best is None:
            return False
        since = [row for row in self.history if self.monitor in row and row["epoch"] > self.best["epoch"]]
        return len(since) >= self.patience

    def state(self) -> TrainerState:
        """Return everything that the next epoch depends on: tensors by name, and JSON values."""
        tensors = {
            f"{prefix}.{name}": tensor
            for prefix, module in self.trained.items()
            for name, tensor in module.state_dict().items()
        }
        optimizer_tensors, optimizer_meta = flatten_optimizer(self.optimizer.state_dict())
        meta: dict[str, Any] = {
            "epoch": self.epoch,
            "history": self.history,
            "optimizer": optimizer_meta,
            "scheduler": to_json(self.scheduler.state_dict()) if self.scheduler else None,
        }
        if self.stacked_epochs:
            meta["stacked_epochs"] = self.stacked_epochs
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors.items()}
        for rule in self.rules[1:]:
            optimizer_tensors, meta[f"{NETWORK}_optimizer"] = flatten_optimizer(rule.optimizer.state_dict())
            tensors |= {f"{NETWORK}_optimizer.{k}": v for k, v in optimizer_tensors.items()}
        if self.within:
            tensors |= {f"within.{name}": tensor for name, tensor in self.within.tensors.items()}
            meta["within"] = {"step": self.within.step, "sums": self.within.sums}
        return TrainerState(tensors, meta)

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Restore a result of ``state``."""
        for prefix, module in self.trained.items():
            load_module(module, tensors, prefix)
        self.optimizer.load_state_dict(unflatten_optimizer(_named(tensors, "optimizer."), meta["optimizer"]))
        for rule in self.rules[1:]:
            own = _named(tensors, f"{NETWORK}_optimizer.")
            rule.optimizer.load_state_dict(unflatten_optimizer(own, meta[f"{NETWORK}_optimizer"]))
        if self.scheduler:
            self.scheduler.load_state_dict(from_json(meta["scheduler"]))
        self.epoch, self.history = meta["epoch"], list(meta["history"])
        self.stacked_epochs = meta.get("stacked_epochs", 0)
        within = meta.get("within")
        self.within = Within(within["step"], dict(within["sums"]), _named(tensors, "within.")) if within else None


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names have a prefix, and remove it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
