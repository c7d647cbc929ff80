"""``python -m fmvae.verify outputs/<run or sweep>``: are the files whole, and do the numbers come out again?"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fmvae.assembly import Parts, assemble, set_up_torch
from fmvae.config import NotAVAE, compose, read_config, semantic
from fmvae.errors import FmvaeError, HeldError, RunError, of_the_machine
from fmvae.evaluation import Evaluator
from fmvae.measurement import check_identity, find_runs
from fmvae.report.collect import flat
from fmvae.rules import validate
from fmvae.runs import Checkpoint, RunDirectory, config_sha256, load_checkpoint
from fmvae.runs.checkpoint import load_model
from fmvae.runs.files import read_record
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import INDEX, history_text
from fmvae.runs.results import at
from fmvae.weights import SHIPPED

SHOWN = 5  # numbers of a measure that differ
OFF = {"fid": {"num_images": 0}, "iwae": {"num_samples": 0}, "latent": False, "accuracy": {"num_per_class": 0}}


class Verification:
    """What is found of one run.

    Attributes:
        files: that are whole, and belong to each other.
        measures: that came out the same to the last bit.
        problems: one line each.
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.files: list[str] = []
        self.measures: list[str] = []
        self.problems: list[str] = []

    def __str__(self) -> str:
        parts = [f"{len(self.files)} files whole"]
        if self.measures:
            parts.append(f"{', '.join(self.measures)} computed again: equal bit for bit")
        told = "; ".join(parts)
        return "\n".join([f"{self.run}: {told}", *(f"  {problem}" for problem in self.problems)])


def verify(run: RunDirectory, *, recompute: bool = True, device: str = "auto") -> Verification:
    """Check the digests of a run's files, and that the files are of one another; then compute its numbers again.

    The run is held meanwhile, and nothing is written.

    Args:
        recompute: whether to measure its checkpoints again, each measure with the settings and the number of
            threads that it was made with. Without it only files are read.
        device: where to.

    Raises:
        FmvaeError: there is no config to go by, or another process holds the run.
    """
    found = Verification(run)
    config = read_config(run.config)
    check_identity(run, config)
    with run.held():
        sha256 = config_sha256(semantic(config))
        checkpoints = dict(_checkpoints(run, sha256, found))
        stored = dict(_results(run, sha256, checkpoints, found))
        _derived(run, checkpoints, found)
        if recompute and stored:
            _recompute(config | {"device": device}, checkpoints, stored, found)
    return found


def _checkpoints(run: RunDirectory, sha256: str, found: Verification) -> Iterator[tuple[str, Checkpoint]]:
    """Those that verify and are of this config, by name."""
    found.files.append(run.config.name)
    complete = run.read_status().get("state") == "complete"
    for path in (run.best, run.last, run.previous, run.stopped):
        if not path.exists():
            if complete and path in (run.best, run.last):
                found.problems.append(f"{path.name}: missing, though the run is complete")
            continue
        try:
            checkpoint = load_checkpoint(path)
            run.check_owner(path, checkpoint, sha256)
        except FmvaeError as error:
            found.problems.append(f"{path.name}: {error.problem}")
            continue
        found.files.append(path.name)
        yield path.stem, checkpoint


def _results(
    run: RunDirectory, sha256: str, checkpoints: Mapping[str, Checkpoint], found: Verification
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results that verify and are of a checkpoint that is there, by its name."""
    if run.read_status().get("state") == "complete" and not run.results.exists():
        found.problems.append("results.json: missing, though the run is complete")
    for which, suffix in (("best", ".json"), ("last", ".last.json")):
        path, fid_path = run.results.with_suffix(suffix), run.fid.with_suffix(suffix)
        try:
            results = read_record(path) if path.exists() else None
            fid = read_record(fid_path) if fid_path.exists() else None
        except RunError as error:
            found.problems.append(f"{Path(error.subject).name}: {error.problem}")
            continue
        if results is None:
            continue
        if results.get("config_sha256") != sha256 or not isinstance(results.get("checkpoint"), Mapping):
            found.problems.append(f"{path.name}: the results of another config")
            continue
        if which in checkpoints and results["checkpoint"].get("sha256") != checkpoints[which].sha256:
            found.problems.append(f"{path.name}: not of the {which} checkpoint that is there")
            continue
        found.files.append(path.name)
        if "fid" in results:
            same = fid is not None and {name: fid.get(name) for name in results["fid"]} == results["fid"]
            (found.files if same else found.problems).append(
                fid_path.name if same else f"{fid_path.name}: missing, or not the distances of {path.name}"
            )
        if which in checkpoints:
            yield which, results


def _derived(run: RunDirectory, checkpoints: Mapping[str, Checkpoint], found: Verification) -> None:
    """The files that are written from a checkpoint's history, and the index of the figures."""
    if "last" in checkpoints:
        same = run.metrics.exists() and run.metrics.read_bytes() == history_text(
            checkpoints["last"].meta["history"]
        )
        (found.files if same else found.problems).append(
            run.metrics.name if same else f"{run.metrics.name}: not the history of the last checkpoint"
        )
    index = run.figures / INDEX
    if index.exists():
        try:
            missing = [name for name in read_record(index)["files"] if not (run.figures / name).exists()]
        except RunError as error:
            found.problems.append(f"figures/{INDEX}: {error.problem}")
            return
        found.files.append(f"figures/{INDEX}")
        found.problems += [f"figures/{name}: missing" for name in missing]


# --- numbers ------------------------------------------------------------------------------------------------


def _recompute(
    config: dict[str, Any],
    checkpoints: Mapping[str, Checkpoint],
    stored: Mapping[str, Mapping[str, Any]],
    found: Verification,
) -> None:
    usual = compose(["run=x"], "evaluate")  # today's keys, whatever version wrote the run
    own = _own_evaluation(found.run)
    nothing = {key: usual["evaluation"][key] | OFF[key] if isinstance(OFF[key], dict) else OFF[key] for key in OFF}
    config |= {"figures": usual["figures"], "evaluation": usual["evaluation"] | nothing}
    config = validate(config)
    parts = assemble(config, set_up_torch(config))
    for which, results in stored.items():
        if results["provenance"]["data_sha256"] != parts.data.sha256:
            found.problems.append(f"results of {which}: measured on other data ({config['data']['root']})")
            continue
        load_model(parts.model, checkpoints[which].tensors)
        for name, origin in results["provenance"]["evaluation"].items():
            block = at(results, name)
            label = name if which == "best" else f"{name} of {which}"
            torch.set_num_threads(origin["threads"])
            evaluator = _evaluator(config, parts, own, name, block["settings"])
            if evaluator is None:
                found.problems.append(f"{label}: can't be computed again here, as it was with {block['settings']}")
                continue
            again = json.loads(json.dumps(evaluator.compute(name)))
            if again == block:
                found.measures.append(label)
            else:
                found.problems += _differences(label, block, again)
                if elsewhere := _elsewhere(origin, provenance(parts.data.device)):
                    found.problems.append(f"{label}: was measured with {elsewhere}")


def _own_evaluation(run: RunDirectory) -> dict[str, Any]:
    """The settings that the run was trained with; they name weights of one's own."""
    import yaml

    return yaml.safe_load(run.config.read_text(encoding="utf-8")).get("evaluation") or {}


def _evaluator(
    config: Mapping[str, Any], parts: Parts, own: Mapping[str, Any], name: str, settings: Mapping[str, Any]
) -> Evaluator | None:
    """What measures one block as it was measured; None if that is not possible here."""
    asked = copy.deepcopy(config["evaluation"])  # in which everything is off
    kind, _, features = name.partition("/")
    if kind == "fid":
        known = {key: settings[key] for key in ("num_images", "num_neighbours")}
        asked["fid"] |= known | {"features": [features]}
    elif kind == "iwae":
        asked["iwae"] |= settings
    elif kind == "latent":
        asked["latent"] = True
    elif kind == "accuracy":
        asked["accuracy"] |= {"num_per_class": settings["num_per_class"]}
    asked["extractor"]["precision"] = settings.get("precision", "fp32")
    part = "accuracy" if kind == "accuracy" else "extractor"
    for weights in dict.fromkeys([asked[part]["weights"], *SHIPPED, own.get(part, {}).get("weights")]):
        if weights is None:
            continue
        asked[part]["weights"] = weights
        try:
            evaluator = Evaluator(
                parts.model, parts.objective, parts.data, seed=config["seed"], settings=copy.deepcopy(asked)
            )
        except FmvaeError:  # those weights are no longer there
            continue
        if evaluator.plan().get(name, (None,))[0] == settings:
            return evaluator
    return None


def _differences(label: str, stored: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """The numbers of two blocks that differ, one a line, the first few of many."""
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
    """What of the code and the machine was another; threads are not, as they are set to the same."""
    then, now = flat(origin), flat(here)
    differ = [key for key in now if key != "threads" and not key.startswith("git.") and then.get(key) != now[key]]
    commits = (then.get("git.commit"), now.get("git.commit"))
    lines = [f"{key.removeprefix('versions.')} {then.get(key)} (here {now[key]})" for key in differ]
    if commits[0] != commits[1]:
        lines.append(f"commit {str(commits[0])[:8]} (here {str(commits[1])[:8]})")
    return ", ".join(lines)


# --- the command --------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Status 0 if every run verifies, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m fmvae.verify", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="a run, or a folder of runs")
    parser.add_argument("--files", action="store_true", help="check the files only, and compute nothing again")
    parser.add_argument("--device", default="auto", help="where to compute; auto, cpu, cuda, ...")
    given = parser.parse_args(arguments)
    failed, runs = 0, []
    try:
        runs = [run for folder in given.folder for run in find_runs(folder)]
        for run in runs:
            try:
                found = verify(run, recompute=not given.files, device=given.device)
            except NotAVAE:
                print(f"{run}: a classifier, left out")
                continue
            except HeldError as error:
                print(f"{run}: {error.problem}; left out")
                continue
            except FmvaeError as error:
                failed += 1
                print(f"{run}: {error}", flush=True)
                continue
            failed += bool(found.problems)
            print(found, flush=True)
    except (FmvaeError, OSError) as error:
        said = error if isinstance(error, FmvaeError) else of_the_machine(error)
        print(f"fmvae: error: {said}", file=sys.stderr)
        return 1
    if failed:
        problem = f"{failed} of {len(runs)} runs do not verify"
        print(f"fmvae: error: verify: {problem}; see their lines above", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
