"""The base class of experiments."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
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
    """The objects of one config. The constructor writes nothing, and raises FmvaeError if the config is wrong.

    Attributes:
        trainer: ready to train, or to load a checkpoint's state.
        hparams: the settings by which runs are compared in TensorBoard, a flat mapping.
        other_hparams: settings that other runs may have, with a value of the right type.
        metrics: tags of the scalars by which runs are compared, the default first; empty for all.
        layout: of TensorBoard's Custom Scalars page, in the format of ``Recorder``.
    """

    trainer: Trainer
    hparams: Mapping[str, Any]
    other_hparams: Mapping[str, Any] = {}
    metrics: Sequence[str] = ()
    layout: Layout

    @abstractmethod
    def __init__(self, config: Mapping[str, Any], device: torch.device): ...

    def observers(self, recorder: Recorder) -> Sequence[Observer]:
        """Return observers in addition to those of every run."""
        return ()

    @abstractmethod
    def measure(self, run: RunDirectory, identity: RunIdentity, album: Album) -> None:
        """Measure the best checkpoint, write its results, draw its figures and show both in TensorBoard."""

    @staticmethod
    @abstractmethod
    def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
        """Format results as a small table for the terminal."""


def optimization(
    config: Mapping[str, Any], parameters: Iterable[nn.Parameter]
) -> tuple[Optimizer, LRScheduler | None]:
    """Build the optimizer of parameters, and the learning-rate scheduler, or None without one."""
    optimizer = build(config["optimizer"], "optimizer", Optimizer, params=list(parameters))
    if not config.get("scheduler"):
        return optimizer, None
    return optimizer, build(config["scheduler"], "scheduler", LRScheduler, optimizer=optimizer)
