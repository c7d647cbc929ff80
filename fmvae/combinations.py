"""Refuse models, priors, objectives and data that do not fit each other, before training."""

from __future__ import annotations

from fmvae.data import ImageData
from fmvae.errors import ConfigError
from fmvae.models import VAE, ConditionalVAE, StandardPrior
from fmvae.objectives import Bernoulli, BetaSchedule, Objective


def check_combination(model: VAE, objective: Objective, data: ImageData) -> None:
    """Check a model with its prior, an objective and data against each other.

    Raises:
        ConfigError: they do not fit. The message says what to choose instead.
    """
    _check_prior(model, objective)
    _check_schedule(objective)
    _check_batches(objective, data)
    if data.binarize and not isinstance(objective.likelihood, Bernoulli):
        problem = (
            f"{data.binarize!r} makes pixels 0 or 1, and {type(objective.likelihood).__name__} is for grey values"
        )
        raise ConfigError("data.binarize", problem, "choose likelihood=bernoulli, or data.binarize=null")
    if (found := getattr(objective, "latent_dim", model.latent_dim)) != model.latent_dim:
        problem = f"{found}, but the model has {model.latent_dim} latent dimensions"
        raise ConfigError("loss.latent_dim", problem, "leave it out; it follows latent_dim")


def _check_prior(model: VAE, objective: Objective) -> None:
    prior = type(model.latent_prior).__name__
    if isinstance(model.latent_prior, StandardPrior):
        return
    if model.latent_prior.encodes and model.conditional:
        problem = f"{prior} encodes pseudo-inputs, which have no labels, and {type(model).__name__} needs labels"
        raise ConfigError("prior", problem, "choose prior=mixture or flow, or a model without labels")
    if isinstance(model, ConditionalVAE) and model.prior is not None:
        problem = f"{prior} with model.prior=learned: these are two priors"
        raise ConfigError("prior", problem, "leave one of the two out: prior=standard, or model.prior=standard")
    if not objective.any_prior:
        problem = f"{type(objective).__name__} only knows the prior N(0, 1), and this is {prior}"
        raise ConfigError("prior", problem, "choose prior=standard, or a loss for any prior, as loss=elbo")


def _check_schedule(objective: Objective) -> None:
    kind = type(objective.beta)
    if not objective.any_schedule and kind.penalty is not BetaSchedule.penalty:
        problem = f"{kind.__name__} is a penalty on the KL, and {type(objective).__name__} takes a weight"
        raise ConfigError("beta", problem, "choose beta=constant, warmup or cyclical")


def _check_batches(objective: Objective, data: ImageData) -> None:
    """Refuse batches that are too small for an objective which compares the images of a batch."""
    needed = objective.smallest_batch
    for split in data.splits:
        size = min(data.batch_size, len(split))
        last = len(split) % size or size
        if last < needed:
            problem = f"{type(objective).__name__} compares images within a batch, and needs {needed} in each"
            where = f"the last batch of the {split.name} split has {last} with batches of {data.batch_size}"
            sizes = range(max(needed, data.batch_size), len(split) + needed + 1)
            fitting = next((size for size in sizes if _fits(size, data, needed)), len(split))
            raise ConfigError("data.batch_size", f"{problem}: {where}", f"give another size, as {fitting}")


def _fits(size: int, data: ImageData, needed: int) -> bool:
    return all((len(split) % size or size) >= needed for split in data.splits)
