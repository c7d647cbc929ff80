"""The space of a search: which keys it varies, and between what values, from the overrides of a command line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fmvae.config.hydra_internals import OverridesParser, Transformer
from fmvae.config.shorthand import expand_shorthand, in_quotes
from fmvae.errors import ConfigError

LARGEST = 1e15  # steps of 1 are exact up to here
OF_THE_SEARCH = ("output_root", "sweep_name", "dry_run")
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
        ConfigError: nothing is varied, or a key that all runs share; an interval holds no numbers; a tag has no
            meaning; ``params`` is no mapping.
    """
    parser = parser or OverridesParser.create()
    if not isinstance(params, Mapping | None):
        raise ConfigError(
            "hydra.sweeper.params", f"{params} gives no keys", "write {beta.value: 'interval(0.5,4)'}"
        )
    texts = [f"{key}={'null' if value is None else value}" for key, value in (params or {}).items()]
    overrides = parser.parse_overrides(expand_shorthand([*texts, *arguments]))
    by_key = {override.get_key_element().lstrip("+"): override for override in overrides}
    varied, fixed = {}, []
    for override in by_key.values():
        if override.is_sweep_override():
            _check(override)
            varied[override.get_key_element()] = _values(override)
        else:
            fixed.append(str(override.input_line))
    if not varied:
        raise ConfigError("hydra/sweeper", "the search varies no key", WRITTEN)
    return Space(varied, tuple(fixed))


def _check(override: Any) -> None:
    """Refuse to vary what all runs of a search share, and tags that mean nothing."""
    key, tags = override.get_key_element().lstrip("+"), set(getattr(override.value(), "tags", ()))
    if key == "objective":
        raise ConfigError(key, "several values", "for several objectives, write objective=[neg_elbo,fid]")
    if re.split("[./]", key)[0] == "hydra" or key in OF_THE_SEARCH:
        raise ConfigError(key, "several values", "give one, as all runs of a search share it")
    log = override.is_interval_sweep() or override.is_range_sweep()
    if unknown := tags - ({"log"} if log else set()):
        told = ", ".join(sorted(unknown))
        problem = f"the tag {told} in {override.get_value_string()} has no meaning" + " here" * ("log" in unknown)
        raise ConfigError(key, problem, "write tag(log,interval(1e-4,1e-2)) for a log scale")


def _values(override: Any) -> Interval | Choice:
    key, value = override.get_key_element(), override.value()
    if override.is_interval_sweep():
        low, high = value.start, value.end
        log, whole = "log" in value.tags, isinstance(low, int) and isinstance(high, int)
        if not all(map(math.isfinite, (low, high))):
            raise ConfigError(key, f"{override.get_value_string()} has no end", "give finite numbers")
        if not math.isfinite(high - low):
            raise ConfigError(key, f"{override.get_value_string()} is too wide", "give ends below 1e308")
        if not low < high or (log and low <= 0):
            problem = f"{override.get_value_string()} " + ("is empty" if low >= high else "has no logarithm")
            raise ConfigError(key, problem, "give the lower end first" + ", above 0" * log)
        return Interval(low, high, log, whole)
    if override.is_range_sweep():
        if not all(abs(end) < LARGEST for end in (value.start, value.stop)) or 0 < abs(value.step) < 1 / LARGEST:
            raise ConfigError(key, f"{override.get_value_string()} is too wide", "give ends below 1e15")
        if not (number := _counted(value)):
            raise ConfigError(key, f"{override.get_value_string()} is empty", WRITTEN)
        low, high = sorted((value.start, value.start + (number - 1) * value.step))
        log, step, whole = "log" in value.tags, abs(value.step), type(low) is type(high) is int
        if log and (step != 1 or not whole or low <= 0):
            way_out = "on a log scale, a range has whole numbers above 0 in steps of 1; or write an interval"
            raise ConfigError(key, f"{override.get_value_string()} has other steps", way_out)
        return Interval(low, high, log, whole, step)
    if override.is_choice_sweep() and hasattr(value, "list"):  # in the order written, even if it is shuffled
        found = [_written(each, Transformer.encode(each)) for each in value.list]
        if len(set(map(str, found))) < len(found):
            raise ConfigError(key, f"{override.get_value_string()} has a value twice", "give each value once")
    else:  # glob(...)
        found = list(override.sweep_string_iterator())
        if not found:
            raise ConfigError(key, f"{override.get_value_string()} finds nothing", WRITTEN)
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


def _counted(value: Any) -> int:
    """Return how many values a range has, which does not include its end."""
    start, stop, step = value.start, value.stop, value.step
    if step == 0:
        return 0
    number = max(int(-((start - stop) // step)), 0)  # rounded up; of floats, the last one may still miss the end
    while number and (start + (number - 1) * step - stop) * step >= 0:
        number -= 1
    return number
