"""Write a ``Program``, an operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any

import torch
from torch import Tensor

from fmvae.explore.program import Constant, Operation, Place, Program


class NotForThePage(Exception):
    """A decoder has an operation that the page cannot run; the message names it."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: where its numbers are, and its shape, with the batch of one."""

    place: Place
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return prod(self.shape)


class Builder:
    """Appends to ``program``; what is stored twice is kept once."""

    def __init__(self, latent_dim: int, image_shape: tuple[int, ...], num_classes: int):
        self.program = Program(latent_dim, image_shape, num_classes)
        self._known: dict[tuple[tuple[int, ...], str], Place] = {}

    def add(self, name: str, inputs: Sequence[Value], shape: Sequence[int], **settings: Any) -> Value:
        """Append an operation that gives a tensor of this shape."""
        places = tuple(value.place for value in inputs)
        self.program.operations.append(Operation(name, places, prod(shape), settings))
        return Value(Place(len(self.program.operations)), tuple(shape))

    def constant(self, values: Tensor, *, places: bool = False) -> Place:
        """Store flat values (1, n), or (num_classes, n)."""
        values = values.detach().contiguous() if places else values.detach().float().contiguous()
        if len(values) > 1 and bool((values == values[0]).all()):
            values = values[:1]
        key = (tuple(values.shape), sha256(values.numpy().tobytes()).hexdigest())
        if key not in self._known:
            self._known[key] = Place(len(self.program.constants), True)
            self.program.constants.append(Constant(values, places))
        return self._known[key]

    def weights(self, value: Any, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Place:
        """Return a constant, changed class by class; ``change`` takes and gives tensors of its shape.

        Raises:
            NotForThePage: it is computed from z.
        """
        if not isinstance(value, Value) or not value.place.constant:
            raise NotForThePage("a weight that depends on z")
        rows = self.program.constants[value.place.number].values
        return self.constant(torch.stack([change(row.view(value.shape)).flatten() for row in rows]))

    def finished(self) -> Program:
        """Return the program without constants that no operation uses."""
        program = self.program
        used: dict[int, Place] = {}

        def renumbered(value: Any) -> Any:
            if not isinstance(value, Place) or not value.constant:
                return value
            return used.setdefault(value.number, Place(len(used), True))

        program.operations = [
            operation._replace(
                inputs=tuple(map(renumbered, operation.inputs)),
                settings={name: renumbered(value) for name, value in operation.settings.items()},
            )
            for operation in program.operations
        ]
        program.output = renumbered(program.output)
        program.constants = [program.constants[number] for number in used]
        return program

    def broadcast(self, value: Value, shape: Sequence[int]) -> Value:
        """Return the value in a shape that it expands to."""
        if prod(shape) == value.size:
            return Value(value.place, tuple(shape))
        return self.moved(value, places(value).broadcast_to(tuple(shape)))

    def moved(self, value: Value, index: Tensor) -> Value:
        """Return numbers of a value, chosen by an index that counts from 1; 0 gives a zero."""
        flat = index.flatten().long()
        if torch.equal(flat, torch.arange(1, value.size + 1)):
            return Value(value.place, tuple(index.shape))
        start = int(flat[0]) - 1
        if start >= 0 and torch.equal(flat, torch.arange(len(flat)) + start + 1):
            return self.add("slice", [value], index.shape, start=start, size=len(flat))
        return self.add("gather", [value], index.shape, index=self.constant(flat[None], places=True))


def places(value: Value) -> Tensor:
    """Return the place of each number in its shape, from 1; float64, as some operations take no integers."""
    return torch.arange(1, value.size + 1, dtype=torch.float64).view(value.shape)
