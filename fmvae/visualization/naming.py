"""A run's model in words, for titles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fmvae.config.identity import NAMED


def describe_model(config: Mapping[str, Any]) -> str:
    """Return a run's model for titles: the names in its config, z and beta, as ``conv, tc, z = 32, β = 6``.

    A likelihood other than Bernoulli follows, as ``learned Gaussian``, and ``data.binarize``, as ``statically
    binarised``.
    """
    schedule = _class_of(config["beta"])
    scheduled = f" ({schedule.lower()})" if schedule not in ("", "Constant") else ""
    beta = f"β = {config['beta']['value']:g}{scheduled}"
    names = [config[group]["_name_"] for group in NAMED if "_name_" in config.get(group, {})]
    likelihood = _class_of(config.get("likelihood", {}))
    others = [] if likelihood in ("", "Bernoulli") else [_in_words(likelihood)]
    if binarize := config.get("data", {}).get("binarize"):
        others.append(f"{binarize}ally binarised")
    return ", ".join([*names, f"z = {config['latent_dim']['value']}", beta, *others])


def _class_of(group: Mapping[str, Any]) -> str:
    return group.get("_target_", "").rsplit(".", 1)[-1]


def _in_words(class_name: str) -> str:
    """Return for example ``learned Gaussian``: the last word is a name."""
    *first, last = re.findall(r"[A-Z]*[^A-Z]*", class_name)[:-1] or [class_name]
    return " ".join([*(word.lower() for word in first), last])
