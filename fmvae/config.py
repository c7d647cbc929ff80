"""What a config may say: number shorthand, types and ranges, what names a run, and how it becomes objects."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import product
from os.path import relpath
from pathlib import Path
from typing import Any, TypeVar

import hydra.utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from fmvae import rules, weights
from fmvae.errors import ConfigError, FmvaeError, of_the_machine
from fmvae.presets import prefer_own_presets
from fmvae.rules import RULES, is_tree, validate, walk

T = TypeVar("T")

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# --- number shorthand: beta=0.5,1,4 for beta.value=0.5,1,4 --------------------------------------------------

NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|nan)"
ITEM = rf"\s*(?:(?:start|stop|step)=)?{NUMBER}\s*"
SHORTHAND = re.compile(
    rf"(beta|latent_dim)=({NUMBER}(?:\s*,\s*{NUMBER})*|(?:range|choice|interval)\({ITEM}(?:,{ITEM})*\))",
    re.IGNORECASE,
)


def expand_shorthand(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with all-number values of ``beta`` and ``latent_dim`` given to their ``value``.

    Hydra takes a number for the name of a group's option and refuses it.
    """
    return [SHORTHAND.sub(r"\1.value=\2", a) if SHORTHAND.fullmatch(a) else a for a in arguments]


# --- reading --------------------------------------------------------------------------------------------------


CLOSED = ("latent_dim", "trainer", "figures", "evaluation")  # read here, by no constructor that refuses a key
NAMING = ("model._name_", "beta.value", "latent_dim.value")  # what a run's name begins with


def resolve(composed: DictConfig) -> dict[str, Any]:
    """A composed config as plain, validated values, interpolations filled in."""
    config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    config = validate({str(key): value for key, value in config.items()})
    for key in NAMING:
        group, _, name = key.partition(".")
        if group in config and (not isinstance(config[group], dict) or config[group].get(name) is None):
            raise ConfigError(key, "no value given, and runs are named by it", f"give {key} one")
    for path, value in walk({group: config[group] for group in CLOSED if group in config}):
        if isinstance(value, dict):
            _check_keys(path, value)
    return config


def _check_keys(path: str, group: Mapping[str, Any]) -> None:
    """A key that nothing reads, as a misspelt one of an experiment's file, would name a run all the same."""
    for key in (f"{path}.{name}".lstrip(".") for name in group):
        if key not in RULES and key not in CLOSED:
            close = difflib.get_close_matches(key, RULES, 1)
            raise ConfigError(
                key, "there is no such key", f"did you mean {close[0]}?" if close else "leave it out"
            )


def is_vae(config: Mapping[str, Any]) -> bool:
    """Whether a config, whole or its semantic part, is a VAE's; the classifier's has no beta."""
    return "beta" in config


class NotAVAE(ConfigError):
    """The run is a classifier's, which has no latents to measure."""


ASKED_ANEW = ("evaluation", "figures")  # by whoever measures a run: its own keys may be of an earlier version


def read_config(path: Path) -> dict[str, Any]:
    """A config stored in a run directory, as data: plain YAML, no tags, no interpolations; without ``ASKED_ANEW``.

    Raises:
        ConfigError: it is missing or not a config of ours.
    """
    import yaml

    way_out = "run the training command again, it rewrites the file"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast, where PyYAML was built with it
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except FileNotFoundError:
        raise ConfigError(path, "there is no such file", "name a run's directory") from None
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(path, f"not readable as YAML ({type(error).__name__})", way_out) from None
    if not is_tree(config):
        raise ConfigError(path, "not the config of a run (it has YAML aliases)", way_out)
    if isinstance(config, dict) and "trainer" in config and not {"beta", "latent_dim"} & config.keys():
        raise NotAVAE(
            path,
            "the config of a classifier's run",
            "name a VAE's; the classifier's results.json has its accuracy",
        )
    groups = ("model", "beta", "latent_dim", "data")
    if not isinstance(config, dict) or not all(isinstance(config.get(group), dict) for group in groups):
        raise ConfigError(path, "not the config of a run", way_out)
    try:
        return validate({key: value for key, value in config.items() if key not in ASKED_ANEW})
    except ConfigError as error:
        raise ConfigError(path, f"{error.subject}: {error.problem}", way_out) from None


def to_yaml(config: Mapping[str, Any]) -> str:
    """A resolved config as YAML, keys in their order."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


# --- identity -----------------------------------------------------------------------------------------------

NAMED_BY_CONTENT = ("trainer.start",)  # a file; the key beside it, trainer.start_sha256, says what it holds
NON_SEMANTIC = (
    "device",
    "threads",
    "restart",
    "dry_run",
    "output_root",
    "sweep_name",
    "objective",
    "figures",
    "evaluation",
    "data.root",
    "data.download",
    "trainer.checkpoint_every",
    *NAMED_BY_CONTENT,
    "trainer.progress",
)


# of a VAE: keys that are newer than runs which are named without them, and what is meant there
NEWER = {"trainer.precision": "fp32"}


def semantic(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that can change a trained bit, keys sorted; whatever is not listed above counts."""
    newer = NEWER if is_vae(config) else {}

    def part(group: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in sorted(group.items()):
            path = f"{prefix}{key}"
            if path not in NON_SEMANTIC and not (path in newer and value == newer[path]):
                kept[key] = part(value, f"{path}.") if isinstance(value, Mapping) else value
        return kept

    return part(config, "")


def whole(semantic_part: Mapping[str, Any]) -> dict[str, Any]:
    """A semantic part with the keys that are left out of names, for people who compare configs."""
    filled = {group: dict(v) if isinstance(v, Mapping) else v for group, v in semantic_part.items()}
    for path, value in NEWER.items() if is_vae(filled) else ():
        group, _, key = path.partition(".")
        filled.setdefault(group, {}).setdefault(key, value)
    return filled


# --- objects ------------------------------------------------------------------------------------------------

ALLOWED_TARGETS = ("fmvae.", "torch.nn.", "torch.optim.", "torchvision.transforms.")
ANNOTATIONS = ("_target_", "_name_")  # _name_ is for people and paths; no constructor sees it


def build(node: Mapping[str, Any], key: str, kind: type[T], **arguments: Any) -> T:
    """The only way from a config to an object: instantiate ``node`` as a ``kind``.

    Only classes that live under ``fmvae``, ``torch.nn``, ``torch.optim`` or ``torchvision.transforms`` are
    instantiated, also for nested nodes, so that a config someone sends you is data and runs nothing else.

    Args:
        node: ``_target_`` and the constructor's arguments.
        key: where the node stands in the config, for messages.
        kind: the class that the target must be or inherit from.
        arguments: further arguments that no config can hold.

    Raises:
        ConfigError: the target is not allowed or not a ``kind``, or its constructor refuses the arguments.
    """
    for path, value in walk(node, key):
        if isinstance(value, Mapping):
            _check_target(path, value, kind if value is node else object)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            raise ConfigError(path, f"unresolved text {value!r}", "write the value itself")
    plain = {name: value for name, value in node.items() if name != "_name_"}
    try:
        return hydra.utils.instantiate(plain, **arguments, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, FmvaeError | OSError):
            raise cause from None
        if failed := of_the_machine(cause):
            raise failed from None
        problem = str(cause).partition("\n")[0] or type(cause).__name__
        raise ConfigError(key, problem, "see the class's documentation for what it takes") from error


def _check_target(path: str, node: Mapping[str, Any], kind: type) -> None:
    for name in node:
        if str(name).startswith("_") and name not in ANNOTATIONS:
            raise ConfigError(f"{path}.{name}", "not an annotation that is understood here", "remove it")
    if "_target_" not in node and kind is object:
        return  # a mapping that is a plain argument
    target = node.get("_target_")
    way_out = f"name a class under {', '.join(ALLOWED_TARGETS)}"
    if not isinstance(target, str) or not target.startswith(ALLOWED_TARGETS):
        raise ConfigError(f"{path}._target_", f"{target!r} is not allowed", way_out)
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:
        raise ConfigError(
            f"{path}._target_", f"there is no {target!r} ({type(error).__name__})", way_out
        ) from None
    # where it is defined, not how it is reached: fmvae.config.yaml.Loader would otherwise pass
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(ALLOWED_TARGETS):
        raise ConfigError(f"{path}._target_", f"{target!r} is not a class that is defined there", way_out)
    if not issubclass(found, kind):
        raise ConfigError(f"{path}._target_", f"{target!r} is no {kind.__name__}", "name one that is")


# --- composing ----------------------------------------------------------------------------------------------


def _join(*parts: str | None) -> str:
    return str(Path(*(str(part) for part in parts if part is not None)))


def _sha256(name: str | None) -> str | None:
    """Of a file's content, None for no file; one that cannot be read has a name too, and who opens it says why."""
    if name is None:
        return None
    try:
        return sha256(weights.weights_file(name).read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError):  # ValueError: a name that no file can have; TypeError: not a text
        return f"unreadable: {name}"


def register_resolvers() -> None:
    """Make the project's own interpolations known to OmegaConf; harmless when called again."""
    OmegaConf.register_new_resolver("fmvae.project", lambda name: str(PROJECT_ROOT / name), replace=True)
    OmegaConf.register_new_resolver("fmvae.join", _join, replace=True)
    OmegaConf.register_new_resolver("fmvae.sha256", _sha256, replace=True)


# when imported, since a sweep's workers import this, but never come by cli.launch
register_resolvers()
prefer_own_presets()


def compose(overrides: Sequence[str] = (), config_name: str = "train") -> dict[str, Any]:
    """The config that a command line with these overrides gives, for notebooks and tests; shorthand included."""
    register_resolvers()  # a program that composes may have cleared them
    with hydra.initialize_config_dir(str(PROJECT_ROOT / "conf"), version_base="1.3"):
        return resolve(hydra.compose(config_name, overrides=expand_shorthand(overrides)))


def sweep_jobs(name: str) -> list[list[str]]:
    """The overrides of each run of the sweep ``sweeps/sweep/<name>.yaml``, in the order in which it runs them."""
    definition = OmegaConf.load(PROJECT_ROOT / "sweeps" / "sweep" / f"{name}.yaml")
    params = [f"{key}={values}" for key, values in definition.hydra.sweeper.params.items()]
    choices = []
    for override in OverridesParser.create().parse_overrides(params):
        single = not override.is_sweep_override()
        values = [override.get_value_element_as_str()] if single else override.sweep_string_iterator()
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [[f"sweep={name}", *job] for job in product(*choices)]


def composed_by(*others: str, folders: Iterable[Path] = ()) -> str:
    """What configs are composed from, as 16 hex digits: the files, the code that reads them, and ``others``.

    Args:
        folders: of configs beside our own, as ``--config-dir`` names.
    """
    of_configs = dict.fromkeys([PROJECT_ROOT / "conf", PROJECT_ROOT / "sweeps", *map(Path.resolve, folders)])
    files = [path for folder in of_configs for path in sorted(folder.rglob("*.yaml"))]
    content = sha256("\n".join(others).encode())
    for path in (*files, Path(__file__), Path(rules.__file__), Path(weights.__file__)):
        content.update(f"\n{relpath(path, PROJECT_ROOT)}\n".encode() + path.read_bytes())
    return content.hexdigest()[:16]
