"""The objects that a config stands for, on the device it names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fmvae import rng
from fmvae.config import build
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.evaluation import Evaluator
from fmvae.models import VAE
from fmvae.objectives import BetaSchedule, Likelihood, Objective
from fmvae.startup import without_compiler
from fmvae.visualization import VAEVisualizer, check_figures, describe_model


class Parts(NamedTuple):
    """The objects that a config stands for."""

    data: FashionMNISTManager
    model: VAE
    objective: Objective
    visualizer: VAEVisualizer
    evaluator: Evaluator


def choose_device(name: str) -> torch.device:
    """``auto`` or a torch device by name, checked to be there.

    ``auto`` is a GPU if there is one. ``auto:5``, for job 5 of a sweep, takes the GPUs in turn, so that jobs side
    by side share them evenly.
    """
    auto, _, job = name.partition(":")
    if auto == "auto" and (job.isdecimal() or name == "auto"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if job and count > 1:
            return torch.device("cuda", int(job) % count)
        return torch.device("cuda" if count else "cpu")
    way_out = f"use {f'device=cuda:{name}, ' if name.isdecimal() else ''}device=auto or device=cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError("device", f"{name!r} is no device", way_out) from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigError("device", f"{name!r} is not here ({count or 'no'} CUDA GPUs found)", way_out)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError("device", f"{name!r} is not supported", way_out)
    return device


def set_up_torch(config: Mapping[str, Any]) -> torch.device:
    """Threads, device and the switches that make a device repeat itself."""
    without_compiler()
    # Adam's averages of pixels that are nearly always black decay into denormal numbers, on which processors are
    # slow. Said before torch starts its threads, which inherit it.
    torch.set_flush_denormal(True)
    device = choose_device(config["device"])
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are the current device's
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # trainer.precision=tf32 does
    return device


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
    objective = Objective(
        build(config["likelihood"], "likelihood", Likelihood), build(config["beta"], "beta", BetaSchedule)
    )
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
