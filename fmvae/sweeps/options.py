"""Optuna's samplers, pruners and distributions, made from settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from fmvae.common.text import one_line
from fmvae.config.project import CONF, install
from fmvae.config.schema import shown
from fmvae.config.space import WRITTEN, Choice, Interval
from fmvae.errors import ConfigError
from fmvae.sweeps.database import quiet

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

OLDEST = 4  # Optuna's major version


def check_installed() -> None:
    """Refuse to search without Optuna, or with a version that is too old.

    Raises:
        ConfigError: says what to install.
    """
    key, way_out = "hydra/sweeper=optuna", install("optuna")
    try:
        import optuna
    except ImportError:
        raise ConfigError(key, "Optuna is not installed", way_out) from None
    if int(optuna.__version__.partition(".")[0]) < OLDEST:
        raise ConfigError(key, f"Optuna {optuna.__version__} is too old", way_out)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def settings_of(kind: str, value: Any) -> dict[str, Any]:
    """Return the settings of a sampler or pruner, for :func:`made`; empty for none.

    Args:
        kind: ``sampler`` or ``pruner``.
        value: these settings, or the name of an option in conf/hydra/sweeper.

    Raises:
        ConfigError: there is no such option; lists them.
    """
    if isinstance(value, str):
        options = {path.stem: path for path in (CONF / "hydra" / "sweeper" / kind).glob("*.yaml")}
        if value not in options:
            way_out = f"choose from {', '.join(sorted(options))}"
            raise ConfigError(f"hydra.sweeper.{kind}", f"{value!r} is no {kind}", way_out)
        value = yaml.safe_load(options[value].read_text(encoding="utf-8"))
    if not isinstance(value, Mapping | None):
        raise ConfigError(
            f"hydra.sweeper.{kind}", f"{value!r} is no {kind}", f"give hydra/sweeper/{kind}=<option>"
        )
    settings = {str(key): each for key, each in (value or {}).items()}
    return settings if kind == "sampler" or settings.get("_target_") else {}


def made(kind: str, settings: Mapping[str, Any]) -> Any:
    """Make a sampler or a pruner of Optuna.

    Args:
        kind: ``sampler`` or ``pruner``.
        settings: the arguments of its constructor, and its class as ``_target_``.

    Raises:
        ConfigError: there is no such class, or it does not take these arguments.
    """
    import optuna

    key, package = f"hydra.sweeper.{kind}", f"optuna.{kind}s"
    target, module = str(settings.get("_target_")), getattr(optuna, f"{kind}s")
    base = optuna.samplers.BaseSampler if kind == "sampler" else optuna.pruners.BasePruner
    found = getattr(module, target.removeprefix(f"{package}."), None)
    if not (inspect.isclass(found) and issubclass(found, base)):
        problem = f"{target!r} is not the name of a {kind} of Optuna"
        raise ConfigError(f"{key}._target_", problem, f"give hydra/sweeper/{kind}=<option>")
    own = {name: value for name, value in settings.items() if name != "_target_"}
    known = inspect.signature(found).parameters
    for name, value in own.items():
        if name not in known:
            raise ConfigError(
                f"{key}.{name}", f"{target} does not take it", f"it takes {', '.join(sorted(known))}"
            )
        if said := _unfit(value, known[name]):
            raise ConfigError(f"{key}.{name}", f"{shown(value)} is not {said}", "correct it, or leave the key out")
    try:
        with quiet():
            return found(**own)
    except (TypeError, ValueError, ImportError) as error:
        way_out = "correct its settings, or choose another"
        raise ConfigError(key, f"{target}: {' '.join(str(error).split())}", way_out) from None


def _unfit(value: Any, parameter: inspect.Parameter) -> str:
    """Return what a constructor takes for a parameter, if its annotation says so and the value is none such."""
    if value == parameter.default and type(value) is type(parameter.default):
        return ""
    annotation = parameter.annotation  # a text, or a class
    kinds = {part.strip() for part in getattr(annotation, "__name__", str(annotation)).split("|")}
    if value is None:
        return "" if "None" in kinds or parameter.default is None else "a value"
    if kinds - {"None"} == {"bool"}:
        return "" if isinstance(value, bool) else "true or false"
    if kinds - {"None"} == {"int"}:
        return "" if type(value) is int and value >= 0 else "a whole number >= 0"
    if kinds - {"None"} == {"float"}:
        return "" if type(value) in (int, float) and math.isfinite(value) else "a finite number"
    return ""


def check_sampler(settings: Mapping[str, Any], space: Mapping[str, Interval | Choice], objectives: int) -> None:
    """Refuse a sampler that can't be made, or can't search in this space by so many objectives.

    Args:
        settings: for :func:`made`.
        objectives: how many.

    Raises:
        ConfigError: says which can.
    """
    import optuna

    key, seed = "hydra.sweeper.sampler", settings.get("seed")
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**32):
        raise ConfigError(
            f"{key}.seed", f"{seed!r} is no seed", f"give a whole number from 0 to {2**32 - 1}, or null"
        )
    sampler = made("sampler", settings)
    numeric = [values for values in space.values() if isinstance(values, Interval)]
    if settings["_target_"].endswith("CmaEsSampler") and (objectives > 1 or len(numeric) < 2):
        problem = "cmaes needs one objective, and two or more keys that are intervals"
        raise ConfigError(key, problem, "choose tpe, gp or nsga2")
    distributions = {}
    for name, values in space.items():
        try:
            distributions[name] = distribution(values)
        except ValueError as error:
            raise ConfigError(name, one_line(str(error)), WRITTEN) from None
    try:  # what only sampling shows
        with quiet():
            study = optuna.create_study(
                directions=[optuna.study.StudyDirection.MINIMIZE] * objectives, sampler=sampler
            )
            study.ask(fixed_distributions=distributions)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(key, one_line(str(error)), "correct its settings, or choose another") from None


def distribution(values: Interval | Choice) -> BaseDistribution:
    """Return the values that a key may have as Optuna has them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=None if values.log else values.step)
