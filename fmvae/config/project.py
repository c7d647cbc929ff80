"""The project's own config files, as the groups and keys that they define."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
SWEEPS = PROJECT_ROOT / "sweeps"
EVALUATE, CLASSIFIER, TRAIN = "evaluate", "classifier", "train"  # primary configs


def is_visible_file(path: Path) -> bool:
    """Whether a path is a plain file that people see: no editor's lock, half-written copy or dangling link."""
    return not path.name.startswith((".", "~")) and path.is_file()


def groups(*others: Path) -> dict[str, list[str]]:
    """Every group with its options.

    Args:
        others: folders of configs beside ours, as ``--config-dir`` names.
    """
    found: dict[str, list[str]] = {}
    for folder in (CONF, SWEEPS, *others):
        for path in sorted(folder.glob("*/*.yaml")):
            if is_visible_file(path) and path.stem not in found.get(path.parent.name, ()):
                found.setdefault(path.parent.name, []).append(path.stem)
    return found


def _load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


@cache
def own_keys(primary: str) -> dict[str, Any]:
    """What the config ``conf/<primary>.yaml`` holds when nothing is overridden, uncomposed: names, not values."""
    tree = _load(CONF / f"{primary}.yaml")
    defaults = tree.pop("defaults", [])
    tree.pop("hydra", None)
    for entry in defaults:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            if option is not None and not group.startswith("override "):
                tree[group] = _load(CONF / group / f"{option}.yaml")
    return tree


def program_of(config: Any) -> str:
    """Which primary config a composed config is of, told by the groups that only one of them has."""
    if "model" not in config:
        return EVALUATE
    return TRAIN if "beta" in config else CLASSIFIER
