"""Turn a decoder's graphs (torch's own operations, one graph per class) into a ``Program`` for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from fmvae.explore.builder import Builder, NotForThePage, Value, places
from fmvae.explore.program import Place, Program
from fmvae.explore.rules import MOVES, RULES


@dataclass(frozen=True)
class Moved:
    """Several tensors that only move numbers of one, as ``split`` gives them; ``getitem`` chooses one."""

    source: Value
    indices: list[Tensor]


class Lowering:
    """Builds a program, node by node.

    Args:
        graphs: one, or one for each class. They are alike but for their constants.
    """

    def __init__(self, graphs: Sequence[fx.GraphModule], latent_dim: int, image_shape: tuple[int, ...]):
        self.graphs = graphs
        self.builder = Builder(latent_dim, image_shape, len(graphs) if len(graphs) > 1 else 0)
        self.values: dict[fx.Node, Any] = {}

    def lowered(self) -> Program:
        """Return the program.

        Raises:
            NotForThePage: the page cannot run an operation.
        """
        program = self.builder.program
        nodes = [list(graph.graph.nodes) for graph in self.graphs]
        if len({tuple(str(node.target) for node in own) for own in nodes}) > 1:
            raise NotForThePage("operations that depend on the class")
        for alike in zip(*nodes, strict=True):
            node = alike[0]
            if node.op == "placeholder":
                self.values[node] = Value(Place(0), (1, program.latent_dim))
            elif node.op == "get_attr":
                tensors = [getattr(graph, one.target) for graph, one in zip(self.graphs, alike, strict=True)]
                self.values[node] = self._constant_value(tensors)
            elif node.op == "output":
                program.output = self._output(node.args[0])
            else:
                self.values[node] = self._call(node)
        return self.builder.finished()

    def _call(self, node: fx.Node) -> Any:
        name = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
        args = fx.map_arg(node.args, self.values.__getitem__)
        kwargs = fx.map_arg(dict(node.kwargs), self.values.__getitem__)
        if name == "getitem":
            return self._chosen(*args)  # type: ignore[misc]
        if name in MOVES:
            return self._move(node.target, args, kwargs)  # type: ignore[arg-type]
        if name in RULES:
            return RULES[name](self.builder, *args, **kwargs)  # type: ignore[misc, arg-type]
        raise NotForThePage(name)

    def _output(self, node: Any) -> Place:
        value = self.values[node] if isinstance(node, fx.Node) else None
        if not isinstance(value, Value) or value.size != prod(self.builder.program.image_shape):
            raise NotForThePage("an output that is not one image")
        return value.place

    def _constant_value(self, tensors: Sequence[Any]) -> Any:
        if not isinstance(tensors[0], Tensor):
            return tensors[0]
        if len({tensor.shape for tensor in tensors}) > 1:
            raise NotForThePage("operations that depend on the class")
        rows = torch.stack([tensor.float().flatten() for tensor in tensors])
        return Value(self.builder.constant(rows), tuple(tensors[0].shape))

    def _chosen(self, several: Any, number: int) -> Any:
        if isinstance(several, Moved):
            return self.builder.moved(several.source, several.indices[number])
        return several[number]

    def _move(self, target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Find out where an operation takes its numbers from, by calling it with their places."""
        values: list[Value] = []
        map_aggregate((args, kwargs), lambda one: values.append(one) if isinstance(one, Value) else None)
        if len(values) > 1:
            source = self.builder.add("concat", values, [sum(value.size for value in values)])
        else:
            source = values[0]
        starts = [sum(value.size for value in values[:i]) for i in range(len(values))]
        own = iter([places(value) + start for value, start in zip(values, starts, strict=True)])
        args, kwargs = map_aggregate((args, kwargs), lambda one: next(own) if isinstance(one, Value) else one)  # type: ignore[misc]
        found = target(*args, **kwargs)
        return self.builder.moved(source, found) if isinstance(found, Tensor) else Moved(source, list(found))
