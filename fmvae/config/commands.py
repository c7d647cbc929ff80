"""Commands for people to paste, made from a config."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

from fmvae.config.project import CONF, is_visible_file, load
from fmvae.config.schema import shown
from fmvae.config.shorthand import in_quotes

TRAINS_CLASSIFIER = "python train.py --config-name classifier"
# keys of data that do not say which images there are, or how they are split by default
OTHER_KEYS = (
    "_target_",
    "seed",
    "batch_size",
    "val_size",
    "num_train",
    "stratified",
    "download",
    "download_to",
    "cache",
)
FROM_FILES = ("sha256", "image_shape", "num_classes")  # filled in while composing where the option has null


def classifier_command(data: Mapping[str, Any]) -> str:
    """Return the command that trains a classifier of the images which a resolved config's group ``data`` names.

    It has the keys that choose images and differ from the option of ``conf/data``. For a class without an option
    there, the option's name is left to the user.
    """
    if data["_target_"] not in (options := _options()):
        return f"{TRAINS_CLASSIFIER} data=<as here>"
    option, usual = options[data["_target_"]]
    words = [f"data={option}"]
    for key, value in data.items():
        filled = key in FROM_FILES and usual.get(key) is None and not isinstance(value, Mapping)
        if key not in OTHER_KEYS and not filled and value != usual.get(key):
            words.append(f"data.{key}={_written('static' if key == 'binarize' else value)}")
    return f"{TRAINS_CLASSIFIER} {shlex.join(words)}"


@cache
def _options() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the name and the values of the option of ``conf/data`` for each class that one names."""
    paths = (path for path in sorted((CONF / "data").glob("*.yaml")) if is_visible_file(path))
    found = {path.stem: load(path) for path in paths}
    return {usual["_target_"]: (option, usual) for option, usual in found.items() if "_target_" in usual}


def _written(value: Any, within: bool = False) -> str:
    """Return a value as Hydra reads it in an override."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_written(child, True)}' for key, child in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(child, True) for child in value)}]"
    if isinstance(value, str):
        return in_quotes(value) if within else value
    return shown(value)
