"""What every kind of experiment offers to the life of a run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmvae.config.building import build
from fmvae.config.identity import RunIdentity
from fmvae.runs.directory import RunDirectory
from fmvae.runs.observer import Observer
from fmvae.runs.recorder import Album, Layout, Recorder
from fmvae.training import Trainer


class Experiment(ABC):
    """The objects of one config. Making one writes nothing, and raises FmvaeError if the config is wrong.

    Attributes:
        trainer: ready to train, or to take a checkpoint's state.
        hparams: the settings by which people compare runs, flat.
        metrics: tags of the scalars to compare by, the first by default; empty for all.
        layout: of TensorBoard's Custom Scalars page, as ``Recorder`` takes it.
    """

    trainer: Trainer
    hparams: Mapping[str, Any]
    metrics: Sequence[str] = ()
    layout: Layout

    @abstractmethod
    def __init__(self, config: Mapping[str, Any], device: torch.device): ...

    def observers(self, recorder: Recorder) -> Sequence[Observer]:
        """What watches training, beside what watches every run."""
        return ()

    @abstractmethod
    def measure(self, run: RunDirectory, identity: RunIdentity, album: Album) -> None:
        """Measure the best checkpoint, write its results, draw its figures and show both in TensorBoard."""

    @staticmethod
    @abstractmethod
    def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
        """Results as a small table for the terminal."""


def optimization(config: Mapping[str, Any], model: nn.Module) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer of a model's parameters, and the scheduler of its learning rate, if there is one."""
    optimizer = build(config["optimizer"], "optimizer", Optimizer, params=list(model.parameters()))
    if not config.get("scheduler"):
        return optimizer, None
    return optimizer, build(config["scheduler"], "scheduler", LRScheduler, optimizer=optimizer)
