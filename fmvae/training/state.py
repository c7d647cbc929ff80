"""A trainer's state as flat tensors and JSON, the two things a checkpoint holds."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor


class TrainerState(NamedTuple):
    """Tensors by dotted name, and everything else as JSON values."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's ``state_dict`` as tensors named ``<parameter index>.<key>`` and the JSON that remains."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, {"values": values, "param_groups": state["param_groups"]}


def unflatten_optimizer(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten_optimizer``."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in meta["values"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": meta["param_groups"]}


SPELLED_OUT = ("__items__", "__float__")  # the keys that stand for what JSON cannot say


def to_json(value: Any) -> Any:
    """A scheduler's state with what JSON cannot say spelled out: infinities, and keys that are not texts.

    ReduceLROnPlateau holds the first, MultiStepLR the second.
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
