"""Training and measuring a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from fmvae.assembly import assemble
from fmvae.config.identity import RunIdentity
from fmvae.experiments.experiment import Experiment, optimization
from fmvae.experiments.search_target import check_objective
from fmvae.measurement.measure import measure
from fmvae.measurement.summary import describe
from fmvae.runs.directory import RunDirectory
from fmvae.runs.recorder import Album, Recorder
from fmvae.training import ConditionalVAETrainer, VAETrainer
from fmvae.training.engines.cuda_graph import CUDAGraph, can_stay
from fmvae.visualization import FigureObserver

USUAL_IWAE = 64  # samples, as in conf/evaluation/full.yaml


class VAEExperiment(Experiment):
    """A VAE trained by its objective, and all its measures and figures."""

    layout: ClassVar = {
        "training": {  # both splits on a chart
            "objective": ("(train|val)/objective$",),
            "reconstruction": ("(train|val)/recon$",),
            "KL": ("(train|val)/kl$",),
            "negative ELBO": ("(train|val)/neg_elbo$",),
        },
        "schedule": {
            "beta": ("schedule/beta$",),
            "learning rate": ("schedule/lr$",),
        },
        "test": {
            "reconstruction": ("test/recon$", "test/recon_at_mean$"),
            "KL": ("test/kl$",),
            "negative ELBO and its importance-weighted bound": ("test/neg_elbo$", "test/iwae_[0-9]+$"),
            "active units": ("latent/active_units$",),
            "FID of samples": ("fid/[^/]+/generation$",),
            "FID of reconstructions": ("fid/[^/]+/reconstruction$",),
        },
    }

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
            precision=settings["precision"],
        )
        if device.type == "cuda" and can_stay(self.trainer):
            self.trainer.engine = CUDAGraph(self.trainer)
        self.hparams = {
            "model": config["model"]["_name_"],
            "beta": config["beta"]["value"],
            "beta_schedule": config["beta"]["_target_"].rsplit(".", 1)[-1].lower(),
            "latent_dim": config["latent_dim"]["value"],
            "seed": config["seed"],
            "likelihood": config["likelihood"]["_target_"].rsplit(".", 1)[-1],
            "epochs": settings["epochs"],
            "batch_size": self.parts.data.batch_size,
            "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
            "lr": config["optimizer"]["lr"],
        }
        # also what this run doesn't measure: another of the sweep may, or evaluate.py later
        self.metrics = (
            "test/neg_elbo",
            "test/recon",
            "test/kl",
            "fid/resnet18/generation",
            "fid/pixels/generation",
            f"test/iwae_{config['evaluation']['iwae']['num_samples'] or USUAL_IWAE}",
            "latent/active_units",
            "accuracy/generated/overall",
            "test/objective",
            "test/recon_at_mean",
        )

    def observers(self, recorder: Recorder) -> list[FigureObserver]:
        return [FigureObserver(self.parts.visualizer, self.parts.data, recorder, self.config["figures"])]

    def measure(self, run: RunDirectory, identity: RunIdentity, album: Album) -> None:
        measure(run, identity, self.config, self.parts, "best", album, draw=True)

    describe = staticmethod(describe)
