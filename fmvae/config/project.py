"""The folders of the project and its user, and the groups and keys that the project's own config files define."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import yaml

from fmvae import __version__
from fmvae.errors import FmvaeError

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT_ROOT = PACKAGE.parent  # the checkout; of an installed wheel, the folder that packages are installed into
SHIPPED = PACKAGE / "shipped"  # where setup.py puts conf/ and sweeps/ in a wheel; a checkout has no such folder
CHECKOUT = None if SHIPPED.is_dir() else PROJECT_ROOT
CONF = (CHECKOUT or SHIPPED) / "conf"
SWEEPS = (CHECKOUT or SHIPPED) / "sweeps"
EVALUATE, CLASSIFIER, TRAIN = "evaluate", "classifier", "train"  # primary configs


def project_path(name: str) -> Path:
    """Return where a file or folder of the project is, which ``${fmvae.project:<name>}`` stands for in configs.

    Without a checkout, ``outputs`` is in the working directory, and ``conf`` and ``sweeps`` are in the package.
    """
    top = Path(name).parts[:1]
    if top == ("outputs",):
        return (CHECKOUT or Path.cwd()) / name
    return ((CHECKOUT or SHIPPED) if top in (("conf",), ("sweeps",)) else PROJECT_ROOT) / name


def checkout(command: str, needed: str) -> Path:
    """Return the folder of the checkout, for a command that needs files which are not installed with the package.

    Args:
        command: as the user would type it.
        needed: the files, for the message.

    Raises:
        FmvaeError: there is no checkout.
    """
    if CHECKOUT is None:
        problem = f"needs {needed}, which a wheel does not have"
        raise FmvaeError(command, problem, "run it in a checkout, or in the unpacked source archive (.tar.gz)")
    return CHECKOUT


def install(extra: str) -> str:
    """Return what to do about a library that is missing, the way out of an error: how to install its extra."""
    if CHECKOUT is None:  # pip finds fmvae installed, and adds what the extra lacks
        return f"install it: pip install 'fmvae[{extra}]=={__version__}'"
    return f"install it: in the checkout, pip install -e '.[{extra}]'"


def user_cache() -> Path:
    """Return the folder for files that can be made or fetched again, shared by all of a user's checkouts.

    It is ``fmvae`` in ``$XDG_CACHE_HOME``, or else in ``~/.cache``. A relative ``$XDG_CACHE_HOME`` is ignored, as
    its specification demands: the folder would depend on the working directory. Without ``$HOME``, the folder for
    temporary files takes its place.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME") or gettempdir()
    return Path(given if Path(given).is_absolute() else f"{home}/.cache", "fmvae").absolute()


def is_visible_file(path: Path) -> bool:
    """Return whether a path is a visible plain file, not an editor's lock, a temporary file or a broken link."""
    return not path.name.startswith((".", "~")) and path.is_file()


def groups(*others: Path) -> dict[str, list[str]]:
    """Return the options of every group.

    Args:
        others: further folders of configs, as given by ``--config-dir``.
    """
    found: dict[str, list[str]] = {}
    for folder in (CONF, SWEEPS, *others):
        for path in sorted(folder.glob("*/*.yaml")):
            if is_visible_file(path) and path.stem not in found.get(path.parent.name, ()):
                found.setdefault(path.parent.name, []).append(path.stem)
    return found


def load(path: Path) -> dict[str, Any]:
    """Return the content of a config file. Values are not resolved."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


@cache
def own_keys(primary: str) -> dict[str, Any]:
    """Return the tree of keys of ``conf/<primary>.yaml`` with its default options. Values are not resolved."""
    tree = load(CONF / f"{primary}.yaml")
    defaults = tree.pop("defaults", [])
    tree.pop("hydra", None)
    for entry in defaults:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            if option is not None and not group.startswith("override "):
                tree[group] = load(CONF / group / f"{option}.yaml")
    return tree


def program_of(config: Any) -> str:
    """Return the name of the primary config that a composed config belongs to, recognized by its groups."""
    if "model" not in config:
        return EVALUATE
    return TRAIN if "beta" in config else CLASSIFIER
