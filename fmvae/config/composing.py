"""Compose configs with Hydra, and convert them to plain, checked values."""

from __future__ import annotations

import copy
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from os.path import relpath
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fmvae import weights
from fmvae.config.building import find_class
from fmvae.config.combinations import check_combination
from fmvae.config.grids import jobs_of
from fmvae.config.hydra_internals import check, problem, state_set_aside
from fmvae.config.known import check_known
from fmvae.config.own_code import allowing
from fmvae.config.presets import prefer_own_presets
from fmvae.config.project import CONF, PROJECT_ROOT, SWEEPS, is_visible_file, own_keys, program_of
from fmvae.config.resolvers import RESOLVERS
from fmvae.config.schema import validate, walk
from fmvae.config.shorthand import expand_shorthand, in_quotes
from fmvae.errors import ConfigError
from fmvae.evaluation.criteria import check_objectives

NAMING = ("model._name_", "beta.value", "latent_dim.value")  # the values in a run's name
NAME_LINE = "name its runs by a line `_name_: mine` in the model's file (or give +model._name_=mine)"
REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z_][\w.]*)\}")  # ${key}; leading dots make the key relative
ONE_AT_A_TIME = threading.RLock()
MOST_FILES = 2000  # files and folders in a folder of configs; a larger one is not searched for changes
RUN = re.compile(r".+-[0-9a-f]{8}(\.old-\d+)?")  # the name of a run's directory


def resolve(composed: DictConfig, runtime: Any = None) -> dict[str, Any]:
    """Return a composed config as plain, validated values with all interpolations resolved.

    Args:
        runtime: ``hydra.runtime`` of the composition, from which messages name the file of a wrong key.

    Raises:
        ConfigError: a value is wrong, or no part of the program reads a key.
    """
    composed = _completed(composed)
    written = _written(composed)
    for group, known in own_keys(program_of(written)).items():
        value = written.get(group, {})
        if isinstance(known, dict) and not isinstance(value, dict) and (value is not None or known):
            way_out = f"in a file, write under `defaults:` the line `- override /{group}: {value}`"
            raise ConfigError(group, f"{value!r} is not a group of keys", way_out)
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
            way_out = NAME_LINE if key == "model._name_" else f"give {key} a value"
            raise ConfigError(key, "no value given, but the run's name needs it", way_out)
    _check_latent_dim(config)
    if "objective" in config:
        check_objectives(config["objective"], config.get("evaluation", {}).get("measures", {}))
    sources: Any = OmegaConf.to_container(runtime) if isinstance(runtime, DictConfig) else runtime
    check_known(config, sources, _referenced(written))
    check_combination(config)
    return config


def _completed(composed: DictConfig) -> DictConfig:
    """Return a config in which keys of ``data`` have the values that follow from the files that it names.

    Only a class of data can say which (``ImageData.completed``). It is asked if a key for models is null.

    Raises:
        FmvaeError: the files are missing or cannot be used.
    """
    try:
        node: Any = OmegaConf.to_container(composed.data, resolve=True) if "data" in composed else None
    except OmegaConfBaseException:  # reported when all of the config is resolved
        return composed
    if not isinstance(node, dict) or all(node.get(key, 0) is not None for key in ("image_shape", "num_classes")):
        return composed
    try:
        kind = find_class(node.get("_target_"), "data")
    except ConfigError:  # reported by what checks the classes
        return composed
    stated = validate({"data": {key: value for key, value in node.items() if value is not None}})["data"]
    values = getattr(kind, "completed", lambda _: {})({**node, **stated})
    if not values:
        return composed
    filled = copy.deepcopy(composed)
    for key, value in values.items():
        if key in node:
            OmegaConf.update(filled, f"data.{key}", value)
    return filled


def _check_latent_dim(config: Mapping[str, Any]) -> None:
    """Refuse a ``model.latent_dim`` that differs from ``latent_dim.value``, which the run's name shows."""
    named, own = config.get("latent_dim", {}).get("value"), config.get("model", {}).get("latent_dim")
    if named is not None and own is not None and own != named:
        problem = f"{own}, but the run would be named by latent_dim.value, {named}"
        raise ConfigError("model.latent_dim", problem, f"give latent_dim={own} instead")


def _written(composed: DictConfig) -> dict[str, Any]:
    """Return every value by its path, with interpolations unresolved."""
    return dict(walk(OmegaConf.to_container(composed, resolve=False)))


def _references(path: str, value: Any) -> Iterator[str]:
    """Yield the path of each key that a value refers to, such as ``${trainer.epochs}``."""
    for dots, key in REFERENCE.findall(value) if isinstance(value, str) else ():
        parent = path.split(".")[: -len(dots)] if dots else []
        yield ".".join([*parent, key])


def _referenced(written: Mapping[str, Any]) -> set[str]:
    """Return the keys that other values refer to. These count as read, whatever their names."""
    return {key for path, value in written.items() for key in _references(path, value)}


def _to_blame(written: Mapping[str, Any], error: OmegaConfBaseException) -> Exception:
    """Return the error for a value that can't be resolved; it names the key where the value is written.

    Hydra's error may name another key, whose value refers to that one.
    """
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


def register_resolvers() -> None:
    """Register the project's own resolvers (``${fmvae.project:...}``) with OmegaConf. May be called repeatedly."""
    for name, function in RESOLVERS.items():
        OmegaConf.register_new_resolver(f"fmvae.{name}", function, replace=True)


# done on import: the workers of a sweep import this module, but never call cli.launch
register_resolvers()
if not problem():  # an unsupported Hydra is refused later, by hydra_internals.check
    prefer_own_presets()


def _compose(overrides: Sequence[str], config_name: str, folder: Path | None = None) -> DictConfig:
    check()
    register_resolvers()  # the calling program may have cleared them
    places = [f"file://{place}" for place in (folder, SWEEPS) if place]
    beside = [f"hydra.searchpath=[{','.join(map(in_quotes, places))}]"] if folder else []
    # Hydra's state is global to the process, so only one thread composes at a time
    with ONE_AT_A_TIME, state_set_aside(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [*beside, *expand_shorthand(overrides)]
        return hydra.compose(config_name, overrides=overrides, return_hydra_config=True)


def compose(
    overrides: Sequence[str] = (), config_name: str = "train", *, allow: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the config that a command line with these overrides gives. For notebooks and tests.

    The process may use Hydra for something else at the same time. This function imports torch, to read which
    arguments the classes in the config take.

    Args:
        overrides: as on the command line, shorthand such as ``beta=4`` included.
        allow: the user's own packages whose classes this config may use. Training the composed config needs
            ``own_code.allowing`` with the same packages around it.
    """
    composed = _compose(overrides, config_name)
    with open_dict(composed):
        own = composed.pop("hydra")
    with allowing(allow):
        return resolve(composed, own.runtime)


def keys_of(overrides: Sequence[str], config_name: str, folder: Path | None = None) -> list[str]:
    """Return the paths of all keys in the config that these overrides compose, without any check.

    Args:
        folder: a further folder of configs, as given by ``--config-dir``.
    """
    written = _written(_compose(overrides, config_name, folder))
    return [path for path in written if path and path.partition(".")[0] != "hydra"]


def sweep_jobs(name: str) -> list[list[str]]:
    """Return the overrides of each run of the sweep ``sweeps/sweep/<name>.yaml``, in the order of the runs."""
    definition: Any = OmegaConf.to_container(OmegaConf.load(SWEEPS / "sweep" / f"{name}.yaml"), resolve=False)
    own = definition["hydra"]["sweeper"]
    return [[f"sweep={name}", *job] for job in jobs_of(own.get("params"), own.get("grids"))]


def composed_by(*others: str, folders: Iterable[Path] = ()) -> str:
    """Return a digest (16 hex digits) of the config files, the code that reads them, and ``others``.

    As long as it is equal, a stored config need not be composed again. If a folder has too many files, as a home
    directory may, the digest is a new one at each call.

    Args:
        others: further texts on which the composed configs depend.
        folders: further folders of configs, as given by ``--config-dir``.
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
    """Return the config files below a folder, sorted; None if it holds more than ``MOST_FILES`` files and folders.

    Hidden files and folders are skipped, as are paths that are not plain files and the directories of runs
    (``--config-dir=.`` may contain these).
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
