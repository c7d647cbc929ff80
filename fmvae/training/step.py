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
GRAD_NORM = "grad_norm"  # the name of the last of a step's numbers


class Rule(NamedTuple):
    """The update rule of weights, given their gradients.

    Attributes:
        max_grad_norm: larger gradients are scaled down to this 2-norm; None disables clipping.
    """

    optimizer: Optimizer
    parameters: Sequence[Tensor]
    max_grad_norm: float | None

    def numbers(self, terms: Sequence[Tensor]) -> Tensor:
        """Return the scalar terms, and after them the 2-norm of the gradients, as a tensor (len(terms) + 1,)."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.stack([*terms, norm]).detach()

    def apply(self, norm: Tensor) -> None:
        """Clip the gradients, given their norm (), and step the optimizer."""
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        self.optimizer.step()


def take_step(rule: Rule, loss: Tensor, terms: Sequence[Tensor], look: Callable[[Tensor], object]) -> None:
    """Take an optimizer step on a loss.

    Args:
        terms: scalars to record.
        look: called with ``rule.numbers`` before the weights change; if it raises, they stay unchanged.
    """
    for parameter in rule.parameters:
        parameter.grad = None
    loss.backward()
    numbers = rule.numbers(terms)
    look(numbers)
    rule.apply(numbers[-1])


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
    if term == GRAD_NORM:
        bad = (n for n, g in gradients if g is not None and not g.isfinite().all())
        term = next((f"gradient of {name}" for name in bad), "gradient norm")
    return NumericsError(f"epoch {epoch}, step {step}", f"{term} is {value}", WAY_OUT)


def add_up(sums: dict[str, float], numbers: Mapping[str, float], weight: int) -> None:
    """Add a step's numbers, which are means over ``weight`` images, to the sums over images."""
    for name, number in numbers.items():
        sums[name] = sums.get(name, 0.0) + number * weight
