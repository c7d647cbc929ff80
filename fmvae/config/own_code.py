"""One's own code: the packages whose classes a config may name because a person said so, and what they hold.

A grant is given on a command line (``allow=[mymodels]``) or in a call (``compose``, ``load_run``) and lasts as
long as that. Nothing reads one from a file, a stored run or the environment.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from hashlib import sha256
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn

from fmvae.config.schema import walk
from fmvae.errors import ConfigError

KEY = "allow"
WAY_OUT = f"give {KEY}=[...] on the command line"
# of which a config may name what is safe already, and of whose other classes some are not
WITHHELD = ("fmvae", "torch", "torchvision", "hydra", "hydra_plugins", "omegaconf")

_granted: ContextVar[tuple[str, ...]] = ContextVar("packages whose classes a config may name", default=())


def granted() -> tuple[str, ...]:
    """The packages and modules that are allowed here, as dotted names."""
    return _granted.get()


@contextmanager
def allowing(names: Iterable[str], folder: str = "") -> Iterator[None]:
    """Inside, and in this thread, configs may name classes that these packages or modules define.

    What was allowed before still is.

    Args:
        folder: the last place where Python is to look for them; the working directory if empty.

    Raises:
        ConfigError: one is no importable package, or not one's own. Finding out imports none.
    """
    names = tuple(names)
    if names:
        _look_in(folder or str(Path.cwd()))
    for name in names:
        _check(name)
    token = _granted.set(tuple(dict.fromkeys((*granted(), *names))))
    try:
        yield
    finally:
        _granted.reset(token)


def allow_from_now_on(names: Sequence[str], folder: str) -> None:
    """The same for a process that works for one which has checked the names: these, and no others, to its end."""
    if names:
        _look_in(folder)
    _granted.set(tuple(names))


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()  # a package may have been written since Python looked


def taken_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that a command line's ``allow=...`` lists, and its other arguments.

    Raises:
        ConfigError: it is given twice, or in another form.
    """
    ours = [argument for argument in arguments if argument.partition("=")[0].lstrip("+~") == KEY]
    if len(ours) > 1 or any(not argument.startswith(f"{KEY}=") for argument in ours):
        raise ConfigError(KEY, f"given as {' '.join(ours)}", f"write it once, as {KEY}=[mymodels,b.c]")
    rest = [argument for argument in arguments if argument not in ours]
    return names_in(ours[0].partition("=")[2]) if ours else [], rest


def names_in(text: str) -> list[str]:
    """``[a, b.c]``, ``a,b.c`` or ``a`` as a list."""
    text = text.strip()
    inside = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if not inside.strip() and inside is not text:
        return []
    return [name.strip().strip("'\"") for name in inside.split(",")]


def may_be_own(target: Any) -> bool:
    """Whether a text could name something of a package that may be allowed."""
    parts = target.split(".") if isinstance(target, str) else []
    return len(parts) > 1 and all(map(str.isidentifier, parts)) and not _of_others(parts[0])


def _of_others(package: str) -> bool:
    return package in WITHHELD or package in sys.stdlib_module_names or package == "__main__"


def _check(name: str) -> None:
    """Refuse a name that is of no importable package or module, without importing it."""
    parts = name.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ConfigError(KEY, f"{name!r} is no name of a package", f"write it as in `import`: {KEY}=[mymodels]")
    if _of_others(parts[0]):
        problem = f"{name!r} is {'part of Python' if parts[0] not in WITHHELD else 'not your own code'}"
        raise ConfigError(KEY, problem, "name your own package, and in it a class that uses that one")
    try:
        found = importlib.util.find_spec(parts[0])
        for depth in range(2, len(parts) + 1):
            places = found.submodule_search_locations if found else None
            found = PathFinder.find_spec(".".join(parts[:depth]), places) if places else None
    except (ImportError, ValueError) as error:
        _not_found(name, f" ({error})")
    if found is None:
        _not_found(name)


def _not_found(name: str, why: str = "") -> NoReturn:
    way_out = "install it, put its folder on PYTHONPATH, or give the command where it lies"
    raise ConfigError(KEY, f"there is no package or module {name!r}{why}", way_out) from None


def refuse_in_files(config: Mapping[Any, Any], file: object = None) -> None:
    """Refuse a config that would allow code itself.

    Raises:
        ConfigError: it holds the key ``allow``.
    """
    if KEY in config:
        raise refusal(f" ({file} does)" if file else "")


def refusal(where: str = "") -> ConfigError:
    """What is said of a config that would allow code."""
    return ConfigError(KEY, f"no config can allow code{where}", f"take it out, and {WAY_OUT}")


# --- what it holds --------------------------------------------------------------------------------------------


def of_config(config: Any) -> dict[str, dict[str, Any]]:
    """What is known of one's own code in a config: by top-level package, its version and its sources' SHA-256.

    Of each package that is allowed and that the config names; the version if it is an installed distribution's.
    What such a package imports from elsewhere is not told.
    """
    prefixes = tuple(f"{name}." for name in granted())
    targets = [node["_target_"] for _, node in walk(config) if isinstance(node, Mapping) and "_target_" in node]
    own = {
        target.partition(".")[0] for target in targets if isinstance(target, str) and target.startswith(prefixes)
    }
    return {package: dict(_contents(package)) for package in sorted(own)}


def digests() -> list[str]:
    """A text for each package that is allowed, another one when its sources change."""
    packages = dict.fromkeys(name.partition(".")[0] for name in granted())
    return [f"{package} {sources_sha256(package)}" for package in packages]


@cache  # of what this process has imported; an edit while it runs is not what it runs
def _contents(package: str) -> tuple[tuple[str, str], ...]:
    found = (("version", _version(package)), ("sha256", sources_sha256(package)))
    return tuple((key, value) for key, value in found if value)


def _version(package: str) -> str | None:
    """Of the distribution that brings a package, or else has its name."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version  # takes a while

    for name in (*packages_distributions().get(package, ()), package):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def sources_sha256(package: str) -> str:
    """SHA-256 over the ``*.py`` of a top-level package or module: each path in it, length and bytes, sorted."""
    spec = importlib.util.find_spec(package)
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    files = sorted((path.relative_to(place).as_posix(), path) for place in places for path in place.rglob("*.py"))
    if not places and spec and spec.origin:
        files = [(Path(spec.origin).name, Path(spec.origin))]
    content = sha256()
    for name, path in files:
        source = path.read_bytes()
        content.update(f"{name}\0{len(source)}\0".encode(errors="surrogateescape") + source)
    return content.hexdigest()


def carried_on(
    then: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is known of one's own code, of a run that goes on; and the packages that are others than it began with.

    Args:
        then: what was known when its checkpoint was written. The digests of earlier code are kept in ``earlier``.
        now: what is known here.
    """
    known, changed = {}, []
    for package, here in now.items():
        before = then.get(package, {})
        earlier = [*before.get("earlier", ())]
        if before and before["sha256"] != here["sha256"]:
            earlier.append(before["sha256"])
        known[package] = {**here, **({"earlier": earlier} if earlier else {})}
        if any(digest != here["sha256"] for digest in earlier):
            changed.append(package)
    return known, changed
