"""Training and measuring the classifier, and writing its weights as they are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fmvae import rng
from fmvae.config import build
from fmvae.data import FashionMNISTManager
from fmvae.experiments.experiment import Experiment, optimization
from fmvae.models import FashionResNet18
from fmvae.runs import Recorder, RunDirectory
from fmvae.training import ClassifierTrainer


class ClassifierExperiment(Experiment):
    """FashionResNet18 trained to tell the classes apart."""

    metrics = ("test/loss", "test/accuracy")

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config = config
        data = build(config["data"], "data", FashionMNISTManager, device=device)
        with rng.seeded_init(config["seed"]):
            model = build(config["model"], "model", FashionResNet18)
        model = model.to(device)
        optimizer, _ = optimization(config, model)
        own = ("label_smoothing", "warmup", "shift", "flip", "sides", "prune", "precision")
        shared = ("epochs", "validate_every", "patience", "max_grad_norm")
        settings = {name: config["trainer"][name] for name in (*shared, *own)}
        self.trainer = ClassifierTrainer(model, data, optimizer, seed=config["seed"], **settings)
        self.hparams = {
            "model": config["model"]["_name_"],
            "epochs": config["trainer"]["epochs"],
            "batch_size": config["data"]["batch_size"],
            "lr": config["optimizer"]["lr"],
            "seed": config["seed"],
        }

    def measure(self, run: RunDirectory, recorder: Recorder) -> dict[str, float]:
        raise NotImplementedError

    @staticmethod
    def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
        raise NotImplementedError
