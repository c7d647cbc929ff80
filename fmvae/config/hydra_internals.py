"""Every part of Hydra that it does not promise to keep: taken from here alone, and known of certain versions.

Two kinds of things are no public part of Hydra. Some are used as they are (its parser of overrides, the launcher
and the sweeper that ours extend, the state that composing leaves behind). ``PLACES`` are replaced: there Hydra
calls what a config names, and has no hook to be asked first (``fmvae.cli.gate``). With another version a
replacement could miss its place silently, so ``check`` ends whatever would compose: nothing is run by a Hydra that
is not known.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NoReturn

import hydra

from fmvae.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

# pyright: reportPossiblyUnboundVariable=false
_missing = ""
try:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
    from hydra.version import VersionBase
except ImportError as error:  # said by ``check``, where it can be said in one line
    _missing = str(error).partition(" (")[0]

__all__ = [
    "BasicLauncher",
    "BasicSweeper",
    "ConfigLoader",
    "ConfigStore",
    "HydraConfig",
    "JobReturn",
    "JobStatus",
    "OverridesParser",
    "Plugins",
    "Singleton",
    "configure_log",
    "setup_globals",
]

KNOWN = ((1, 3, 8), (1, 4))  # from the first, and below the second: as pyproject.toml asks for
CALLBACKS = "hydra._internal.callbacks.Callbacks.__init__"
LOGGING = "hydra._internal.logging_config.configure_logging"
TARGETS = "hydra._internal.instantiate._instantiate2._resolve_target"
PLACES = {CALLBACKS: ("self", "config"), LOGGING: ("config",), TARGETS: ("target", "full_key")}

# Hydra executes these modules anew when it looks for plugins: who has imported a class before holds another one
LATE = {
    "BasicLauncher": "hydra._internal.core_plugins.basic_launcher",
    "BasicSweeper": "hydra._internal.core_plugins.basic_sweeper",
}

_originals: dict[str, Callable[..., Any]] = {}


class _Missing(type):
    """In the place of what this Hydra lacks: it can be imported and inherited from, until ``check`` speaks."""


def __getattr__(name: str) -> Any:
    if module := LATE.get(name):
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            _refuse(f"{hydra.__version__} has no {module}.{name}")
    if _missing and name in __all__:
        return _Missing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check() -> None:
    """Refuse to go on with a Hydra whose inner parts are not the known ones.

    Raises:
        ConfigError: with the version to install.
    """
    if found := problem():
        _refuse(found)


def _refuse(problem: str) -> NoReturn:
    first, beyond = (".".join(map(str, version)) for version in KNOWN)
    raise ConfigError("hydra-core", problem, f"install hydra-core>={first},<{beyond}")


def problem() -> str:
    """What is unknown of the Hydra that is installed; empty if nothing is."""
    if not KNOWN[0] <= _numbers(hydra.__version__) < KNOWN[1]:
        return f"{hydra.__version__} is not a version whose inner parts are known"
    if _missing:
        return f"{hydra.__version__} lacks a part ({_missing})"
    for place, parameters in PLACES.items():
        try:
            function = _originals.get(place) or _now(place)
            found = tuple(inspect.signature(function).parameters)
        except (ImportError, AttributeError, KeyError, TypeError, ValueError):
            return f"{hydra.__version__} has no {place}"
        if found != parameters:
            return f"{place} of {hydra.__version__} takes {', '.join(found)} and not {', '.join(parameters)}"
    for state, name in ((GlobalHydra, "hydra"), (VersionBase, "version_base"), (JobRuntime, "conf")):
        if not hasattr(state.instance(), name):
            return f"{state.__name__} of {hydra.__version__} has no {name}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """``1.3.8.dev2`` as (1, 3, 8)."""
    parts = version.split(".")[:3]
    return tuple(int(part) for part in parts if part.isdecimal())


def _now(place: str) -> Callable[..., Any]:
    owner, _, name = place.rpartition(".")
    return vars(resolve_name(owner))[name]  # its own, not object's __init__


def replace(by: Mapping[str, Callable[..., Any]]) -> None:
    """Set functions in ``PLACES``.

    Raises:
        ConfigError: this Hydra is not known, and would perhaps never call them.
    """
    check()
    for place, function in by.items():
        _originals.setdefault(place, _now(place))
        owner, _, name = place.rpartition(".")
        setattr(resolve_name(owner), name, function)


def restore() -> None:
    """Hydra as it is, to see in tests what it would do."""
    for place, function in _originals.items():
        owner, _, name = place.rpartition(".")
        setattr(resolve_name(owner), name, function)


def original(place: str) -> Callable[..., Any]:
    """What Hydra has in a place itself."""
    return _originals.get(place) or _now(place)


@contextmanager
def state_set_aside() -> Iterator[None]:
    """Hydra's state of this process is empty inside, and is as it was afterwards.

    Hydra composes for one application at a time; whoever calls us may be another (``hydra.initialize``,
    ``@hydra.main``).
    """
    theirs, base, job = (
        GlobalHydra.instance().hydra,
        VersionBase.instance().version_base,
        JobRuntime.instance().conf,
    )
    GlobalHydra.instance().clear()
    JobRuntime.instance().conf = job.copy()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = theirs
        VersionBase.instance().version_base = base
        JobRuntime.instance().conf = job
