"""All uses of Hydra's private parts. They are checked against the Hydra versions that are known to have them.

Some private parts are used unchanged: the parser of overrides, the launcher and the sweeper that ours extend, and
the global state that composing leaves behind. The functions in ``PLACES`` are replaced: in them Hydra calls what a
config names, and it offers no public hook to check the name first (see ``fmvae.cli.gate``). With another version
of Hydra a replacement could have no effect, without any error. ``check`` therefore refuses to compose with a
version that is not known.
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
    from hydra.core.override_parser.types import Transformer
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
    from hydra.version import VersionBase
except ImportError as error:  # ``check`` reports it, as an error of one line
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
    "Transformer",
    "configure_log",
    "setup_globals",
]

KNOWN = ((1, 3, 8), (1, 4))  # supported: from the first, and below the second; the same as in pyproject.toml
CALLBACKS = "hydra._internal.callbacks.Callbacks.__init__"
LOGGING = "hydra._internal.logging_config.configure_logging"
TARGETS = "hydra._internal.instantiate._instantiate2._resolve_target"
PLACES = {CALLBACKS: ("self", "config"), LOGGING: ("config",), TARGETS: ("target", "full_key")}

# imported on use: Hydra executes these modules again when it looks for plugins, which defines new classes
LATE = {
    "BasicLauncher": "hydra._internal.core_plugins.basic_launcher",
    "BasicSweeper": "hydra._internal.core_plugins.basic_sweeper",
}

_originals: dict[str, Callable[..., Any]] = {}


class _Missing(type):
    """Stand for a name that this Hydra lacks, so that imports and subclasses work until ``check`` refuses."""


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
    """Refuse a version of Hydra whose private parts are not known.

    Raises:
        ConfigError: the installed Hydra is not supported; the message says which version to install.
    """
    if found := problem():
        _refuse(found)


def _refuse(problem: str) -> NoReturn:
    first, beyond = (".".join(map(str, version)) for version in KNOWN)
    raise ConfigError("hydra-core", problem, f"install hydra-core>={first},<{beyond}")


def problem() -> str:
    """Return why the installed Hydra is not supported, as text; empty if it is supported."""
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
    """Return a version as numbers: (1, 3, 8) for ``1.3.8.dev2``."""
    parts = version.split(".")[:3]
    return tuple(int(part) for part in parts if part.isdecimal())


def _now(place: str) -> Callable[..., Any]:
    owner, _, name = place.rpartition(".")
    return vars(resolve_name(owner))[name]  # only an attribute of its own: getattr would also find object.__init__


def replace(by: Mapping[str, Callable[..., Any]]) -> None:
    """Replace functions of Hydra.

    Args:
        by: the new function for each place in ``PLACES``.

    Raises:
        ConfigError: this version of Hydra is not known, and might never call them.
    """
    check()
    for place, function in by.items():
        _originals.setdefault(place, _now(place))
        owner, _, name = place.rpartition(".")
        setattr(resolve_name(owner), name, function)


def restore() -> None:
    """Put Hydra's own functions back. For tests that show what Hydra would do without the replacements."""
    for place, function in _originals.items():
        owner, _, name = place.rpartition(".")
        setattr(resolve_name(owner), name, function)


def original(place: str) -> Callable[..., Any]:
    """Return Hydra's own function at a place in ``PLACES``."""
    return _originals.get(place) or _now(place)


@contextmanager
def state_set_aside() -> Iterator[None]:
    """Clear Hydra's global state inside, and restore it afterwards.

    Hydra composes for one application at a time, and the calling program may itself be one (``hydra.initialize``,
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
