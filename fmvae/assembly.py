"""Build the objects that a config describes, on a device."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmvae import rng
from fmvae.config.building import build
from fmvae.config.combinations import no_labels
from fmvae.config.commands import classifier_command
from fmvae.data import ImageData
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.models import VAE, Prior
from fmvae.objectives import BetaSchedule, Likelihood, Objective
from fmvae.runs.checkpoint import load_module
from fmvae.visualization import VAEVisualizer, check_figures, describe_model

PRIOR, OBJECTIVE = 1, 2  # parts of the stream ``init``; a model's weights do not depend on its prior and loss


class Parts(NamedTuple):
    """The objects that a config describes."""

    data: ImageData
    model: VAE
    objective: Objective
    visualizer: VAEVisualizer
    evaluator: Evaluator

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a checkpoint's tensors into the model and into the objective, whose likelihood may have parameters.

        Raises:
            RunError: they do not fit.
        """
        for prefix, module in (("model", self.model), ("objective", self.objective)):
            load_module(module, tensors, prefix)


def build_data(config: Mapping[str, Any], device: torch.device) -> ImageData:
    """Build the dataset of a config on the device, and check it against the config.

    Raises:
        ConfigError: image shape or number of classes, from which models are built, differ from the config.
    """
    node = config["data"]
    data = build(node, "data", ImageData, device=device)
    _check_begun(data, "data", "image_shape")
    found = {"image_shape": list(data.image_shape), "num_classes": data.num_classes}
    for key, value in found.items():
        if key in node and node[key] != value:
            problem = f"{node[key]!r}, but the data have {value}"
            raise ConfigError(f"data.{key}", problem, f"set data.{key}={str(value).replace(' ', '')}")
    return data


def _check_begun(made: object, key: str, attribute: str) -> None:
    """Refuse an object of a user's class whose constructor left the base class's out."""
    if not hasattr(made, attribute):
        problem = f"the constructor of {type(made).__name__} does not call super().__init__(...)"
        raise ConfigError(key, problem, "call it with what the base class takes (docs/extending.md)")


def _check_shapes(model: VAE, data: ImageData) -> None:
    """Refuse a user's model whose ``encode`` or ``decode`` gives tensors of other shapes than it should."""
    name, images = type(model).__name__, data.train.images[:2]
    x, labels = to_float(images), data.train.labels[:2]
    training = model.training
    model.eval()  # no running statistics are changed
    with torch.no_grad():
        posterior = model.encode(x, labels)
        wanted = [len(x), model.latent_dim]
        shapes = [list(part.shape) for part in posterior] if isinstance(posterior, tuple) else None
        if shapes != [wanted, wanted]:
            found = shapes if shapes is not None else f"one {type(posterior).__name__}"
            problem = f"encode of {name} gives {found} for {len(x)} images and z = {model.latent_dim}"
            raise ConfigError("model", problem, f"return mu and logvar, each {wanted}")
        logits = model.decode(posterior[0], labels)
        if list(logits.shape) != list(x.shape):
            problem = f"decode of {name} gives {list(logits.shape)} for {len(x)} images"
            raise ConfigError("model", problem, f"return logits of shape {list(x.shape)}")
    model.train(training)


def _check_sizes(made: Prior | Objective, group: str, model: VAE) -> None:
    """Refuse a prior or an objective that was made for other latents or images than the model's."""
    for name, followed in (("latent_dim", "latent_dim"), ("image_shape", "data.image_shape")):
        own = getattr(model, name)
        if (found := getattr(made, name, own)) != own:
            problem = f"{found}, but the model has {name} {own}"
            raise ConfigError(f"{group}.{name}", problem, f"leave it out; it follows {followed}")


def _check_batches(objective: Objective, data: ImageData) -> None:
    """Refuse batches that are too small for an objective which compares the images of a batch."""
    needed = objective.smallest_batch
    problem = f"{type(objective).__name__} compares images within a batch, and needs {needed} in each"
    for split in data.splits:
        if len(split) < needed:
            where = f"the {split.name} split has {len(split)} in all"
            raise ConfigError("data", f"{problem}: {where}", "give it more images, or choose another loss")

    def smallest(size: int, num_images: int) -> int:
        return num_images % size or min(size, num_images)

    for split in data.splits:
        if (last := smallest(data.batch_size, len(split))) < needed:
            where = f"the last batch of the {split.name} split has {last} with batches of {data.batch_size}"
            largest = max(len(split) for split in data.splits)  # with it, each split is one batch
            sizes = range(max(needed, data.batch_size), largest + 1)
            fitting = (size for size in sizes if all(smallest(size, len(s)) >= needed for s in data.splits))
            way_out = f"give another size, as {next(fitting, largest)}"
            raise ConfigError("data.batch_size", f"{problem}: {where}", way_out)


def fitted_samplers(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the names in ``evaluation.samplers`` without repetition, and without the model's own prior."""
    return [name for name in dict.fromkeys(evaluation.get("samplers", ())) if name != "prior"]


def assemble(config: Mapping[str, Any], device: torch.device) -> Parts:
    """Build data, model (initialised from the run's seed), objective, visualizer and evaluator."""
    data = build_data(config, device)
    with rng.seeded_init(config["seed"]):
        model = build(config["model"], "model", VAE)
    with rng.seeded(config["seed"], "init", PRIOR):
        model.latent_prior = build(config["prior"], "prior", Prior)
    _check_sizes(model.latent_prior, "prior", model)
    model.latent_prior.start_from(data.train.images, config["seed"])
    if model.conditional and not data.labelled:
        raise no_labels(type(model), type(data))
    if model.conditional and (found := getattr(model, "num_classes", data.num_classes)) != data.num_classes:
        problem = f"{found} classes, but the data have {data.num_classes}"
        raise ConfigError("model.num_classes", problem, "leave it out; it follows data.num_classes")
    if model.image_shape != data.image_shape:
        problem = f"{list(model.image_shape)}, but the images are {list(data.image_shape)}"
        raise ConfigError("model.image_shape", problem, "leave it out; it follows data.image_shape")
    likelihood = build(config["likelihood"], "likelihood", Likelihood)
    schedule = build(config["beta"], "beta", BetaSchedule)
    with rng.seeded(config["seed"], "init", OBJECTIVE):
        objective = build(config["loss"], "loss", Objective, likelihood=likelihood, beta=schedule)
    _check_begun(objective, "loss", "likelihood")
    _check_batches(objective, data)
    _check_sizes(objective, "loss", model)
    if type(objective.num_draws) is not int or objective.num_draws < 1:
        problem = f"{type(objective).__name__} asks for num_draws = {objective.num_draws!r}"
        raise ConfigError("loss", problem, "give a whole number >= 1")
    model, objective = model.to(device), objective.to(device)
    if not type(model).__module__.startswith("fmvae."):
        _check_shapes(model, data)
    visualizer = VAEVisualizer(
        model,
        objective.likelihood,
        class_names=data.class_names,
        seed=config["seed"],
        name=describe_model(config),
    )
    check_figures(visualizer, data, config["figures"], fitted_samplers(config["evaluation"]))

    def untrained() -> VAE:
        with rng.seeded_init(config["seed"]):
            return build(config["model"], "model", VAE).to(device)

    evaluator = Evaluator(
        *(model, objective, data),
        seed=config["seed"],
        settings=config["evaluation"],
        untrained=untrained,
        trains_classifier=classifier_command(config["data"]),
    )
    return Parts(data, model, objective, visualizer, evaluator)
