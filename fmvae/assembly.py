"""The objects that a config stands for, on the device it names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fmvae import rng
from fmvae.config.building import build
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.models import VAE
from fmvae.objectives import BetaSchedule, Likelihood, Objective
from fmvae.visualization import VAEVisualizer, check_figures, describe_model


class Parts(NamedTuple):
    """The objects that a config stands for."""

    data: FashionMNISTManager
    model: VAE
    objective: Objective
    visualizer: VAEVisualizer
    evaluator: Evaluator


def assemble(config: Mapping[str, Any], device: torch.device) -> Parts:
    """Data, model (initialised from the run's seed), objective, and what draws and measures them."""
    data = build(config["data"], "data", FashionMNISTManager, device=device)
    with rng.seeded_init(config["seed"]):
        model = build(config["model"], "model", VAE)
    if model.conditional and (found := getattr(model, "num_classes", data.num_classes)) != data.num_classes:
        problem = f"{found} classes, but the data have {data.num_classes}"
        raise ConfigError("model.num_classes", problem, "leave it out; it follows data.num_classes")
    if model.image_shape != data.image_shape:
        problem = f"{list(model.image_shape)}, but the images are {list(data.image_shape)}"
        raise ConfigError("model.image_shape", problem, "leave it out; it follows data.image_shape")
    likelihood = build(config["likelihood"], "likelihood", Likelihood)
    schedule = build(config["beta"], "beta", BetaSchedule)
    objective = build(config["loss"], "loss", Objective, likelihood=likelihood, beta=schedule)
    model = model.to(device)
    visualizer = VAEVisualizer(
        model,
        objective.likelihood,
        class_names=data.class_names,
        seed=config["seed"],
        name=describe_model(config),
    )
    check_figures(visualizer, data, config["figures"])
    evaluator = Evaluator(model, objective, data, seed=config["seed"], settings=config["evaluation"])
    return Parts(data, model, objective, visualizer, evaluator)
