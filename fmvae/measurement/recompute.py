"""Compute a run's results again with their original settings, and report the differences."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch

from fmvae.assembly import Parts, assemble
from fmvae.common import contention
from fmvae.common.torch_setup import set_up_torch
from fmvae.common.trees import flat
from fmvae.config import compose
from fmvae.config.schema import validate
from fmvae.errors import FmvaeError
from fmvae.evaluation import Evaluator
from fmvae.evaluation.columns import PRECISION_CHECK
from fmvae.evaluation.features import file_sha256
from fmvae.evaluation.registry import BUILT_IN, merged, nothing
from fmvae.evaluation.samplers import SamplerStore
from fmvae.runs.checkpoint import Checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.provenance import provenance
from fmvae.runs.results import at
from fmvae.weights import EARLIER, SHIPPED, WEIGHTS

SHOWN = 5  # most differences that are listed for a measure


def recompute(
    run: RunDirectory,
    config: dict[str, Any],
    checkpoints: Mapping[str, Checkpoint],
    stored: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, list[str]]]:
    """Yield each measure of a run by name with its problems, one line each; none if all numbers are bit-identical.

    Args:
        config: of the run.
        checkpoints: by name, for example ``best``.
        stored: results by the name of their checkpoint.
    """
    usual = compose(["run=x"], "evaluate")  # the current keys, as an older version may have written the run
    own = _own_evaluation(run)
    config |= {"figures": usual["figures"], "evaluation": nothing(usual["evaluation"])}
    config = validate(config)
    parts = assemble(config, set_up_torch(config))
    for which, results in stored.items():
        if results["provenance"]["data_sha256"] != parts.data.sha256:
            label = f"results of {which}"
            place = config["data"].get("root")
            yield label, [f"{label}: measured on other data" + (f" (now from {place})" if place else "")]
            continue
        checkpoint = checkpoints[which]
        parts.load(checkpoint.tensors)
        # fitted here, once for all blocks, and not read from the run's files
        fits = SamplerStore(
            None, parts.model, parts.data, seed=config["seed"], checkpoint_sha256=checkpoint.sha256
        )
        for name, origin in results["provenance"]["evaluation"].items():
            block = at(results, name)
            label = name if which == "best" else f"{name} of {which}"
            torch.set_num_threads(origin["threads"])
            contention.watch()
            evaluator = _evaluator(run, config, parts, own, name, block["settings"])
            if evaluator is None:
                yield label, [f"{label}: can't be computed again here with its settings {block['settings']}"]
                continue
            evaluator.context.samplers = fits
            # how bf16 was chosen does not change a number: the settings say that it was used
            block = {entry: value for entry, value in block.items() if entry != PRECISION_CHECK}
            again = json.loads(json.dumps(evaluator.compute(name)))
            problems = _differences(label, block, again) if again != block else []
            if problems and (elsewhere := _elsewhere(origin, provenance(parts.data.device, config))):
                problems.append(f"{label}: was measured with {elsewhere}")
            yield label, problems


def _own_evaluation(run: RunDirectory) -> dict[str, Any]:
    """Return the evaluation settings stored with the run, which may name the user's own weights."""
    import yaml

    found = yaml.safe_load(run.config.read_text(encoding="utf-8")).get("evaluation")
    groups = found.items() if isinstance(found, dict) else ()  # people may have edited it
    return {name: group for name, group in groups if isinstance(group, dict)}


def _evaluator(
    run: RunDirectory,
    config: Mapping[str, Any],
    parts: Parts,
    own: Mapping[str, Any],
    name: str,
    settings: Mapping[str, Any],
) -> Evaluator | None:
    """Return an evaluator with the settings of a stored block; None if that is not possible here."""
    for asked in _asking(run, config["evaluation"], own, name, settings):
        try:
            untrained = parts.evaluator.context.untrained
            evaluator = Evaluator(
                *(parts.model, parts.objective, parts.data),
                seed=config["seed"],
                settings=asked,
                untrained=untrained,
            )
        except FmvaeError:  # the weights or the class are missing
            continue
        if evaluator.plan().get(name, (None,))[0] == settings:
            return evaluator
    return None


def _asking(
    run: RunDirectory, off: Mapping[str, Any], own: Mapping[str, Any], name: str, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield evaluation settings with which a block may have been measured; ``off`` has every measure off."""
    kind = BUILT_IN.get(name.partition("/")[0])
    if kind is None:  # a user's measure: its block stores its class and arguments
        if isinstance(node := settings.get("measure"), Mapping):
            yield copy.deepcopy({**off, "measures": {name: node}})
        return
    asked = copy.deepcopy({**off, **merged(off, kind.again(name, settings))})
    part = kind.classifier_of(name)
    if part is None:
        yield asked
        return
    asked["extractor"]["precision"] = settings.get("precision", "fp32")
    # shipped weights also by their files: for other data than Fashion-MNIST, only this form is accepted
    files = map(str, SHIPPED.values())
    known = dict.fromkeys([off[part]["weights"], *SHIPPED, own.get(part, {}).get("weights"), *files])
    for weights in chain(known, _classifiers_beside(run, settings.get("extractor_sha256"))):
        if weights is not None:
            yield copy.deepcopy({**asked, part: {**asked[part], "weights": weights}})


def _classifiers_beside(run: RunDirectory, sha256: Any) -> Iterator[str]:
    """Yield the runs of classifiers with these weights in the folder of a run, and in the one above (of a sweep).

    evaluate.py may have been given one, which the run's config does not name.
    """
    for folder in run.path.resolve().parents[:2]:
        for name in (WEIGHTS, EARLIER):
            yield from (str(path.parent) for path in folder.glob(f"*/{name}") if file_sha256(path) == sha256)


def _differences(label: str, stored: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """List the numbers that differ between two blocks, one per line, at most ``SHOWN``."""
    before, after = flat(stored), flat(again)
    differ = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    lines = []
    for key in differ[:SHOWN]:
        a, b = before.get(key), after.get(key)
        share = ""
        if isinstance(a, int | float) and isinstance(b, int | float) and a and math.isfinite(b):
            share = f" ({abs(b / a - 1):.1e} of it)"
        lines.append(f"{label}/{key}: {a} stored, {b} now{share}")
    return [*lines, *([f"{label}: {len(differ) - SHOWN} more"] if len(differ) > SHOWN else [])]


def _elsewhere(origin: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """List differences of code and machine, without threads, which are set to the stored number."""
    then, now = flat(origin), flat(here)
    differ = [key for key in now if key != "threads" and not key.startswith("git.") and then.get(key) != now[key]]
    commits = (then.get("git.commit"), now.get("git.commit"))
    lines = [f"{key.removeprefix('versions.')} {then.get(key)} (here {now[key]})" for key in differ]
    if commits[0] != commits[1]:
        lines.append(f"commit {str(commits[0])[:8]} (here {str(commits[1])[:8]})")
    return ", ".join(lines)
