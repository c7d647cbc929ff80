"""Convert a trainer's state to flat tensors and JSON, the two parts of a checkpoint."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class TrainerState(NamedTuple):
    """Tensors by dotted name, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


SPELLED_OUT = ("__items__", "__float__")  # keys that mark values JSON cannot represent


def to_json(value: Any) -> Any:
    """Convert a scheduler's state to JSON; encode what JSON lacks: infinities, and keys that are no strings.

    ReduceLROnPlateau has the former, MultiStepLR the latter.
    """
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in SPELLED_OUT for key in value):
            return {key: to_json(child) for key, child in value.items()}
        return {"__items__": [[to_json(key), to_json(child)] for key, child in value.items()]}
    if isinstance(value, list | tuple):
        return [to_json(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": str(value)}
    return value


def from_json(value: Any) -> Any:
    """The inverse of ``to_json``; tuples come back as lists."""
    if isinstance(value, Mapping):
        if "__items__" in value:
            return {from_json(key): from_json(child) for key, child in value["__items__"]}
        if "__float__" in value:
            return float(value["__float__"])
        return {key: from_json(child) for key, child in value.items()}
    return [from_json(child) for child in value] if isinstance(value, list) else value
