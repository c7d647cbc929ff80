"""The project's own resolvers of configs (``${fmvae.project:...}``): values that follow from others."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from fmvae import weights
from fmvae.common.text import expand_home
from fmvae.config.building import find_class
from fmvae.config.project import groups, project_path, user_cache
from fmvae.config.schema import SMALLEST_SIDE
from fmvae.errors import ConfigError


def _join(*parts: str | None) -> str:
    return str(Path(*(expand_home(str(part)) for part in parts if part is not None)))


def _sha256(name: str | None) -> str | None:
    """Return the SHA-256 of a file of weights; None if ``name`` is None.

    An unreadable file gives a placeholder, so that composing succeeds; the run then fails when it opens the file.
    """
    if name is None:
        return None
    try:
        return sha256(weights.weights_file(name).read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError):  # ValueError: not a valid file name; TypeError: not a text
        return f"unreadable: {name}"


def _sides(image_shape: Any) -> list[int]:
    """Return the default of ``trainer.sides`` for images (C, H, W): 16, 20 and 28 for 28, and in proportion."""
    try:
        _, height, _ = map(int, image_shape)
    except (TypeError, ValueError):  # null or malformed; reported when the data are there
        height = 28
    scaled = (round(height * side / 28) for side in (16, 20))
    return [*(side for side in scaled if SMALLEST_SIDE <= side < height), height]


def _mirrored(target: Any) -> bool:
    """Return the default of ``trainer.flip``: whether a class of data says that its images may be mirrored."""
    try:
        return bool(getattr(find_class(target, "data"), "mirrored", False))
    except ConfigError:  # reported by what checks the classes
        return False


def _options(group: str, *, _root_: Any) -> str:
    """Return the options of a group, those in the user's own folder included."""
    folders = [Path(source.path) for source in _root_.hydra.runtime.config_sources if source.schema == "file"]
    return ", ".join(sorted(groups(*folders)[group]))


# by their names without ``fmvae.``
RESOLVERS: dict[str, Callable[..., Any]] = {
    "project": lambda name: str(project_path(name)),
    "cache": lambda name: str(user_cache() / name),
    "join": _join,
    "sha256": _sha256,
    "sides": _sides,
    "mirrored": _mirrored,
    "options": _options,
}
