"""Refuse models, priors, losses and data that do not fit each other, as their classes say, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmvae.config.building import find_class
from fmvae.config.identity import NEWER, is_vae
from fmvae.errors import ConfigError

STANDARD = NEWER["prior"]["_target_"]


def check_combination(config: Mapping[str, Any]) -> None:
    """Check the classes of a resolved config against each other.

    Raises:
        ConfigError: they do not fit. The message says what to choose instead.
    """
    binarize = config.get("data", {}).get("binarize")
    if not is_vae(config):
        if binarize == "dynamic":
            problem = "a classifier is trained on one draw of black and white images"
            raise ConfigError("data.binarize", problem, "give data.binarize=static")
        return
    if config["data"].get("num_classes") == 0:
        model = find_class(config["model"]["_target_"], "model")
        if getattr(model, "conditional", False):
            raise no_labels(model, find_class(config["data"]["_target_"], "data"))
    loss, beta, likelihood = (find_class(config[k]["_target_"], k) for k in ("loss", "beta", "likelihood"))
    if config["prior"]["_target_"] != STANDARD:
        _check_prior(config, getattr(loss, "any_prior", True), loss.__name__)
    usual = find_class("fmvae.objectives.BetaSchedule")
    if not getattr(loss, "any_schedule", True) and getattr(beta, "penalty", None) is not usual.__dict__["penalty"]:
        problem = f"{beta.__name__} is a penalty on the KL, and {loss.__name__} takes a weight"
        raise ConfigError("beta", problem, "choose beta=constant, warmup or cyclical")
    if binarize and not issubclass(likelihood, find_class("fmvae.objectives.Bernoulli")):
        problem = f"{binarize!r} makes every pixel 0 or 1, and {likelihood.__name__} is for grey values"
        raise ConfigError("data.binarize", problem, "choose likelihood=bernoulli, or data.binarize=null")


def no_labels(model: type, data: type) -> ConfigError:
    """Return the error for a model that takes labels on data that have none."""
    problem = f"{model.__name__} takes labels, but {data.__name__} has none"
    return ConfigError("model", problem, "choose a model that takes none, as model=base, or data with labels")


def _check_prior(config: Mapping[str, Any], any_prior: bool, loss: str) -> None:
    model, prior = (find_class(config[group]["_target_"], group) for group in ("model", "prior"))
    if getattr(prior, "encodes", False) and getattr(model, "conditional", False):
        problem = (
            f"{prior.__name__} encodes pseudo-inputs, which have no labels, and {model.__name__} needs labels"
        )
        raise ConfigError("prior", problem, "choose prior=mixture or flow, or a model without labels")
    if config["model"].get("prior") == "learned":
        problem = f"{prior.__name__} with model.prior=learned: these are two priors"
        raise ConfigError("prior", problem, "leave one of the two out: prior=standard, or model.prior=standard")
    if not any_prior:
        problem = f"{loss} only knows the prior N(0, 1), and this is {prior.__name__}"
        raise ConfigError("prior", problem, "choose prior=standard, or a loss for any prior, as loss=elbo")
