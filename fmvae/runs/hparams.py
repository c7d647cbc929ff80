"""The settings that TensorBoard's HParams page shows for a run: every key of its identity, flat."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from fmvae.common.digests import digest
from fmvae.config.identity import NON_SEMANTIC, settings_of
from fmvae.config.project import CONF, is_visible_file, load
from fmvae.config.schema import RULES

Shown = bool | float | str
GROUPS = ("model", "beta", "likelihood", "loss", "prior", "data", "trainer", "optimizer", "scheduler")
# keys whose values stand under a shorter name, which is also the group's on the command line
SHORT = {
    "model._name_": "model",
    "beta.value": "beta",
    "beta._target_": "beta_schedule",
    "latent_dim.value": "latent_dim",
    "seed": "seed",
    "likelihood._target_": "likelihood",
    "loss._name_": "loss",
    "prior._name_": "prior",
    "trainer.epochs": "epochs",
    "data.batch_size": "batch_size",
    "optimizer._target_": "optimizer",
    "optimizer.lr": "lr",
}
REPEATED = ("model.latent_dim", "loss.latent_dim", "prior.latent_dim")  # they follow latent_dim.value
HASHES = "data.sha256"  # by names of files, which no option knows: one column, whatever the files are
CLASS = "_target_"


def class_of(node: Mapping[str, Any]) -> str:
    """Return the name of the class that a node of the config names, without its module."""
    return str(node[CLASS]).rpartition(".")[2]


def hparams(config: Mapping[str, Any], batch_size: int) -> dict[str, Shown]:
    """Return all settings that can change a trained bit, by short name or else by key.

    Keys that may be null always have a text, as TensorBoard wants one type for all runs.
    """
    found: dict[str, Shown] = {
        "model": config["model"]["_name_"],
        "beta": config["beta"]["value"],
        "beta_schedule": class_of(config["beta"]).lower(),
        "latent_dim": config["latent_dim"]["value"],
        "seed": config["seed"],
        "likelihood": class_of(config["likelihood"]),
        "loss": config["loss"].get("_name_", class_of(config["loss"])),
        "prior": config["prior"].get("_name_", class_of(config["prior"])),
        "epochs": config["trainer"]["epochs"],
        "batch_size": batch_size,
        "optimizer": class_of(config["optimizer"]),
        "lr": config["optimizer"]["lr"],
    }
    return found | {key: value for key, value in flat(settings_of(config)).items() if key not in SHORT}


def flat(tree: Mapping[str, Any]) -> dict[str, Shown]:
    """Return the leaves of a config by key, as TensorBoard takes them: truth values, numbers and texts.

    The hashes of several files are one text, the SHA-256 of the hashes.
    """

    def leaves(node: Any, path: str) -> Iterator[tuple[str, Shown]]:
        if path == HASHES and isinstance(node, Mapping):
            yield path, digest(node)
        elif isinstance(node, Mapping) and node:
            for key, value in node.items():
                yield from leaves(value, f"{path}.{key}".lstrip("."))
        elif path not in REPEATED:
            yield path, _plain(path, node)

    return dict(leaves(tree, ""))


def _plain(key: str, value: Any) -> Shown:
    if value is None:
        return "null"
    text = key in RULES and RULES[key].optional
    if isinstance(value, bool | int | float) and not text:
        return value
    return value if isinstance(value, str) else json.dumps(value)


@cache
def others() -> dict[str, Shown]:
    """Return all keys that runs with other options of the project have, with a value of the right type.

    TensorBoard takes its columns from the first run that it finds, which need not have the keys of the others.
    """
    found: dict[str, Shown] = {}
    for group in GROUPS:
        for path in filter(is_visible_file, sorted((CONF / group).glob("*.yaml"))):
            try:
                tree = load(path)
            except (OSError, ValueError, yaml.YAMLError):  # of another option than this run's
                continue
            for key, value in flat({group: tree}).items():
                if key not in (*SHORT, *NON_SEMANTIC) and not key.startswith(f"{group}.defaults"):
                    found.setdefault(key, _typed(key, value))
    return found


def _typed(key: str, value: Shown) -> Shown:
    """Return a value of the type that a key has; one that refers to another key says nothing of its own."""
    rule = RULES.get(key)
    if isinstance(value, str) and "${" in value and rule and rule.type in (int, float) and not rule.optional:
        return 0.0
    return value


def first(overrides: Sequence[str], known: Mapping[str, Shown]) -> list[str]:
    """Return the names in ``known`` that a command line sets: in a sweep, those by which its runs differ."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    names = [SHORT.get(key, f"{key}.{CLASS}" if key in GROUPS and key not in known else key) for key in keys]
    return [name for name in dict.fromkeys(names) if name in known]
