"""The number that a search goes by, which the config's key ``objective`` names."""

from collections.abc import Collection, Mapping
from typing import Any

from fmvae.config.identity import is_vae
from fmvae.errors import ObjectiveError, RunError

WAYS_OUT = {
    "iwae": "give evaluation.iwae.num_samples",
    "fid": "give evaluation.fid.num_images (evaluation=full does, if the data are not too few)",
    "accuracy": "take a conditional model, and give evaluation.accuracy.num_per_class",
}


def _place(config: Mapping[str, Any]) -> tuple[str, str]:
    """The measure, as the evaluator names it, and the value in it. Of several features ``fid`` means the first."""
    features = next(iter(config["evaluation"]["fid"]["features"]), "none")
    return {
        "neg_elbo": ("test", "neg_elbo"),
        "iwae": ("iwae", f"iwae_{config['evaluation']['iwae']['num_samples']}"),
        "fid": (f"fid/{features}", "generation"),
        "accuracy": ("accuracy", "generated/overall"),
    }[config["objective"]]


def check_objective(config: Mapping[str, Any], measured: Collection[str]) -> None:
    """Raise ObjectiveError unless the objective is one of the measures that a run will make."""
    if _place(config)[0] not in measured:
        name = config["objective"]
        problem = f"{name!r} is not measured with this model and evaluation"
        raise ObjectiveError("objective", problem, WAYS_OUT[name])


def objective(config: Mapping[str, Any], results: Mapping[str, Any]) -> float:
    """The objective's value in a run's results; a classifier's is its test loss.

    Raises:
        RunError: the run was finished earlier, with an evaluation that did not measure it.
    """
    if not is_vae(config):
        return results["test"]["loss"]
    value: Any = results
    for part in "/".join(_place(config)).split("/"):
        if part not in value:
            problem = f"its results lack {config['objective']}"
            raise RunError(results["run"], problem, "measure it with python evaluate.py run=<its directory>")
        value = value[part]
    return value
