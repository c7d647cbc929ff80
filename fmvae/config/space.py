"""The space of a search: which keys it varies, and between what values, from the overrides of a command line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fmvae.config.hydra_internals import OverridesParser, Transformer
from fmvae.config.shorthand import expand_shorthand, in_quotes
from fmvae.errors import ConfigError

WRITTEN = "write interval(0.5,4), tag(log,interval(1e-4,1e-2)), int(interval(1,8)), range(1,9) or choice(2,10)"


class Interval(NamedTuple):
    """Numbers from ``low`` to ``high``, both included; if ``step`` is given, only ``low`` plus multiples of it.

    Args:
        log: sample the logarithm uniformly.
        whole: only whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None


class Choice(NamedTuple):
    """One of these values; each is what stands after ``key=``."""

    values: tuple[Any, ...]


class Space(NamedTuple):
    """What a search varies, by key as on the command line, and the overrides that all its runs share."""

    varied: dict[str, Interval | Choice]
    fixed: tuple[str, ...]


def space_of(params: Mapping[str, Any] | None, arguments: Iterable[str], parser: Any = None) -> Space:
    """Return the space of a search.

    Args:
        params: ``hydra.sweeper.params``: values by key, as texts of the command line. Arguments replace them.
        parser: of overrides; None makes one that can't read ``glob(...)``.

    Raises:
        ConfigError: nothing is varied, or an interval holds no numbers.
    """
    parser = parser or OverridesParser.create()
    texts = [f"{key}={'null' if value is None else value}" for key, value in (params or {}).items()]
    overrides = parser.parse_overrides(expand_shorthand([*texts, *arguments]))
    by_key = {override.get_key_element().lstrip("+"): override for override in overrides}
    varied, fixed = {}, []
    for override in by_key.values():
        if override.is_sweep_override():
            varied[override.get_key_element()] = _values(override)
        else:
            fixed.append(str(override.input_line))
    if not varied:
        raise ConfigError("hydra/sweeper", "the search varies no key", WRITTEN)
    return Space(varied, tuple(fixed))


def _values(override: Any) -> Interval | Choice:
    key, value = override.get_key_element(), override.value()
    if override.is_interval_sweep():
        low, high = value.start, value.end
        log, whole = "log" in value.tags, isinstance(low, int) and isinstance(high, int)
        if not all(map(math.isfinite, (low, high))):
            raise ConfigError(key, f"{override.get_value_string()} has no end", "give finite numbers")
        if not low < high or (log and low <= 0):
            problem = f"{override.get_value_string()} " + ("is empty" if low >= high else "has no logarithm")
            raise ConfigError(key, problem, "give the lower end first" + ", above 0" * log)
        return Interval(low, high, log, whole)
    if override.is_range_sweep():
        values = sorted(_counted(value))
        if not values:
            raise ConfigError(key, f"{override.get_value_string()} is empty", WRITTEN)
        step = abs(value.step)
        return Interval(values[0], values[-1], "log" in value.tags, all(type(v) is int for v in values), step)
    if override.is_choice_sweep() and hasattr(value, "list"):  # in the order written, even if it is shuffled
        found = [_written(each, Transformer.encode(each)) for each in value.list]
        if len(set(map(str, found))) < len(found):
            raise ConfigError(key, f"{override.get_value_string()} has a value twice", "give each value once")
    else:  # glob(...)
        found = list(override.sweep_string_iterator())
    return Choice(tuple(found))


def _written(given: Any, encoded: Any) -> Any:
    """Return a value as it stands after ``key=``: a text in quotes, if Hydra would read it as something else."""
    if not isinstance(given, str):
        return encoded
    try:
        override = OverridesParser.create().parse_override(f"key={given}")
        same = not override.is_sweep_override() and override.value() == given
    except Exception:  # of Hydra's parser: a text with characters that need quotes
        same = False
    return given if same else in_quotes(given)


def _counted(value: Any) -> list[float]:
    """Return the values of a range, which does not include its end."""
    number, found = value.start, []
    while (number < value.stop) if value.step > 0 else (number > value.stop):
        found.append(number)
        number = value.start + len(found) * value.step
    return found
