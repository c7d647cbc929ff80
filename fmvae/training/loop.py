"""The loop over epochs that every trainer shares: validation, the best epoch, early stopping, state, observers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fmvae.common.stop import Stop
from fmvae.data import ImageData, Split
from fmvae.errors import NumericsError
from fmvae.runs.checkpoint import load_model
from fmvae.runs.observer import Observer
from fmvae.training.state import TrainerState, flatten_optimizer, from_json, to_json, unflatten_optimizer
from fmvae.training.step import GRAD_NORM, WAY_OUT, Rule, not_finite, take_step

GENERATOR = "generator"  # the state of the epoch's own, among the tensors of Within


class Within(NamedTuple):
    """How far an epoch is that was stopped in between.

    Attributes:
        step: the last that the optimizer took.
        sums: of the numbers of the epoch's row, so far.
        tensors: what else its next step depends on, by name.
    """

    step: int
    sums: dict[str, float]
    tensors: dict[str, Tensor]


class Trainer(ABC):
    """Trains a model and remembers every epoch. Subclasses say what an epoch of training and a measurement are.

    Args:
        model: on the device of ``data``.
        data: the splits.
        optimizer: over the model's parameters.
        scheduler: stepped once per epoch, after validation; None keeps the learning rate.
        epochs: number of passes over the training split.
        seed: of every random stream.
        validate_every: epochs between validations; the last epoch is always validated.
        patience: stop after so many validations without a better one; None never does.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        observers: called at the start, after each step and at the end of each epoch.

    Attributes:
        epoch: completed epochs.
        history: one row per completed epoch: ``epoch``, ``lr``, ``train/...`` and ``val/...``.
        within: of the epoch after those, if it was stopped in between.
        stacked_epochs: how many were taken in a stack with other runs, whose rounding differs from a run's alone.
        abreast: of how many runs the steps are taken in turn, this one's among them.
        stop: whether training is asked to.
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
        self.model, self.data, self.optimizer, self.scheduler = model, data, optimizer, scheduler
        self.epochs, self.seed = epochs, seed
        self.validate_every, self.patience, self.max_grad_norm = validate_every, patience, max_grad_norm
        self.observers = list(observers)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.within: Within | None = None
        self.stacked_epochs, self.abreast = 0, 1
        self.stop = Stop()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.num_steps = math.ceil(len(data.train) / data.batch_size)  # per epoch

    @property
    @abstractmethod
    def terms(self) -> Sequence[str]:
        """What the log says of an epoch; the first is what ``best`` is lowest in."""

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training split; returns the epoch's row, but for validation."""

    @abstractmethod
    def evaluate(self, split: Split | None = None) -> dict[str, float]:
        """The measures of a split (the test split by default), the same at every call."""

    def train(self) -> list[dict[str, float]]:
        """Train up to ``epochs`` from wherever the state stands; returns the history.

        Ctrl-C and SIGTERM end it after a step, with what they raise; observers then have seen ``on_stop``.

        Raises:
            NumericsError: a loss or gradient is not finite; the optimizer has not stepped on it.
        """
        with self.stop:
            self.begin()
            while not self.finished:
                self.end_epoch(self._train_epoch(self.epoch + 1))
                self.stop.heed()
        self.stop.heed()  # it may have come after the last look
        return self.history

    def begin(self) -> None:
        """Tell the observers that training starts, or goes on."""
        for observer in self.observers:
            observer.on_train_start(self)

    @property
    def finished(self) -> bool:
        """Whether there is no epoch left to train."""
        return self.epoch >= self.epochs or self.stopped_early

    def end_epoch(self, row: dict[str, float]) -> None:
        """Validate, step the scheduler, and remember the epoch of this row; observers then see it."""
        epoch = self.epoch + 1
        if epoch % self.validate_every == 0 or epoch == self.epochs:
            row |= self._validate(epoch)
        self._step_scheduler(row)
        self.history.append(row)
        self.epoch, self.within = epoch, None
        for observer in self.observers:
            observer.on_epoch_end(self, row)

    def _begun(self, generator: torch.Generator) -> Within:
        """Where to begin the epoch: at its start, or where it was stopped, with the generator as it was there."""
        within, self.within = self.within, None
        if within is None:
            return Within(0, {}, {})
        generator.set_state(within.tensors[GENERATOR])
        return within

    def _end_step(
        self, step: int, sums: Callable[[], Mapping[str, float]], generator: torch.Generator, **tensors: Tensor
    ) -> None:
        """Tell the observers of a step, and stop if that is asked.

        Args:
            sums: gives those of ``Within``, if they are needed.
            tensors: what the steps after it depend on, beside the model, the optimizer and the generator.
        """
        for observer in self.observers:
            observer.on_step(self, step)
        if self.stop.asked is not None:
            self.within = Within(step, dict(sums()), {GENERATOR: generator.get_state(), **tensors})
            for observer in self.observers:
                observer.on_stop(self, step)
            self.stop.heed()

    @property
    def rule(self) -> Rule:
        """What is done to the model's weights once their gradients are known."""
        return Rule(self.optimizer, self.parameters, self.max_grad_norm)

    def _take_step(self, loss: Tensor, terms: Mapping[str, Tensor], epoch: int, step: int) -> dict[str, float]:
        """Step on a loss; returns the terms and the gradient norm, as numbers.

        Raises:
            NumericsError: one is not finite; the weights are as they were.
        """
        read: dict[str, float] = {}

        def look(numbers: Tensor) -> None:
            read.update(zip((*terms, GRAD_NORM), numbers.tolist(), strict=True))  # one read from the device
            gradients = ((name, parameter.grad) for name, parameter in self.model.named_parameters())
            if problem := not_finite(read, gradients, epoch, step):
                raise problem

        take_step(self.rule, loss, list(terms.values()), look)
        return read

    def check_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise NumericsError if one of the state's is not finite: the last step's gradient may have been."""
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
        """The row with the lowest finite validation loss, the earliest of equals; None before any."""
        rows = [row for row in self.history if math.isfinite(row.get(self.monitor, math.nan))]
        return min(rows, key=lambda row: row[self.monitor], default=None)

    @property
    def stopped_early(self) -> bool:
        """Whether ``patience`` validations have passed since the best one."""
        if self.patience is None or self.best is None:
            return False
        since = [row for row in self.history if self.monitor in row and row["epoch"] > self.best["epoch"]]
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
        if self.stacked_epochs:
            meta["stacked_epochs"] = self.stacked_epochs
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors.items()}
        if self.within:
            tensors |= {f"within.{name}": tensor for name, tensor in self.within.tensors.items()}
            meta["within"] = {"step": self.within.step, "sums": self.within.sums}
        return TrainerState(tensors, meta)

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        load_model(self.model, tensors)
        self.optimizer.load_state_dict(unflatten_optimizer(_named(tensors, "optimizer."), meta["optimizer"]))
        if self.scheduler:
            self.scheduler.load_state_dict(from_json(meta["scheduler"]))
        self.epoch, self.history = meta["epoch"], list(meta["history"])
        self.stacked_epochs = meta.get("stacked_epochs", 0)
        within = meta.get("within")
        self.within = Within(within["step"], dict(within["sums"]), _named(tensors, "within.")) if within else None


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of a prefix, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
