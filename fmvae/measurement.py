"""A trained VAE's numbers and figures, from its checkpoint: at the end of training, and whenever asked again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fmvae.assembly import Parts, assemble, set_up_torch
from fmvae.config import NotAVAE, compose, read_config, semantic
from fmvae.errors import ConfigError, RunError
from fmvae.rules import validate
from fmvae.runs import RunDirectory, config_sha256, load_checkpoint
from fmvae.runs.checkpoint import Checkpoint, load_model
from fmvae.runs.files import read_record, write_record
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import Album
from fmvae.summary import describe
from fmvae.visualization import (
    measure_figures,
    projector_data,
    result_animations,
    result_figures,
    write_projector,
)

Which = Literal["best", "last"]
log = logging.getLogger("fmvae")


def measure(
    run: RunDirectory,
    config: Mapping[str, Any],
    parts: Parts,
    which: Which,
    album: Album,
    *,
    force: bool = False,
    draw: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure a run's checkpoint on the test split and draw it; writes its results and fid files.

    What is there of the same checkpoint, data and settings is kept; nothing that was measured is lost.

    Args:
        which: the checkpoint. ``best`` writes results.json, ``last`` results.last.json.
        album: where pictures go.
        force: measure everything anew.
        draw: also if no number is new.

    Returns:
        What was written: every number, with what it was measured on and where it comes from; and of its measures
        the new ones.
    """
    path = run.best if which == "best" else run.last
    checkpoint = load_checkpoint(path)
    sha256 = config_sha256(semantic(config))
    run.check_owner(path, checkpoint, sha256)
    load_model(parts.model, checkpoint.tensors)

    suffix = "" if which == "best" else f".{which}"
    results_path = run.results.with_suffix(f"{suffix}.json")
    epoch = checkpoint.meta["epoch"]
    source = {
        "run": run.path.name,
        "config_sha256": sha256,
        "checkpoint": {"which": which, "epoch": epoch, "sha256": checkpoint.sha256},
    }
    stored = _stored(results_path, {**source, "data_sha256": parts.data.sha256})
    known = {} if force else stored.get("measures", {})
    here = provenance(parts.data.device)
    measures, origins = dict(stored.get("measures", {})), dict(stored.get("origins", {}))
    new = {}
    for name, block in parts.evaluator.measure(known):
        if block != known.get(name):
            measures[name], origins[name], new[name] = block, here, block
    figures = stored.get("figures", {})
    missing = [name for name in figures.get("files", ()) if not (album.directory / name).exists()]
    if new or draw or missing or figures.get("settings") != config["figures"]:
        _draw(config, parts, checkpoint, measures, album)
        figures = {"settings": config["figures"], "files": album.names}

    results = {
        **source,
        "validation": checkpoint.meta["history"][epoch - 1],
        **_nested(measures),
        "figures": figures,
        "provenance": {
            "training": checkpoint.meta["provenance"],
            "evaluation": origins,
            "data_sha256": parts.data.sha256,
        },
    }
    if "fid" in results:
        write_record(
            run.fid.with_suffix(f"{suffix}.json"),
            {**results["fid"], **source, "provenance": results["provenance"]},
        )
    write_record(results_path, results)
    return results, _nested(new)


def _draw(
    config: Mapping[str, Any],
    parts: Parts,
    checkpoint: Checkpoint,
    measures: Mapping[str, Any],
    album: Album,
) -> None:
    settings, data = config["figures"], parts.data
    step = checkpoint.meta["epoch"]
    visualizer = parts.visualizer.at_epoch(step)
    posteriors = visualizer.posteriors(data.test)
    history = checkpoint.meta["history"]
    for name, figure in result_figures(visualizer, data, history, settings, posteriors):
        album.figure(name, figure, step)
    for name, figure in measure_figures(visualizer, measures, settings):
        album.figure(name, figure, step)
    for name, content in result_animations(visualizer, data, settings, posteriors):
        album.file(name, content)
    if settings["projector"] and album.writer:
        write_projector(album.writer, projector_data(visualizer, data.test, settings["projector"], posteriors))


def _stored(path: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    """Measures, origins and figures of an earlier measurement of the same thing; empty if there is none."""
    try:
        results = read_record(path)
        origins = results["provenance"]["evaluation"]
        same = {key: results.get(key) for key in source} | {"data_sha256": results["provenance"]["data_sha256"]}
        measures = {name: _at(results, name) for name in origins}
    except (RunError, LookupError, TypeError):
        return {}
    return {"measures": measures, "origins": origins, "figures": results["figures"]} if same == source else {}


def _at(results: Mapping[str, Any], name: str) -> Any:
    for part in name.split("/"):
        results = results[part]
    return results


def _nested(measures: Mapping[str, Any]) -> dict[str, Any]:
    """``fid/pixels`` as ``pixels`` in ``fid``."""
    nested: dict[str, Any] = {}
    for name, block in measures.items():
        *parents, leaf = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = block
    return nested


def flat_scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """The final numbers by tag: ``test/...``, ``latent/...``, ``fid/<features>/...``, ``accuracy/...``."""
    scalars: dict[str, float] = {}

    def collect(tag: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for name, child in node.items():
                if name not in ("settings", "per_class", "num_images"):
                    collect(f"{tag}/{name}", child)
        elif isinstance(node, int | float) and not isinstance(node, bool):
            scalars[tag] = node

    for block, group in {
        "test": "test",
        "iwae": "test",
        "latent": "latent",
        "fid": "fid",
        "accuracy": "accuracy",
    }.items():
        collect(group, results.get(block, {}))
    return scalars


class LoadedRun(NamedTuple):
    """A finished run: its files, config and results, and the objects of its config with trained weights."""

    run: RunDirectory
    config: dict[str, Any]
    results: dict[str, Any]
    parts: Parts


def load_run(path: str | Path, which: Which = "best", device: str = "auto") -> LoadedRun:
    """Open the run in a directory, to look at it in a notebook.

    Raises:
        ConfigError: there is no run, or its config was edited.
        RunError: it has no results yet, or its checkpoint is missing or damaged.
    """
    (run,) = find_runs(Path(path))
    usual = compose(["run=x"], "evaluate")  # today's keys, whatever version wrote the run
    config = read_config(run.config) | {key: usual[key] for key in ("evaluation", "figures")}
    config |= {"device": device}
    _check_identity(run, config)
    parts = assemble(validate(config), set_up_torch(config))
    checkpoint = load_checkpoint(run.best if which == "best" else run.last)
    load_model(parts.model, checkpoint.tensors)
    parts = parts._replace(visualizer=parts.visualizer.at_epoch(checkpoint.meta["epoch"]))
    return LoadedRun(run, config, read_record(run.results), parts)


def evaluate_runs(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What evaluate.py does: measure every run that ``settings["run"]`` names, or holds.

    Returns:
        The results of each.

    Raises:
        ConfigError: a path names no run.
        RunError: a run is being trained, or its checkpoint is missing, damaged or of another config.
    """
    device = set_up_torch(settings)
    given = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    if not all(given):  # `run=` with nothing behind it would measure whatever lies here
        raise ConfigError("run", "no directory given", "name a directory under outputs/, or a folder of runs")
    runs = [run for path in given for run in find_runs(Path(str(path)))]
    all_results = []
    for run in runs:
        try:
            config = read_config(run.config)
        except NotAVAE:
            if len(runs) == 1:
                raise
            log.info("%s: a classifier, left out", run)
            continue
        if settings["data_root"]:
            config["data"]["root"] = settings["data_root"]
        config |= {key: settings[key] for key in ("evaluation", "figures")}
        _check_identity(run, config)
        which: Which = settings["checkpoint"]
        config = validate(config)
        with run.held(), _album(run, which) as album:
            parts = assemble(config, device)
            force = settings["force"]
            results, new = measure(run, config, parts, which, album, force=force, draw=force)
            album.scalars(flat_scalars(new), results["checkpoint"]["epoch"])
        log.info("%s", describe(run, results))
        all_results.append(results)
    return all_results


@contextmanager
def _album(run: RunDirectory, which: Which) -> Iterator[Album]:
    """Only the best checkpoint's numbers and figures are shown in TensorBoard, in an event file of their own."""

    def open_writer():
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(run.path))

    album = Album(run.figures, open_writer) if which == "best" else Album(run.figures / which)
    try:
        yield album
    finally:
        album.close()


def _check_identity(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """A config that was edited in place would measure one model under another's name."""
    sha256 = config_sha256(semantic(config))
    if not run.path.resolve().name.split(".old-")[0].endswith(sha256[:8]):
        raise ConfigError(
            run.config,
            "not the config this directory is named by",
            "undo the edit, or train the edited config",
        )


def find_runs(path: Path) -> list[RunDirectory]:
    """The run at ``path``, or those in the folder ``path``, by name. ConfigError if there are none."""
    path = path.resolve()  # the name and the lock are the directory's own, however it is reached
    if (path / "config.yaml").is_file():
        return [RunDirectory(path)]
    found = sorted(file.parent for file in path.glob("*/config.yaml") if ".old-" not in file.parent.name)
    if not found:
        what = "no run (no config.yaml in it)" if path.is_dir() else "no such directory"
        raise ConfigError("run", f"{str(path)!r}: {what}", "name a directory under outputs/, or a folder of runs")
    return [RunDirectory(directory) for directory in found]
