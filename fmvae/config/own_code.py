"""The user's own code: which packages a config may name classes of, and digests of their sources.

The user allows a package on the command line (``allow=[mymodels]``) or in a call (``compose``, ``load_run``), for
that command or call only. Files, stored runs and environment variables cannot allow anything.
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
WAY_OUT = f"give {KEY}=<package> on the command line"
# packages that cannot be allowed: a config may already name their safe classes, and some of the others are unsafe
WITHHELD = ("fmvae", "torch", "torchvision", "hydra", "hydra_plugins", "omegaconf")

_granted: ContextVar[tuple[str, ...]] = ContextVar("packages whose classes a config may name", default=())


def granted() -> tuple[str, ...]:
    """Return the dotted names of the packages and modules that are allowed here."""
    return _granted.get()


@contextmanager
def allowing(names: Iterable[str], folder: str = "") -> Iterator[None]:
    """Allow configs to name classes that these packages or modules define: inside, and in this thread.

    Packages that were allowed before stay allowed.

    Args:
        names: dotted names of packages or modules. They are checked without importing them.
        folder: is appended to ``sys.path``, to search for them; the working directory if empty.

    Raises:
        ConfigError: a package can't be found, or is not the user's own.
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
    """Allow these packages, and no others, until this process ends. For workers: their parent checks the names."""
    if names:
        _look_in(folder)
    _granted.set(tuple(names))


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
    importlib.invalidate_caches()  # a package may have been created since Python's last search


def taken_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that ``allow=...`` lists on a command line, and the other arguments.

    Raises:
        ConfigError: ``allow`` is given twice, or in another form.
    """
    ours = [argument for argument in arguments if argument.partition("=")[0].lstrip("+~") == KEY]
    if len(ours) > 1 or any(not argument.startswith(f"{KEY}=") for argument in ours):
        raise ConfigError(KEY, f"given as {' '.join(ours)}", f"write it once, as {KEY}=[mymodels,b.c]")
    rest = [argument for argument in arguments if argument not in ours]
    return names_in(ours[0].partition("=")[2]) if ours else [], rest


def names_in(text: str) -> list[str]:
    """Return the names in a text such as ``[a, b.c]``, ``a,b.c`` or ``a`` as a list."""
    text = text.strip()
    inside = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if not inside.strip() and inside is not text:
        return []
    return [name.strip().strip("'\"") for name in inside.split(",")]


def may_be_own(target: Any) -> bool:
    """Return whether a text could be the name of a class in a package that the user may allow."""
    parts = target.split(".") if isinstance(target, str) else []
    return len(parts) > 1 and all(map(str.isidentifier, parts)) and not _of_others(parts[0])


def _of_others(package: str) -> bool:
    return package in WITHHELD or package in sys.stdlib_module_names or package == "__main__"


def _check(name: str) -> None:
    """Refuse the name of a package or module that can't be found or allowed, without importing it."""
    parts = name.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ConfigError(
            KEY, f"{name!r} is not the name of a package", f"write it as in `import`: {KEY}=mymodels"
        )
    if _of_others(parts[0]):
        problem = f"{name!r} is {'part of Python' if parts[0] not in WITHHELD else 'not your own code'}"
        raise ConfigError(KEY, problem, "allow a package of your own, with a class that uses it")
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
    way_out = "install it, put its folder on PYTHONPATH, or run the command in the folder that holds it"
    raise ConfigError(KEY, f"there is no package or module {name!r}{why}", way_out) from None


def refuse_in_files(config: Mapping[Any, Any], file: object = None) -> None:
    """Refuse a config that has the key ``allow``.

    Args:
        file: the file that has it, for the message; None if unknown.

    Raises:
        ConfigError: the config has this key.
    """
    if KEY in config:
        raise refusal(f" ({file} does)" if file else "")


def refusal(where: str = "") -> ConfigError:
    """Return the error for a config that has the key ``allow``; ``where`` is appended to the problem."""
    return ConfigError(KEY, f"no config can allow code{where}", f"take it out, and {WAY_OUT}")


# --- its sources ----------------------------------------------------------------------------------------------


def of_config(config: Any) -> dict[str, dict[str, Any]]:
    """Return ``version`` and ``sha256`` of the sources, by top-level package, of the user's code in a config.

    The packages are those that are allowed and that the config names. ``version`` is there only if the package
    belongs to an installed distribution. What the package imports from elsewhere is not included.
    """
    prefixes = tuple(f"{name}." for name in granted())
    targets = [node["_target_"] for _, node in walk(config) if isinstance(node, Mapping) and "_target_" in node]
    own = {
        target.partition(".")[0] for target in targets if isinstance(target, str) and target.startswith(prefixes)
    }
    return {package: dict(_contents(package)) for package in sorted(own)}


def digests() -> list[str]:
    """Return a text with the name and the sources' digest of each allowed package."""
    packages = dict.fromkeys(name.partition(".")[0] for name in granted())
    return [f"{package} {sources_sha256(package)}" for package in packages]


@cache  # a later edit does not change the code that this process has imported
def _contents(package: str) -> tuple[tuple[str, str], ...]:
    found = (("version", _version(package)), ("sha256", sources_sha256(package)))
    return tuple((key, value) for key, value in found if value)


def _version(package: str) -> str | None:
    """Return the version of the distribution that contains a package, or has its name; None if there is none."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version  # a slow import

    for name in (*packages_distributions().get(package, ()), package):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def sources_sha256(package: str) -> str:
    """Return the SHA-256 over the ``*.py`` files of a top-level package or module.

    It covers the path in the package, the length and the bytes of each file, sorted by path.
    """
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
    """Merge the records of the user's code (see ``of_config``) when a run resumes from a checkpoint.

    Args:
        then: the record in the checkpoint. Its entry ``earlier`` lists the digests of code used before that.
        now: the record of this process.

    Returns:
        The record to store, with ``earlier`` extended; and the packages whose sources changed during the run.
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
