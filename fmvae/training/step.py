"""One optimizer step, shared by all trainers and engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from fmvae.errors import NumericsError

WAY_OUT = "lower optimizer.lr, set trainer.max_grad_norm, or look at the data; it is in no checkpoint"
GRAD_NORM = "grad_norm"  # the names of the last of a step's numbers
NETWORK_GRAD_NORM = "network_grad_norm"


class Rule(NamedTuple):
    """The update rule of weights, given their gradients.

    Attributes:
        max_grad_norm: larger gradients are scaled down to this 2-norm; None disables clipping.
        norm: the name of the 2-norm of the gradients in a step's numbers.
    """

    optimizer: Optimizer
    parameters: Sequence[Tensor]
    max_grad_norm: float | None = None
    norm: str = GRAD_NORM

    def gradient_norm(self) -> Tensor:
        """Return the 2-norm () of all gradients."""
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def apply(self, norm: Tensor) -> None:
        """Clip the gradients, given their norm (), and step the optimizer."""
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        self.optimizer.step()


def numbers_of(terms: Sequence[Tensor], rules: Sequence[Rule]) -> Tensor:
    """Return a step's numbers: the scalar terms, and then each rule's norm, as (len(terms) + len(rules),)."""
    return torch.stack([*terms, *(rule.gradient_norm() for rule in rules)]).detach()


def set_gradients(rules: Sequence[Rule], losses: Sequence[Tensor]) -> None:
    """Compute the gradients of each rule's loss () for that rule's parameters only, from the same weights."""
    for rule in rules:
        for parameter in rule.parameters:
            parameter.grad = None
    for i, (rule, loss) in enumerate(zip(rules, losses, strict=True), 1):
        loss.backward(inputs=list(rule.parameters), retain_graph=i < len(rules))


def take_step(
    rules: Sequence[Rule], losses: Sequence[Tensor], terms: Sequence[Tensor], look: Callable[[Tensor], object]
) -> None:
    """Take an optimizer step of each rule on its loss.

    Args:
        terms: scalars to record.
        look: called with ``numbers_of`` before the weights change; if it raises, they stay unchanged.
    """
    set_gradients(rules, losses)
    numbers = numbers_of(terms, rules)
    look(numbers)
    for rule, norm in zip(rules, numbers[len(terms) :], strict=True):
        rule.apply(norm)


def not_finite(
    numbers: Mapping[str, float], gradients: Iterable[tuple[str, Tensor | None]], epoch: int, step: int
) -> NumericsError | None:
    """Return an error that names the first term or gradient that is not finite; None if all numbers are finite.

    Args:
        gradients: of each parameter by name; examined only if all terms are finite and the norm is not.
    """
    if all(map(math.isfinite, numbers.values())):
        return None
    term, value = next((name, v) for name, v in numbers.items() if not math.isfinite(v))
    if term in (GRAD_NORM, NETWORK_GRAD_NORM):
        bad = (n for n, g in gradients if g is not None and not g.isfinite().all())
        term = next((f"gradient of {name}" for name in bad), "gradient norm")
    return NumericsError(f"epoch {epoch}, step {step}", f"{term} is {value}", WAY_OUT)


def add_up(sums: dict[str, float], numbers: Mapping[str, float], weight: int) -> None:
    """Add a step's numbers, which are means over ``weight`` images, to the sums over images."""
    for name, number in numbers.items():
        sums[name] = sums.get(name, 0.0) + number * weight
