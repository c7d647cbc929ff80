"""One optimizer step, for every trainer and every way of stepping."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from fmvae.errors import NumericsError

WAY_OUT = "lower optimizer.lr, set trainer.max_grad_norm, or look at the data; no checkpoint has it"
GRAD_NORM = "grad_norm"  # the last of a step's numbers


class Rule(NamedTuple):
    """What is done to weights whose gradients are known.

    Attributes:
        max_grad_norm: gradients are scaled down to this 2-norm; None leaves them.
    """

    optimizer: Optimizer
    parameters: Sequence[Tensor]
    max_grad_norm: float | None

    def numbers(self, terms: Sequence[Tensor]) -> Tensor:
        """The terms, scalars, and after them the 2-norm of the gradients, as one tensor (len(terms) + 1,)."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return torch.stack([*terms, norm]).detach()

    def apply(self, norm: Tensor) -> None:
        """Step on the gradients, whose norm () is known."""
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
        self.optimizer.step()


def take_step(rule: Rule, loss: Tensor, terms: Sequence[Tensor], look: Callable[[Tensor], object]) -> None:
    """Step on a loss.

    Args:
        terms: what is recorded of it, scalars.
        look: is shown ``rule.numbers`` before they reach the weights; what it raises keeps them as they are.
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
    """What to say of a step's numbers if one is not finite: the first term, or the first gradient; else None.

    Args:
        gradients: of each parameter by its name; looked at only if the terms are finite, and the norm is not.
    """
    if all(map(math.isfinite, numbers.values())):
        return None
    term, value = next((name, v) for name, v in numbers.items() if not math.isfinite(v))
    if term == GRAD_NORM:
        bad = (n for n, g in gradients if g is not None and not g.isfinite().all())
        term = next((f"gradient of {name}" for name in bad), "gradient norm")
    return NumericsError(f"epoch {epoch}, step {step}", f"{term} is {value}", WAY_OUT)


def add_up(sums: dict[str, float], numbers: Mapping[str, float], weight: int) -> None:
    """Add a step's numbers, means over ``weight`` images, to sums over images."""
    for name, number in numbers.items():
        sums[name] = sums.get(name, 0.0) + number * weight
