"""The samplers by name, made from the config group ``evaluation``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fmvae.data import ImageData
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import SAMPLERS
from fmvae.evaluation.samplers.aggregate import AggregateSampler
from fmvae.evaluation.samplers.base import Sampler
from fmvae.evaluation.samplers.flow import FlowSampler
from fmvae.evaluation.samplers.gmm import GaussianMixtureSampler
from fmvae.evaluation.samplers.prior import PriorSampler
from fmvae.evaluation.samplers.two_stage import TwoStageSampler
from fmvae.models import VAE

_FITTED = (GaussianMixtureSampler, FlowSampler, TwoStageSampler, AggregateSampler)
_BY_NAME: dict[str, type[Sampler]] = {kind.name: kind for kind in _FITTED}
# in the order of SAMPLERS; a name without a class raises KeyError here
KINDS = {name: _BY_NAME[name] for name in SAMPLERS if name != PriorSampler.name}
# settings that came after fits and results had been stored without them, and the values that those have
NEWER: dict[str, dict[str, Any]] = {GaussianMixtureSampler.name: {"temperature": 1.0}}


def fit_settings(evaluation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a sampler in ``evaluation``, as results and figures store them.

    Settings in ``NEWER`` are left out at the values given there, so that earlier results stay current. A sampler
    without settings has {}.
    """
    newer = NEWER.get(name, {})
    settings = evaluation.get(name, {})
    return {key: value for key, value in settings.items() if key not in newer or value != newer[key]}


def make_sampler(name: str, settings: Mapping[str, Any], model: VAE, data: ImageData) -> Sampler:
    """Return a sampler that is not fitted yet.

    Args:
        settings: its group in ``evaluation``, as {"num_components": 10}; {} for ``prior`` and ``aggregate``.

    Raises:
        ConfigError: there is no such sampler.
    """
    if name == PriorSampler.name:
        return PriorSampler(model)
    if name not in KINDS:
        problem = f"there is no sampler {name!r}"
        raise ConfigError("evaluation.samplers", problem, f"choose from {', '.join(SAMPLERS)}")
    return KINDS[name](data.num_classes if model.conditional else 0, **settings)


def check_samplers(evaluation: Mapping[str, Any], model: VAE, data: ImageData) -> None:
    """Check before training that the samplers in ``evaluation.samplers`` are known and fit the data.

    Raises:
        ConfigError: one is unknown, does not fit, or needs a library that is missing.
    """
    labels = data.train.labels
    num_train = len(labels)
    if model.conditional:
        counts = torch.bincount(labels)
        num_train = int(counts[counts > 0].min())
    for name in evaluation.get("samplers", ()):
        make_sampler(name, fit_settings(evaluation, name), model, data).check(num_train)
