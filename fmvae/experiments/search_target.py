"""The number that a search optimises; the config's key ``objective`` names it."""

from collections.abc import Collection, Mapping
from typing import Any

from fmvae.config.identity import is_vae
from fmvae.errors import ObjectiveError, RunError
from fmvae.evaluation.column import group_of
from fmvae.evaluation.criteria import check_objective_name, nearest, word_tag
from fmvae.evaluation.registry import BUILT_IN, all_columns
from fmvae.evaluation.samplers import fit_settings
from fmvae.runs.results import at, flat_scalars

EITHER = "hydra.sweeper.direction=minimize, or maximize"


def check_objective(config: Mapping[str, Any], measured: Collection[str]) -> None:
    """Raise ObjectiveError unless the objective is one of the numbers that the run will measure.

    Args:
        measured: tags of these numbers.
    """
    name, tag = config["objective"], word_tag(config["objective"], config["evaluation"])
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


def direction(config: Mapping[str, Any]) -> str:
    """Return "minimize" or "maximize", by the column of the objective.

    Raises:
        ConfigError: the objective does not exist, or neither of its directions is better.
    """
    name, evaluation = config["objective"], config["evaluation"]
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


def objective(config: Mapping[str, Any], results: Mapping[str, Any]) -> float:
    """Return the objective's value in a run's results; for a classifier, the test loss.

    Raises:
        RunError: the run was completed earlier, with an evaluation that did not measure the objective, or with
            other settings of its sampler.
    """
    if not is_vae(config):
        return results["test"]["loss"]
    name, evaluation = config["objective"], config["evaluation"]
    tag = word_tag(name, evaluation)
    value, way_out = flat_scalars(results).get(tag), "measure it with python evaluate.py run=<its directory>"
    if value is None:
        raise RunError(results["run"], f"its results lack {name}", way_out)
    if tag.startswith("samplers/"):  # these settings name no run, so a trial may find another one's numbers
        block = "/".join(tag.split("/")[:3])
        asked, stored = fit_settings(evaluation, tag.split("/")[1]), at(results, block)["settings"]["fit"]
        if asked != stored:
            problem = f"its {name} was measured with {stored}, and {asked} is asked for"
            raise RunError(results["run"], problem, f"{way_out} and these settings")
    return value
