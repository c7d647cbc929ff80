"""Schedules of the KL weight as a function of training progress in [0, 1].

Progress 1 is the end of training. Evaluation always uses progress 1: values of the objective can be compared
across epochs only if they have the same weight.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

Nats = TypeVar("Nats", float, Tensor)


def check_weight(name: str, value: float) -> float:
    """Return a weight of a loss as a float; raise ValueError unless it is finite and >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value}")
    return float(value)


def _check_fraction(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    return fraction


class BetaSchedule(ABC):
    """A schedule of the weight on the KL term.

    Args:
        value: the final weight, finite and >= 0.
    """

    def __init__(self, value: float = 1.0):
        self.value = check_weight("beta", value)

    @abstractmethod
    def weight(self, progress: float) -> float:
        """Return beta at ``progress``."""

    def numbers(self, progress: float) -> dict[str, float]:
        """Return the values that ``penalty`` needs at ``progress``, by name; the names never change."""
        return {"beta": self.weight(progress)}

    def penalty(self, kl: Nats, numbers: Mapping[str, Any]) -> Nats:
        """Return the KL's contribution to the objective, in nats.

        Args:
            kl: the mean over images.
            numbers: the result of the method ``numbers``, as floats or tensors.
        """
        return numbers["beta"] * kl


class Constant(BetaSchedule):
    """The same beta throughout (Higgins et al. 2017; beta = 1 is the ELBO)."""

    def weight(self, progress: float) -> float:
        return self.value


class Warmup(BetaSchedule):
    """A linear rise from 0 to ``value`` over the first ``fraction`` of training (Sønderby et al. 2016)."""

    def __init__(self, value: float = 1.0, fraction: float = 0.25):
        super().__init__(value)
        self.fraction = _check_fraction(fraction)

    def weight(self, progress: float) -> float:
        return self.value if progress >= self.fraction else self.value * progress / self.fraction


class Cyclical(BetaSchedule):
    """``num_cycles`` linear ramps from 0 to ``value``, each over the first ``fraction`` of its cycle.

    Fu et al. 2019, eq. 6.
    """

    def __init__(self, value: float = 1.0, num_cycles: int = 4, fraction: float = 0.5):
        super().__init__(value)
        if num_cycles < 1:
            raise ValueError(f"num_cycles must be >= 1, got {num_cycles}")
        self.num_cycles = num_cycles
        self.ramp = Warmup(value, fraction)

    def weight(self, progress: float) -> float:
        # the end of training is the end of the last cycle, not the start of another
        return self.value if progress >= 1 else self.ramp.weight(progress * self.num_cycles % 1)


class Capacity(BetaSchedule):
    """The penalty value * |KL - C| with a capacity C that rises from 0 (Burgess et al. 2018, eq. 8).

    Args:
        value: the paper's gamma, the weight of the deviation.
        max_capacity: C at the end of the ramp, in nats.
        fraction: the share of training over which C rises.
    """

    def __init__(self, value: float = 1000.0, max_capacity: float = 25.0, fraction: float = 0.75):
        super().__init__(value)
        self.ramp = Warmup(check_weight("max_capacity", max_capacity), fraction)

    def weight(self, progress: float) -> float:
        return self.value

    def numbers(self, progress: float) -> dict[str, float]:
        return {"beta": self.value, "capacity": self.ramp.weight(progress)}

    def penalty(self, kl: Nats, numbers: Mapping[str, Any]) -> Nats:
        return numbers["beta"] * abs(kl - numbers["capacity"])
