"""Build objects from a config. Only classes of a few allowed packages can be instantiated."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException

from fmvae.config.own_code import KEY, granted, may_be_own
from fmvae.config.schema import walk
from fmvae.errors import ConfigError, FmvaeError, of_the_machine

T = TypeVar("T")

ALLOWED_TARGETS = ("fmvae.", "torch.nn.", "torch.optim.", "torchvision.transforms.")
ANNOTATIONS = ("_target_", "_name_")  # _name_ is not passed to the constructor


def build(node: Mapping[str, Any], key: str, kind: type[T], **arguments: Any) -> T:
    """Instantiate ``node`` as a ``kind``. All objects that a config describes are built by this function.

    The class, and those of nested nodes, must be defined under ``fmvae``, ``torch.nn``, ``torch.optim`` or
    ``torchvision.transforms``, or in a package given to ``own_code.allowing``. A config from somebody else can
    therefore run no other code.

    Args:
        node: ``_target_`` and the constructor's arguments.
        key: the node's path in the config, for messages.
        kind: the class that the target must be or inherit from.
        arguments: further constructor arguments, which a config cannot hold.

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


def allowed_targets() -> tuple[str, ...]:
    """Return the prefixes of the class names that a config may use here, those of the user's own packages too."""
    return (*ALLOWED_TARGETS, *(f"{name}." for name in granted()))


def find_class(target: Any, path: str = "") -> type:
    """Return the class that a ``_target_`` names.

    Args:
        target: the dotted name of the class.
        path: of the node in the config, for messages.

    Raises:
        ConfigError: there is no such class, or a config may not use it.
    """
    allowed, of_own_code = allowed_targets(), may_be_own(target)
    way_out = f"name a class under {', '.join(allowed)}"
    if not isinstance(target, str) or not target.startswith(allowed):
        if of_own_code:
            own = f"{KEY}={target.partition('.')[0]}"
            way_out = f"give {own} on the command line if it is code that you trust, or {way_out}"
        raise ConfigError(f"{path}._target_", f"{target!r} is not allowed", way_out)
    of_hydra = logging.getLogger("hydra.utils")  # it also logs each error that it raises
    quiet, of_hydra.disabled = of_hydra.disabled, True
    try:
        found = hydra.utils.get_object(target)
    except (Exception, SystemExit) as error:  # importing the user's own code can raise anything
        why = _cause(error) if of_own_code else type(error).__name__
        raise ConfigError(f"{path}._target_", f"there is no {target!r} ({why})", way_out) from None
    finally:
        of_hydra.disabled = quiet
    # check where the class is defined, too: fmvae.config.composing.OmegaConf would otherwise be allowed
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ConfigError(f"{path}._target_", f"{target!r} is not a class that is defined there", way_out)
    return found


def _cause(error: BaseException) -> str:
    """Return the first error in a chain of causes as text, with the file and line where it was raised."""
    while error.__cause__:  # not the context: Hydra was looking for an attribute when it imported the module
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    of_imports = ("importlib", f"{Path(hydra.__file__).parent}")
    place = next(
        (
            f" in {f.filename}, line {f.lineno}"
            for f in reversed(frames)
            if not any(part in f.filename for part in of_imports)
        ),
        "",
    )
    return f"{type(error).__name__}: {error}{place}"


def _check_target(path: str, node: Mapping[str, Any], kind: type) -> None:
    for name in node:
        if str(name).startswith("_") and name not in ANNOTATIONS:
            raise ConfigError(f"{path}.{name}", "not a supported annotation", "remove it")
    if "_target_" not in node and kind is object:
        return  # a mapping passed as a plain argument
    target = node.get("_target_")
    found = find_class(target, path)
    if not issubclass(found, kind):
        raise ConfigError(
            f"{path}._target_", f"{target!r} does not inherit from {kind.__name__}", "name a class that does"
        )
