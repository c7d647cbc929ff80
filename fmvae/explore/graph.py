"""Record the operations of a decoder with torch's tracer; what does not depend on z is computed here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from fmvae.models import VAE
from fmvae.models.convolution import with_torch_layers
from fmvae.objectives import Likelihood

Function = Callable[[Tensor], Tensor]


def decoder(model: VAE, likelihood: Likelihood, label: int | None) -> Function:
    """Return the function from z (1, latent_dim) to the expected image (1, C, H, W), of a copy on the CPU."""
    plain: Any = with_torch_layers(model)
    mean = likelihood.mean
    if isinstance(likelihood, nn.Module):
        mean = copy.deepcopy(likelihood).to("cpu", torch.float32).eval().mean
    labels = None if label is None else torch.tensor([label])
    return lambda z: mean(plain.decode(z, labels))


def traced(function: Function, latent_dim: int) -> fx.GraphModule:
    """Return the operations between z (1, latent_dim) and the image, without in-place ones and views.

    Branches and numbers that a decoder takes from the values of z are those of one z; who uses the graph compares
    it with the decoder at others.
    """
    z = torch.zeros(1, latent_dim)
    with torch.no_grad():
        first = folded(make_fx(function, _error_on_data_dependent_ops=False)(z))
        return folded(make_fx(torch.func.functionalize(first, remove="mutations_and_views"))(z))


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """Compute each node that does not depend on z, once and in order, and put its value in its place."""
    values: dict[fx.Node, Any] = {}
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr":
            values[node] = _attribute(module, str(node.target))
        elif node.op == "call_function" and all(source in values for source in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[misc]
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    for number, (node, value) in enumerate(values.items()):
        if node.op == "get_attr" or not any(user not in values for user in node.users):
            continue
        name = f"_folded_{number}"
        setattr(module, name, nn.Parameter(value, False) if isinstance(value, Tensor) else value)
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name), lambda user: user not in values)
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op in ("call_function", "get_attr") and node in values:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()
    return module


def _attribute(module: nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found
