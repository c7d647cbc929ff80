"""Build the objects that a config describes, on a device."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fmvae import rng
from fmvae.config.building import build
from fmvae.data import ImageData
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.models import VAE
from fmvae.objectives import BetaSchedule, Likelihood, Objective
from fmvae.visualization import VAEVisualizer, check_figures, describe_model


class Parts(NamedTuple):
    """The objects that a config describes."""

    data: ImageData
    model: VAE
    objective: Objective
    visualizer: VAEVisualizer
    evaluator: Evaluator


def build_data(config: Mapping[str, Any], device: torch.device) -> ImageData:
    """Build the dataset of a config on the device, and check it against the config.

    Raises:
        ConfigError: image shape or number of classes, from which models are built, differ from the config.
    """
    node = config["data"]
    data = build(node, "data", ImageData, device=device)
    found = {"image_shape": list(data.image_shape), "num_classes": data.num_classes}
    for key, value in found.items():
        if key in node and node[key] != value:
            problem = f"{node[key]!r}, but the data have {value}"
            raise ConfigError(f"data.{key}", problem, f"set data.{key}={str(value).replace(' ', '')}")
    return data


def assemble(config: Mapping[str, Any], device: torch.device) -> Parts:
    """Build data, model (initialised from the run's seed), objective, visualizer and evaluator."""
    data = build_data(config, device)
    with rng.seeded_init(config["seed"]):
        model = build(config["model"], "model", VAE)
    if model.conditional and not data.labelled:
        problem = f"{type(model).__name__} takes labels, but {type(data).__name__} has none"
        raise ConfigError("model", problem, "choose a model that takes none, as model=base, or data with labels")
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
