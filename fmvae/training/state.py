"""A trainer's state as flat tensors and JSON, the two things a checkpoint holds."""

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
