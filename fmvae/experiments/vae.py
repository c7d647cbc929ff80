"""Training and measuring a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fmvae.assembly import assemble
from fmvae.experiments.experiment import Experiment, optimization
from fmvae.experiments.objective import check_objective
from fmvae.measurement import measure
from fmvae.runs import Recorder, RunDirectory
from fmvae.runs.results import flat_scalars
from fmvae.summary import describe
from fmvae.training import ConditionalVAETrainer, VAETrainer
from fmvae.visualization import FigureObserver


class VAEExperiment(Experiment):
    """A VAE trained by its objective, and all its measures and figures."""

    metrics = ("test/objective", "test/recon", "test/kl", "test/neg_elbo")

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config = config
        self.parts = assemble(config, device)
        check_objective(config, self.parts.evaluator.plan())
        settings = config["trainer"]
        trainer = ConditionalVAETrainer if self.parts.model.conditional else VAETrainer
        self.trainer = trainer(
            self.parts.model,
            self.parts.objective,
            self.parts.data,
            *optimization(config, self.parts.model),
            epochs=settings["epochs"],
            seed=config["seed"],
            validate_every=settings["validate_every"],
            patience=settings["patience"],
            max_grad_norm=settings["max_grad_norm"],
        )
        self.hparams = {
            "model": config["model"]["_name_"],
            "beta": config["beta"]["value"],
            "beta_schedule": config["beta"]["_target_"].rsplit(".", 1)[-1].lower(),
            "latent_dim": config["latent_dim"]["value"],
            "likelihood": config["likelihood"]["_target_"].rsplit(".", 1)[-1],
            "epochs": settings["epochs"],
            "batch_size": config["data"]["batch_size"],
            "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
            "lr": config["optimizer"]["lr"],
            "seed": config["seed"],
        }

    def observers(self, recorder: Recorder) -> list[FigureObserver]:
        return [FigureObserver(self.parts.visualizer, self.parts.data, recorder, self.config["figures"])]

    def measure(self, run: RunDirectory, recorder: Recorder) -> dict[str, float]:
        results, _ = measure(run, self.config, self.parts, "best", recorder.album, draw=True)
        return flat_scalars(results)

    describe = staticmethod(describe)
