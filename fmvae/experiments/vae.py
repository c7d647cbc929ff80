"""Train and measure a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fmvae.assembly import assemble
from fmvae.config.identity import RunIdentity
from fmvae.evaluation import Evaluator
from fmvae.evaluation.columns import Column, built_in_columns
from fmvae.experiments.experiment import Experiment, optimization
from fmvae.experiments.search_target import check_objective
from fmvae.measurement.measure import measure
from fmvae.measurement.summary import describe
from fmvae.runs.directory import RunDirectory
from fmvae.runs.hparams import hparams, others
from fmvae.runs.recorder import Album, Layout, Recorder
from fmvae.training import ConditionalVAETrainer, VAETrainer, trained_by_optimizer
from fmvae.training.engines.cuda_graph import CUDAGraph, can_stay
from fmvae.visualization import FigureObserver

USUAL_IWAE = 64  # samples, as in conf/evaluation/full.yaml
# curves have capitals, so that TensorBoard shows them first; runs of earlier versions have none
TRAINING = {
    "training": {  # both splits in one chart
        "objective": ("([Tt]rain|[Vv]al)/objective$",),
        "reconstruction": ("([Tt]rain|[Vv]al)/recon$",),
        "KL": ("([Tt]rain|[Vv]al)/kl$",),
        "negative ELBO": ("([Tt]rain|[Vv]al)/neg_elbo$",),
    },
    "schedule": {
        "beta": ("schedule/beta$",),
        "learning rate": ("schedule/lr$",),
    },
}


def compared(evaluator: Evaluator) -> list[Column]:
    """Return the columns by which TensorBoard compares runs, with full tags.

    They include all columns of fmvae, even if this run does not measure them: another run of the sweep may, or
    evaluate.py later.
    """
    own = [column for name in evaluator.own for column in evaluator.own[name].columns]
    return built_in_columns() + own


def layout(evaluator: Evaluator) -> Layout:
    """Return the layout of Custom Scalars: training, final numbers, and a group for each user's measure."""
    charts: dict[str, dict[str, list[str]]] = {"test": {}}
    for column in compared(evaluator):
        name = column.tag.partition("/")[0]
        group, title = (name, column.chart or column.header) if name in evaluator.own else ("test", column.chart)
        if title:
            tags = charts.setdefault(group, {}).setdefault(title, [])
            tags += [column.pattern] if column.pattern not in tags else []
    return {**TRAINING, **charts}


class VAEExperiment(Experiment):
    """A VAE with its objective, trainer, measures and figures."""

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        self.config = config
        self.parts = assemble(config, device)
        check_objective(config, [column.tag for column in self.parts.evaluator.columns()])
        settings = config["trainer"]
        trainer = ConditionalVAETrainer if self.parts.model.conditional else VAETrainer
        self.trainer = trainer(
            self.parts.model,
            self.parts.objective,
            self.parts.data,
            *optimization(config, trained_by_optimizer(self.parts.model, self.parts.objective)),
            epochs=settings["epochs"],
            seed=config["seed"],
            validate_every=settings["validate_every"],
            patience=settings["patience"],
            max_grad_norm=settings["max_grad_norm"],
            precision=settings["precision"],
        )
        if device.type == "cuda" and can_stay(self.trainer):
            self.trainer.engine = CUDAGraph(self.trainer)
        self.hparams, self.other_hparams = hparams(config, self.parts.data.batch_size), others()
        num_samples = config["evaluation"]["iwae"]["num_samples"] or USUAL_IWAE
        shown = [column for column in compared(self.parts.evaluator) if "hparams" in column.places]
        shown.sort(key=lambda column: "table" not in column.places)  # columns of tables first
        self.metrics = tuple(column.tag.replace("{K}", str(num_samples)) for column in shown)
        self.layout = layout(self.parts.evaluator)

    def observers(self, recorder: Recorder) -> list[FigureObserver]:
        return [FigureObserver(self.parts.visualizer, self.parts.data, recorder, self.config["figures"])]

    def measure(self, run: RunDirectory, identity: RunIdentity, album: Album) -> None:
        measure(run, identity, self.config, self.parts, "best", album, draw=True)

    describe = staticmethod(describe)
