"""The numbers that a search optimises; the config's key ``objective`` names one or several."""

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from fmvae.common.text import short
from fmvae.common.trees import flat
from fmvae.errors import ObjectiveError, UnmeasuredError
from fmvae.evaluation.column import group_of
from fmvae.evaluation.criteria import check_objective_name, nearest, word_tag
from fmvae.evaluation.registry import BUILT_IN, all_columns
from fmvae.evaluation.samplers import fit_settings
from fmvae.runs.results import at, flat_scalars

Direction = Literal["minimize", "maximize"]
EITHER = "hydra.sweeper.direction=minimize, or maximize"
LOSS = "loss"  # a classifier's objective, on the test images


def names_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in ``objective``: words or tags; of a classifier, ``loss``."""
    named = config.get("objective", LOSS)
    return (named,) if isinstance(named, str) else tuple(named)


def check_objective(config: Mapping[str, Any], measured: Collection[str]) -> None:
    """Raise ObjectiveError unless the objectives are numbers that the run will measure.

    Args:
        measured: tags of these numbers.
    """
    for name in names_of(config):
        _check(name, config["evaluation"], measured)


def _check(name: str, evaluation: Mapping[str, Any], measured: Collection[str]) -> None:
    tag = word_tag(name, evaluation)
    if tag in measured:
        return
    problem = f"{name!r} is not measured with this model and evaluation"
    ways = [
        kind.way_in for block, kind in BUILT_IN.items() if kind.way_in and block in (name, tag.partition("/")[0])
    ]
    if tag.startswith("test/iwae_"):
        ways = [BUILT_IN["iwae"].way_in]
    close = nearest(tag, [*measured])
    ways += [f"did you mean {close}?"] if close and not ways else []
    raise ObjectiveError(
        "objective", problem, ways[0] if ways else f"name {group_of(tag)} under evaluation.measures"
    )


def directions(config: Mapping[str, Any]) -> tuple[Direction, ...]:
    """Return "minimize" or "maximize" for each objective, by its column.

    Raises:
        ConfigError: an objective does not exist, or neither of its directions is better.
    """
    return tuple(
        "minimize" if name == LOSS else _direction(name, config["evaluation"]) for name in names_of(config)
    )


def _direction(name: str, evaluation: Mapping[str, Any]) -> Direction:
    check_objective_name(name, evaluation.get("measures", {}))
    tag = word_tag(name, evaluation)
    column = next((column for column in all_columns(evaluation) if column.matches(tag)), None)
    if column is None:
        own = [
            column.tag for column in all_columns(evaluation) if column.tag.startswith(f"{tag.partition('/')[0]}/")
        ]
        raise ObjectiveError("objective", f"no measure has a number {name!r}", f"choose from {', '.join(own)}")
    if column.direction is None:
        problem = f"neither low nor high values of {name!r} are better"
        raise ObjectiveError("objective", problem, f"say which: {EITHER}")
    return "maximize" if column.direction == "higher" else "minimize"


def objective(config: Mapping[str, Any], results: Mapping[str, Any]) -> float | tuple[float, ...]:
    """Return what Hydra's sweepers expect of a job: the objective's value, or the values of several.

    Raises:
        UnmeasuredError: see :func:`objectives`.
    """
    values = objectives(config, results)
    (first, *others) = values
    return values if others else first


def objectives(config: Mapping[str, Any], results: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the objectives' values in a run's results; for a classifier, the test loss.

    Raises:
        UnmeasuredError: the run was completed earlier, with an evaluation that did not measure an objective, or
            with other settings of its sampler.
    """
    if "objective" not in config:  # a classifier's
        return (results["test"]["loss"],)
    folder = short(Path(config.get("output_root") or "", config.get("sweep_name") or results["run"]))
    return tuple(_value(name, config["evaluation"], results, folder) for name in names_of(config))


def _value(name: str, evaluation: Mapping[str, Any], results: Mapping[str, Any], folder: str) -> float:
    tag = word_tag(name, evaluation)
    command = shlex.join(["python", "evaluate.py", f"run={folder}"])
    way_out = f"measure the runs: {command}, with the evaluation settings of this command"
    value = flat_scalars(results).get(tag)
    if value is None:
        raise UnmeasuredError(results["run"], f"complete, but its results lack {name}", way_out)
    if tag.startswith("samplers/"):  # these settings name no run, so a trial may find another one's numbers
        block = "/".join(tag.split("/")[:3])
        asked, stored = fit_settings(evaluation, tag.split("/")[1]), at(results, block)["settings"]["fit"]
        if asked != stored:
            problem = f"its {name} was measured with {stored}, and {asked} is asked for"
            raise UnmeasuredError(results["run"], problem, way_out)
    return value


def measured(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the measures of the objectives, by dotted key; they are no part of a run's name."""
    if "objective" not in config:
        return {}
    evaluation, found = config["evaluation"], {}
    for name in names_of(config):
        tag = word_tag(name, evaluation)
        block, *rest = tag.split("/")
        parts = {"test": ["iwae"] * tag.startswith("test/iwae"), "fid": ["fid", "extractor"]}.get(block, [block])
        parts = ["fid", "extractor", rest[0]] if block == "samplers" else parts
        settings = {part: evaluation[part] for part in parts if isinstance(evaluation.get(part), Mapping)}
        own = {block: evaluation.get("measures", {}).get(block)} if block in evaluation.get("measures", {}) else {}
        found |= {f"objective {name}": tag, **flat({"evaluation": {**settings, "measures": own}})}
    return found
