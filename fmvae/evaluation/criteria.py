"""The names of numbers that a search can optimise, as values of the key ``objective``. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fmvae.errors import ConfigError
from fmvae.evaluation.columns import RENAMED, built_in_columns

WORDS = ("neg_elbo", "iwae", "fid", "accuracy")  # short names that are accepted besides tags


def word_tag(objective: str, evaluation: Mapping[str, Any]) -> str:
    """Return the tag for a value of the key ``objective``; ``fid`` means the first of several features."""
    features = next(iter(evaluation["fid"]["features"]), "none")
    return {
        "neg_elbo": "test/neg_elbo",
        "iwae": f"test/iwae_{evaluation['iwae']['num_samples']}",
        "fid": f"fid/{features}/generation",
        "accuracy": "accuracy/generated/overall",
    }.get(objective, objective)


def check_objectives(named: str | Sequence[str], own: Collection[str] = ()) -> None:
    """Refuse an ``objective`` of a search, one name or several, that names no known number or one twice.

    Raises:
        ConfigError: an objective is unknown, or is named twice.
    """
    names = [named] if isinstance(named, str) else list(named)
    for name in names:
        check_objective_name(name, own)
    if len(set(names)) < len(names):
        raise ConfigError("objective", f"{', '.join(names)}: one is named twice", "name each number once")


def check_objective_name(objective: str, own: Collection[str] = ()) -> None:
    """Refuse an ``objective`` of a search that is neither in ``WORDS`` nor the tag of a known measure.

    Args:
        own: names of the user's measures; their numbers are checked later, when the measures are built.

    Raises:
        ConfigError: the objective is unknown; suggests the most similar tags.
    """
    listed = built_in_columns()
    known = objective in WORDS or any(column.matches(objective) for column in listed)
    if known or objective.partition("/")[0] in own:
        return
    if objective in RENAMED:
        problem = f"{objective!r} has another name now, as it is a number of a Gaussian with the moments of q(z)"
        raise ConfigError("objective", problem, f"give objective={RENAMED[objective]}")
    problem = f"{objective!r} is not one of {', '.join(WORDS)}, nor the tag of a measured number"
    close = nearest(objective, [*WORDS, *(column.tag.replace("{K}", "64") for column in listed)])
    way_out = f"did you mean {close}?" if close else "give a word, or a tag, as latent/active_units"
    raise ConfigError("objective", problem, way_out)


def nearest(given: str, tags: Collection[str]) -> str:
    """Return the most similar tags, compared by the full tag or by its last part; empty if none is similar."""
    last = {tag.rpartition("/")[2]: tag for tag in reversed([*tags])}
    close = difflib.get_close_matches(given, [*tags], 2)
    close += [last[leaf] for leaf in difflib.get_close_matches(given.rpartition("/")[2], [*last], 2, cutoff=0.75)]
    return " or ".join(dict.fromkeys(close[:2] if len(close) > 1 else close))
