"""The modes of layers: evaluation for a while, and then each layer's own again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import nn


class HasLayers(Protocol):
    """A module, as far as modes are concerned."""

    def modules(self) -> Iterator[nn.Module]: ...


@contextmanager
def in_evaluation_mode(*modules: HasLayers) -> Iterator[None]:
    """Switch modules to evaluation mode inside; afterwards, restore the mode of each layer."""
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    for layer, _ in modes:
        layer.training = False
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
