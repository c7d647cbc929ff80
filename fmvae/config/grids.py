"""The jobs of a sweep: every combination of its values, for each of its grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fmvae.config.hydra_internals import OverridesParser
from fmvae.config.project import groups
from fmvae.config.shorthand import expand_shorthand
from fmvae.errors import ConfigError

PARAMS, GRIDS = "hydra.sweeper.params", "hydra.sweeper.grids"
LIST = "write a list of mappings, as [{loss: dip_vae, loss.off_diagonal: '1,10'}], or null"


def jobs_of(
    params: Mapping[str, Any] | None,
    grids: Sequence[Mapping[str, Any]] | None,
    arguments: Sequence[str] = (),
    parser: Any = None,
) -> list[tuple[str, ...]]:
    """Return the overrides of each job of a sweep, in order, each job once.

    Args:
        params: values by key, as texts of the command line.
        grids: further values by key. Each grid is combined with ``params``, but not with the other grids, and its
            keys replace those of ``params``. None is one grid without keys.
        arguments: the command line's overrides. A key replaces a grid's key. Options of a group choose among the
            grids that name this group: with ``loss=factor_vae``, grids of other losses are left out.
        parser: of overrides; None makes one that can't read ``glob(...)``.

    Raises:
        ConfigError: ``params`` or ``grids`` is not of this form, or an option in ``arguments`` is in no grid.
    """
    from fmvae.config.hydra_internals import BasicSweeper  # on use, as hydra_internals says

    check_form(params, grids)
    parser = parser or OverridesParser.create()
    always = parser.parse_overrides(list(_texts(params or {})))
    given = parser.parse_overrides(expand_shorthand(arguments))
    keys = {override.key_or_group for override in given}
    options = {o.key_or_group: _values(o) for o in given if o.key_or_group in groups() and not o.is_delete()}
    parsed = [_parsed(grid, parser) for grid in ([{}] if grids is None else grids)]
    _check_options(options, parsed)
    jobs: dict[tuple[str, ...], None] = {}
    for grid in parsed:
        chosen = {key: [v for v in _values(grid[key]) if v in options[key]] for key in grid if key in options}
        if all(chosen.values()):
            narrowed = {key: parser.parse_override(f"{key}={','.join(values)}") for key, values in chosen.items()}
            own = [
                narrowed.get(key, override) for key, override in grid.items() if key in chosen or key not in keys
            ]
            rest = [override for override in given if override.key_or_group not in chosen]
            (found,) = BasicSweeper.split_arguments([*always, *own, *rest], None)
            jobs |= dict.fromkeys(map(tuple, found))
    return list(jobs)


def check_form(params: Any, grids: Any) -> None:
    """Refuse ``params`` that are no mapping, and ``grids`` that are no list of mappings of keys to plain values.

    Raises:
        ConfigError: of ``hydra.sweeper.params`` or ``hydra.sweeper.grids``.
    """
    if params is not None and not isinstance(params, Mapping):
        raise ConfigError(PARAMS, f"{params!r} is no mapping", "write values by key, as {seed: '0,1'}")
    if grids is None:
        return
    if not isinstance(grids, Sequence) or isinstance(grids, str) or not grids:
        raise ConfigError(GRIDS, f"{grids!r} is no list of grids", LIST)
    for grid in grids:
        if not isinstance(grid, Mapping):
            raise ConfigError(GRIDS, f"{grid!r} is no mapping", LIST)
        for key, value in grid.items():
            if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
                way_out = "write several values as one text: '1,2'; a list as one value: '[1,2]'"
                raise ConfigError(GRIDS, f"{key} is {value!r}", way_out)


def blame(error: ConfigError, grids: Sequence[Mapping[str, Any]] | None, arguments: Sequence[str]) -> ConfigError:
    """Return the error of a job; if a grid has the key at fault, it names ``hydra.sweeper.grids``."""
    own = {_key(text) for grid in grids or () for text in _texts(grid)} - set(map(_key, arguments))
    if str(error.subject).lstrip("+~").partition("=")[0] not in own:
        return error
    return ConfigError(GRIDS, f"{error.subject}: {error.problem}", error.way_out)


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values as overrides."""
    for key, value in values.items():
        yield from expand_shorthand([f"{key}={'null' if value is None else value}"])


def _parsed(grid: Mapping[str, Any], parser: Any) -> dict[str, Any]:
    """Return a grid's parsed overrides by key.

    Raises:
        ConfigError: one can't be parsed, or is an interval.
    """
    found = {}
    for text in _texts(grid):
        try:
            override = parser.parse_override(text)
        except Exception:  # of Hydra, or of its parser's library
            raise ConfigError(GRIDS, f"{text} is not readable as key=value", "quote a value with spaces") from None
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(GRIDS, f"{text} is an interval", "list the values, as '0.5,1'")
        found[override.key_or_group] = override
    return found


def _values(override: Any) -> list[str]:
    """Return the values of an override, as texts of the command line."""
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


def _check_options(options: Mapping[str, Sequence[str]], grids: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an option on the command line that no grid has, if every grid names its group."""
    for key, values in options.items():
        if all(key in grid for grid in grids):
            having = dict.fromkeys(value for grid in grids for value in _values(grid[key]))
            if others := [value for value in values if value not in having]:
                problem = f"no grid of this sweep has {key}={','.join(others)}"
                raise ConfigError(GRIDS, problem, f"choose {key}={' or '.join(having)}, or make another sweep")
