"""Verify that a run's files are undamaged and belong together, and that its results can be reproduced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmvae.config.stored import read_config
from fmvae.errors import FmvaeError, RunError
from fmvae.measurement.load import with_data_at
from fmvae.measurement.measure import training_of
from fmvae.measurement.recompute import recompute as computed_again
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint
from fmvae.runs.directory import RunDirectory, identify
from fmvae.runs.files import read_record
from fmvae.runs.recorder import INDEX, history_text
from fmvae.runs.results import blocks, read_results
from fmvae.runs.resuming import check_owner

MEND = "the same training command"


class Verification:
    """The result of verifying a run.

    Attributes:
        state: ``complete``, or a text that says how to complete the run.
        files: names of the files that are undamaged and belong together.
        measures: names of the measures that were reproduced bit for bit.
        problems: one line each.
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.state = "complete"
        self.files: list[str] = []
        self.measures: list[str] = []
        self.problems: list[str] = []

    def __str__(self) -> str:
        parts = [self.state] * (self.state != "complete") + [f"{len(self.files)} files whole"]
        if self.measures:
            parts.append(f"{', '.join(self.measures)} computed again: equal bit for bit")
        told = "; ".join(parts)
        return "\n".join([f"{self.run}: {told}", *(f"  {problem}" for problem in self.problems)])


def verify(
    run: RunDirectory, *, recompute: bool = True, device: str = "auto", data_root: str | None = None
) -> Verification:
    """Check the digests of a run's files, and that the files belong together; then compute its results again.

    The run is locked meanwhile, and nothing is written.

    Args:
        recompute: whether to measure the checkpoints again, each measure with its stored settings and number of
            threads. If false, files are only read.
        device: where to compute.
        data_root: the folder of the dataset, if it has moved.

    Raises:
        FmvaeError: the config is missing or invalid, or another process has locked the run.
    """
    found = Verification(run)
    config = with_data_at(run, read_config(run.config), data_root)
    sha256 = identify(run, config).sha256
    with run.held():
        checkpoints = dict(_checkpoints(run, sha256, found))
        stored = dict(_results(run, sha256, checkpoints, found))
        _samplers(run, checkpoints, found)
        _derived(run, checkpoints, found)
        if recompute and stored:
            for measure, problems in computed_again(run, config | {"device": device}, checkpoints, stored):
                found.problems += problems
                found.measures += [measure] * (not problems)
    return found


def _checkpoints(run: RunDirectory, sha256: str, found: Verification) -> Iterator[tuple[str, Checkpoint]]:
    """Yield the undamaged checkpoints of this config, by name."""
    found.files.append(run.config.name)
    complete = run.state(sha256) == "complete"
    if not complete:
        found.state = f"not complete, {MEND} finishes it"
    for path in (run.best, run.last, run.previous, run.stopped):
        if not path.exists():
            if complete and path in (run.best, run.last):
                found.problems.append(f"{path.name}: missing, though the run is complete")
            continue
        try:
            checkpoint = load_checkpoint(path)
            check_owner(path, checkpoint, sha256)
        except FmvaeError as error:
            found.problems.append(f"{path.name}: {error.problem}; {error.way_out}")
            continue
        found.files.append(path.name)
        yield path.stem, checkpoint


def _results(
    run: RunDirectory, sha256: str, checkpoints: Mapping[str, Checkpoint], found: Verification
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the undamaged results of existing checkpoints, by the checkpoint's name."""
    if run.read_status().get("state") == "complete" and not run.results.exists():
        found.problems.append("results.json: missing, though the run is complete")
    for which, suffix in (("best", ".json"), ("last", ".last.json")):
        path, fid_path = run.results.with_suffix(suffix), run.fid.with_suffix(suffix)
        try:
            results = read_results(path) if path.exists() else None
            fid = read_record(fid_path) if fid_path.exists() else None
        except RunError as error:
            found.problems.append(f"{Path(error.subject).name}: {error.problem}; {MEND} writes it anew")
            continue
        if results is None:
            continue
        if results.get("config_sha256") != sha256 or not isinstance(results.get("checkpoint"), Mapping):
            found.problems.append(f"{path.name}: the results of another config")
            continue
        if which in checkpoints and results["checkpoint"].get("sha256") != checkpoints[which].sha256:
            found.problems.append(f"{path.name}: not of the {which} checkpoint that is there")
            continue
        if which in checkpoints and (differ := _not_of(checkpoints[which], results)):
            problem = f"{', '.join(differ)} not of the {which} checkpoint"
            found.problems.append(f"{path.name}: {problem}; evaluate.py with force=true measures anew")
            continue
        found.files.append(path.name)
        if "fid" in results:
            same = fid is not None and {name: fid.get(name) for name in results["fid"]} == results["fid"]
            (found.files if same else found.problems).append(
                fid_path.name if same else f"{fid_path.name}: missing, or not the distances of {path.name}"
            )
        if which in checkpoints:
            yield which, results


def _not_of(checkpoint: Checkpoint, results: Mapping[str, Any]) -> list[str]:
    """Return the names of parts of results that do not match the checkpoint, or have no provenance."""
    meta = checkpoint.meta
    row = json.loads(json.dumps(meta["history"][meta["epoch"] - 1]))
    told = results.get("provenance")
    if not isinstance(told, Mapping) or not {"evaluation", "training", "data_sha256"} <= told.keys():
        return ["provenance"]
    same = {
        "validation": results.get("validation") == row,
        "checkpoint.epoch": results["checkpoint"].get("epoch") == meta["epoch"],
        "provenance.training": told["training"] == training_of(checkpoint),
    }
    same |= {name: name in told["evaluation"] for name in blocks(results)}
    return [name for name, is_so in same.items() if not is_so]


def _samplers(run: RunDirectory, checkpoints: Mapping[str, Checkpoint], found: Verification) -> None:
    """Check that the files of fitted samplers are undamaged, and of the checkpoint that is there."""
    for which, folder in (("best", run.samplers), ("last", run.samplers / "last")):
        for path in sorted(folder.glob("*.safetensors")):
            name = str(path.relative_to(run.path))
            try:
                problem, key = "", load_checkpoint(path).meta.get("key")
            except RunError as error:
                problem, key = error.problem, None
            if not problem and not isinstance(key, Mapping):
                problem = "not the file of a sampler"
            elif isinstance(key, Mapping) and which in checkpoints:
                same = key.get("checkpoint_sha256") == checkpoints[which].sha256
                problem = "" if same else f"a sampler of another checkpoint than the {which} one"
            way_out = "remove it, and evaluate.py fits it anew"
            (found.problems if problem else found.files).append(
                f"{name}: {problem}; {way_out}" if problem else name
            )


def _derived(run: RunDirectory, checkpoints: Mapping[str, Checkpoint], found: Verification) -> None:
    """Check the metrics file against the checkpoint's history, and the figures against their index."""
    if "last" in checkpoints:
        history = history_text(checkpoints["last"].meta["history"])
        written = run.metrics.read_bytes() if run.metrics.exists() else b""
        # the metrics of a killed run may have one row more than its checkpoint
        same = written == history or (found.state != "complete" and written.startswith(history))
        problem = f"{run.metrics.name}: not the history of the last checkpoint; {MEND} writes it anew"
        (found.files if same else found.problems).append(run.metrics.name if same else problem)
    index = run.figures / INDEX
    if index.exists():
        try:
            files = read_record(index)["files"]
        except RunError as error:
            found.problems.append(f"figures/{INDEX}: {error.problem}; evaluate.py draws them anew")
            return
        found.files.append(f"figures/{INDEX}")
        for name in files:
            path = run.figures / name
            if not path.exists():
                found.problems.append(f"figures/{name}: missing; evaluate.py draws it anew")
            # earlier versions listed names only, without digests
            elif isinstance(files, dict) and files[name] != hashlib.sha256(path.read_bytes()).hexdigest():
                found.problems.append(f"figures/{name}: damaged; remove it, and evaluate.py draws it anew")
