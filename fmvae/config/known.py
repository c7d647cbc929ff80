"""Refuse config keys that nothing reads. Such a key would change a run's name without changing the run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fmvae.config.building import ANNOTATIONS, allowed_targets, find_class
from fmvae.config.identity import NAMED
from fmvae.config.own_code import KEY, refuse_in_files
from fmvae.config.project import SWEEPS, own_keys, program_of
from fmvae.config.schema import walk
from fmvae.errors import ConfigError

# groups whose keys are the arguments of a constructor, and the base classes that the constructor may be of; the
# known keys of such a group are read from the constructor's signature
KINDS = {
    "model": ("fmvae.models.VAE", "fmvae.models.FashionResNet18"),
    "beta": ("fmvae.objectives.BetaSchedule",),
    "likelihood": ("fmvae.objectives.Likelihood",),
    "loss": ("fmvae.objectives.Objective",),
    "prior": ("fmvae.models.Prior",),
    "data": ("fmvae.data.ImageData",),
    "optimizer": ("torch.optim.Optimizer",),
    "scheduler": ("torch.optim.lr_scheduler.LRScheduler",),
    "tracker": ("fmvae.trackers.Tracker",),
}
# constructor arguments that the program passes itself; a config cannot set them
GIVEN = {
    "data": ("device",),
    "loss": ("likelihood", "beta"),
    "optimizer": ("params",),
    "scheduler": ("optimizer",),
}
OWN_MEASURES = "evaluation.measures"  # its keys are names that the user chooses
PACKAGE_LINE = "# @package _global_"


def check_known(
    config: Mapping[str, Any],
    runtime: Mapping[str, Any] | None = None,
    referenced: Collection[str] = (),
) -> None:
    """Refuse a config that has a key which no constructor, rule or group of the program knows.

    Args:
        config: the resolved config.
        runtime: ``hydra.runtime`` of the composition, which lists the files that the config comes from.
        referenced: paths of keys that other values refer to (``${...}``); these count as read.

    Raises:
        ConfigError: a key is unknown, or a class is not allowed. The message names the key, its file if that can
            be determined, and the most similar known key.
    """
    refuse_in_files(config, _file_of(KEY, runtime or {}) if KEY in config else None)
    for path, beside in unknown_keys(config):
        if any(key == path or key.startswith(f"{path}.") for key in referenced):
            continue
        file = _file_of(path, runtime or {})
        is_mapping = isinstance(config.get(path), Mapping)
        if is_mapping and file and (path == package_of(file) or path in _chosen_groups(runtime or {})):
            problem = f"its keys are put under {path!r}, where nothing reads them"
            way_out = f"make '{PACKAGE_LINE}' its very first line: no comment, '---' or byte-order mark before it"
            raise ConfigError(file, problem, way_out)
        if path in config and "." in path:  # one key whose name contains a dot
            parent, _, leaf = path.rpartition(".")
            raise ConfigError(path, "a key with a dot in it", f"write it as `{parent}: {{{leaf}: ...}}` in a file")
        close = _nearest(path, [name for name in beside if name != path.rpartition(".")[2]], config)
        where = f" (in {file})" if file else ""
        rest = "" if close and _group(close) == _group(path) else f" ({_rest(path, beside)})"
        way_out = (f"did you mean {close}?" if close else "leave it out") + rest
        raise ConfigError(path, f"there is no such key{where}", way_out)


def unknown_keys(config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each key that nothing reads, with the known keys of the same group.

    Constructors are checked last: reading their signatures imports torch, which takes seconds.
    """
    known = own_keys(program_of(config))
    for name, value in config.items():
        if name not in known:
            yield name, list(known)
        elif name not in KINDS:
            yield from _unlisted(name, value, known[name])
    for name in KINDS:
        yield from _unknown_arguments(name, config.get(name))


def _unlisted(path: str, value: Any, known: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys that our own file of a group lacks; that file has every key that the program reads."""
    if isinstance(value, Mapping) and isinstance(known, Mapping):
        for key, child in value.items():
            if f"{path}.{key}" == OWN_MEASURES:
                for name, node in child.items() if isinstance(child, Mapping) else ():
                    if isinstance(node, Mapping) and "_target_" in node:  # building it reports any other mistake
                        yield from _unknown_arguments(f"{OWN_MEASURES}.{name}", node)
            elif key in known:
                yield from _unlisted(f"{path}.{key}", child, known[key])
            else:
                yield f"{path}.{key}", list(known)


def _unknown_arguments(path: str, node: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys that a node's constructor does not take. ``build`` checks the class itself later."""
    if not isinstance(node, Mapping):
        return
    if "_target_" not in node:
        yield from ((f"{path}.{key}", []) for key in node)
        return
    target = node["_target_"]
    if isinstance(target, str) and not target.startswith(allowed_targets()):
        find_class(target, path)  # refuses the class now, before a sweep starts, and not in each of its runs
    try:
        found = find_class(target)
        parameters = inspect.signature(found).parameters
    except (ConfigError, ValueError, TypeError):  # some classes have no readable signature
        return
    if path in KINDS and not _is_kind(path, found):
        return  # the class is wrong, not its keys; ``build`` refuses it
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    known = [name for name in parameters if name not in GIVEN.get(path, ()) and name != "self"]
    for key, value in node.items():
        annotation = key == "_target_" or (key == "_name_" and path in NAMED)
        if not annotation and (key in ANNOTATIONS or key not in known) and not (takes_any and key[:1] != "_"):
            yield f"{path}.{key}", known
        elif isinstance(value, Mapping) and "_target_" in value:
            yield from _unknown_arguments(f"{path}.{key}", value)


def takes(node: Mapping[str, Any], key: str) -> bool:
    """Return whether the constructor of a node's class takes an argument with this name."""
    if key in node:
        return True
    try:
        return key in inspect.signature(find_class(node.get("_target_"))).parameters
    except (ConfigError, ValueError, TypeError):  # ``build`` reports what is wrong with the class
        return False


def _is_kind(group: str, found: type) -> bool:
    return issubclass(found, tuple(find_class(name) for name in KINDS[group]))


def _nearest(path: str, beside: list[str], config: Mapping[str, Any]) -> str:
    """Return the key that was probably meant, in the same group or in another one; empty if none is similar."""
    parent, _, leaf = path.rpartition(".")
    if close := difflib.get_close_matches(leaf, beside, 1):
        return f"{parent}.{close[0]}".lstrip(".")
    program = own_keys(program_of(config))
    elsewhere = {name.rpartition(".")[2]: name for name, _ in walk(program) if "_" not in name[:1]}
    close = [elsewhere[name] for name in difflib.get_close_matches(leaf, list(elsewhere), 2, cutoff=0.8)]
    return next((name for name in close if name != path), "")


def _group(path: str) -> str:
    return path.rpartition(".")[0]


def _rest(path: str, beside: list[str]) -> str:
    """Return a text that lists the known keys of an unknown key's group."""
    group = _group(path)
    names = ", ".join(name for name in beside if not name.startswith("_"))
    if not names and group.startswith(OWN_MEASURES):
        return f"the class that {group} names takes no arguments"
    if not names:
        return f"{group} is empty; choose {group}=<option>"
    return f"{group or 'a config'} holds {names}"


# --- the file of a key ----------------------------------------------------------------------------------------


def _file_of(path: str, runtime: Mapping[str, Any]) -> Path | None:
    """Return the chosen option's file that sets a key; None if the command line sets it, or no file is found."""
    for group, file in chosen_files(runtime):
        tree = _read(file)
        dotted = group.replace("/", ".")
        if path == dotted.partition(".")[0]:
            return file
        relative = path.removeprefix(f"{dotted}.")
        if _holds(tree, path) or (relative != path and _holds(tree, relative)):
            return file
        if (package := package_of(file)) and (path == package or _holds(tree, path.removeprefix(f"{package}."))):
            return file
    return None


def _chosen_groups(runtime: Mapping[str, Any]) -> set[str]:
    """Return the first part of each chosen group's name: the key that holds a file's keys by default."""
    return {group.partition("/")[0] for group, _ in chosen_files(runtime)}


def chosen_files(runtime: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Yield the group and the file of each option that a composition chose."""
    folders = [Path(source["path"]) for source in runtime.get("config_sources", ()) if source["schema"] == "file"]
    for group, option in dict(runtime.get("choices", {})).items():
        if isinstance(option, str) and not group.startswith("hydra/"):
            for folder in dict.fromkeys([*folders, SWEEPS]):
                if (file := folder / group / f"{option}.yaml").is_file():
                    yield group, file
                    break


def package_of(file: Path) -> str:
    """Return the package in a file's ``@package`` line; empty without such a line, or if it says ``_global_``."""
    try:
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            words = line.replace("#", " ").split()
            if words[:1] == ["@package"] and len(words) > 1:
                return words[1].removeprefix("_global_")
    except (OSError, ValueError):
        pass
    return ""


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _holds(tree: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True
