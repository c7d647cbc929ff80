"""Composing configs by Hydra, and bringing them to plain, checked values."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import product
from os.path import relpath
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fmvae import weights
from fmvae.common.text import expand_home
from fmvae.config.hydra_internals import OverridesParser, check, problem, state_set_aside
from fmvae.config.known import check_known
from fmvae.config.own_code import allowing
from fmvae.config.presets import prefer_own_presets
from fmvae.config.project import CONF, PROJECT_ROOT, SWEEPS, groups, is_visible_file, own_keys, program_of
from fmvae.config.schema import validate, walk
from fmvae.config.shorthand import expand_shorthand, in_quotes
from fmvae.errors import ConfigError
from fmvae.evaluation.columns import check_objective_name

NAMING = ("model._name_", "beta.value", "latent_dim.value")  # what a run's name begins with
NAME_LINE = "write a line `_name_: mine` into the model's file, what its runs are called (or +model._name_=mine)"
REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z_][\w.]*)\}")  # to another key; leading dots: from where it stands
ONE_AT_A_TIME = threading.RLock()
MOST_FILES = 2000  # files and folders of configs that are looked through for a change
RUN = re.compile(r".+-[0-9a-f]{8}(\.old-\d+)?")  # the name of a run's directory


def resolve(composed: DictConfig, runtime: Any = None) -> dict[str, Any]:
    """A composed config as plain, validated values, interpolations filled in, with no key that nothing reads.

    Args:
        runtime: ``hydra.runtime`` of the composition, to name the file of a wrong key.

    Raises:
        ConfigError: a value or a key is wrong.
    """
    written = _written(composed)
    for group, known in own_keys(program_of(written)).items():
        value = written.get(group, {})
        if isinstance(known, dict) and not isinstance(value, dict) and (value is not None or known):
            way_out = f"in a file, write under `defaults:` the line `- override /{group}: {value}`"
            raise ConfigError(group, f"{value!r} is no group of keys", way_out)
    try:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _to_blame(written, error) from error
    assert isinstance(config, dict)
    try:
        config = validate({str(key): value for key, value in config.items()})
    except ConfigError as error:
        if "${" in str(text := written.get(error.subject)):
            raise ConfigError(error.subject, f"{error.problem} (written as {text!r})", error.way_out) from None
        raise
    for key in NAMING:
        group, _, name = key.partition(".")
        if group in config and (not isinstance(config[group], dict) or config[group].get(name) is None):
            way_out = NAME_LINE if key == "model._name_" else f"give {key} one"
            raise ConfigError(key, "no value given, and runs are named by it", way_out)
    _check_latent_dim(config)
    if "objective" in config:
        check_objective_name(config["objective"], config.get("evaluation", {}).get("measures", {}))
    sources: Any = OmegaConf.to_container(runtime) if isinstance(runtime, DictConfig) else runtime
    check_known(config, sources, _referenced(written))
    return config


def _check_latent_dim(config: Mapping[str, Any]) -> None:
    """The latent dimensions that a run's name tells are those of its model."""
    named, own = config.get("latent_dim", {}).get("value"), config.get("model", {}).get("latent_dim")
    if named is not None and own is not None and own != named:
        problem = f"{own}, but the run would be named by latent_dim.value, {named}"
        raise ConfigError("model.latent_dim", problem, f"give latent_dim={own} in its place")


def _written(composed: DictConfig) -> dict[str, Any]:
    """Every value by its path, as it is written: unresolved."""
    return dict(walk(OmegaConf.to_container(composed, resolve=False)))


def _references(path: str, value: Any) -> Iterator[str]:
    """The paths of the keys that a value names, as ``${trainer.epochs}``."""
    for dots, key in REFERENCE.findall(value) if isinstance(value, str) else ():
        parent = path.split(".")[: -len(dots)] if dots else []
        yield ".".join([*parent, key])


def _referenced(written: Mapping[str, Any]) -> set[str]:
    """The keys that values of other keys name: these are read, whatever they are called."""
    return {key for path, value in written.items() for key in _references(path, value)}


def _to_blame(written: Mapping[str, Any], error: OmegaConfBaseException) -> Exception:
    """The error of a value that can't be resolved, with the key where it is written, not one that copies it."""
    key = error.full_key or ""
    seen: set[str] = set()
    while key not in seen and REFERENCE.fullmatch(str(written.get(key))):
        seen.add(key)
        (other,) = _references(key, written[key])
        key = other if other in written else key
    value = written.get(key)
    if not isinstance(value, str) or "${" not in value:
        return error
    problem = f"{value!r} can't be resolved ({str(error).strip().partition(chr(10))[0]})"
    return ConfigError(key, problem, "write the value itself")


def _join(*parts: str | None) -> str:
    return str(Path(*(expand_home(str(part)) for part in parts if part is not None)))


def _sha256(name: str | None) -> str | None:
    """SHA-256 of a file, or None if ``name`` is None. An unreadable file gives a placeholder; opening it fails."""
    if name is None:
        return None
    try:
        return sha256(weights.weights_file(name).read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError):  # ValueError: a name that no file can have; TypeError: not a text
        return f"unreadable: {name}"


def _options(group: str, *, _root_: Any) -> str:
    """The options of a group, those of the user's own folder, too."""
    folders = [Path(source.path) for source in _root_.hydra.runtime.config_sources if source.schema == "file"]
    return ", ".join(sorted(groups(*folders)[group]))


def register_resolvers() -> None:
    """Make the project's own interpolations known to OmegaConf; harmless when called again."""
    OmegaConf.register_new_resolver("fmvae.project", lambda name: str(PROJECT_ROOT / name), replace=True)
    OmegaConf.register_new_resolver("fmvae.join", _join, replace=True)
    OmegaConf.register_new_resolver("fmvae.sha256", _sha256, replace=True)
    OmegaConf.register_new_resolver("fmvae.options", _options, replace=True)


# when imported, since a sweep's workers import this, but never come by cli.launch
register_resolvers()
if not problem():  # or nothing is composed: see hydra_internals.check
    prefer_own_presets()


def _compose(overrides: Sequence[str], config_name: str, folder: Path | None = None) -> DictConfig:
    check()
    register_resolvers()  # a program that composes may have cleared them
    places = [f"file://{place}" for place in (folder, SWEEPS) if place]
    beside = [f"hydra.searchpath=[{','.join(map(in_quotes, places))}]"] if folder else []
    # threads share Hydra's state
    with ONE_AT_A_TIME, state_set_aside(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*beside, *expand_shorthand(overrides)]
        return hydra.compose(config_name, overrides=overrides, return_hydra_config=True)


def compose(
    overrides: Sequence[str] = (), config_name: str = "train", *, allow: Iterable[str] = ()
) -> dict[str, Any]:
    """The config that a command line with these overrides gives, for notebooks and tests; shorthand included.

    It may be called beside another use of Hydra in the same process. It imports torch, to see which arguments the
    classes that the config names take.

    Args:
        allow: packages of one's own, whose classes this config may name. To train what is composed, do it inside
            ``own_code.allowing``.
    """
    composed = _compose(overrides, config_name)
    with open_dict(composed):
        own = composed.pop("hydra")
    with allowing(allow):
        return resolve(composed, own.runtime)


def keys_of(overrides: Sequence[str], config_name: str, folder: Path | None = None) -> list[str]:
    """The paths of all keys that these overrides compose, unresolved and unchecked.

    Args:
        folder: of configs beside our own, as ``--config-dir`` names.
    """
    written = _written(_compose(overrides, config_name, folder))
    return [path for path in written if path and path.partition(".")[0] != "hydra"]


def sweep_jobs(name: str) -> list[list[str]]:
    """The overrides of each run of the sweep ``sweeps/sweep/<name>.yaml``, in the order in which it runs them."""
    definition = OmegaConf.load(SWEEPS / "sweep" / f"{name}.yaml")
    params = [f"{key}={values}" for key, values in definition.hydra.sweeper.params.items()]
    choices = []
    for override in OverridesParser.create().parse_overrides(params):
        single = not override.is_sweep_override()
        values = [override.get_value_element_as_str()] if single else override.sweep_string_iterator()
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [[f"sweep={name}", *job] for job in product(*choices)]


def composed_by(*others: str, folders: Iterable[Path] = ()) -> str:
    """What configs are composed from, as 16 hex digits: the files, the code that reads them, and ``others``.

    Of folders with too many files, as a home directory, it is another each time: whoever keeps what was composed
    then composes anew.

    Args:
        folders: of configs beside our own, as ``--config-dir`` names.
    """
    of_configs = dict.fromkeys([CONF, SWEEPS, *map(Path.resolve, folders)])
    content = sha256("\n".join(others).encode())
    files: list[Path] = []
    for folder in of_configs:
        found = config_files(folder)
        if found is None:
            content.update(uuid.uuid4().bytes)
        files += found or ()
    code = sorted(Path(__file__).parent.glob("*.py"))
    for path in (*files, *code, Path(weights.__file__)):
        content.update(f"\n{relpath(path, PROJECT_ROOT)}\n".encode(errors="surrogateescape") + path.read_bytes())
    return content.hexdigest()[:16]


def config_files(folder: Path) -> list[Path] | None:
    """The config files below a folder, sorted; None if more than ``MOST_FILES`` files and folders lie there.

    What is hidden, what is no plain file, and runs' directories, as ``--config-dir=.`` may hold, are left out.
    """
    found: list[Path] = []
    looked_at = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not RUN.fullmatch(name)]
        looked_at += len(folders) + len(names)
        if looked_at > MOST_FILES:
            return None
        paths = (Path(parent, name) for name in names if name.endswith(".yaml"))
        found += [path for path in paths if is_visible_file(path)]
    return sorted(found)
