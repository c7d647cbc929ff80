"""A trained VAE's numbers and figures, from its checkpoint: at the end of training, and whenever asked again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from fmvae.assembly import Parts, assemble, set_up_torch
from fmvae.common.disk import named
from fmvae.config import ASKED_ANEW, NotAVAE, compose, read_config, semantic
from fmvae.config.schema import validate
from fmvae.errors import ConfigError, DataError, FmvaeError, RunError, of_the_machine
from fmvae.runs import RunDirectory, config_sha256, load_checkpoint
from fmvae.runs.checkpoint import WAY_OUT, Checkpoint, load_model
from fmvae.runs.events import FinalEvents
from fmvae.runs.files import read_record, remove_temporaries
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import Album
from fmvae.runs.results import Results, flat_scalars
from fmvae.summary import describe
from fmvae.text import typed_path
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
) -> dict[str, Any]:
    """Measure a run's checkpoint on the test split and draw it; writes its results and fid files.

    What is there of the same checkpoint, data and settings is kept. A measure with other settings takes the place
    of the one before; one that is not asked for stays.

    Args:
        which: the checkpoint. ``best`` writes results.json, ``last`` results.last.json.
        album: where pictures go, and what shows the numbers.
        force: measure everything anew.
        draw: also if no number is new.

    Returns:
        What was written: every number, with what it was measured on and where it comes from.
    """
    checkpoint = _load_checkpoint(run, config, parts, which)
    suffix = "" if which == "best" else f".{which}"
    results_path, fid_path = (file.with_suffix(f"{suffix}.json") for file in (run.results, run.fid))
    epoch = checkpoint.meta["epoch"]
    source = {
        "run": run.path.name,
        "config_sha256": config_sha256(semantic(config)),
        "checkpoint": {"which": which, "epoch": epoch, "sha256": checkpoint.sha256},
    }
    results = Results(source, parts.data.sha256)
    results.read(results_path)

    def write() -> dict[str, Any]:
        row, training = checkpoint.meta["history"][epoch - 1], dict(checkpoint.meta["provenance"])
        if stacked := checkpoint.meta.get("stacked_epochs"):
            training["stacked_epochs"] = stacked
        return results.write(results_path, fid_path, training, validation=row)

    known = {} if force else dict(results.measures)
    here = provenance(parts.data.device)
    new = False
    for name, block in parts.evaluator.measure(known):
        if block != known.get(name):
            results.measures[name], results.origins[name], new = block, here, True
            write()  # measures take minutes: what is done survives a kill
    drawn = {"settings": config["figures"], "checkpoint_sha256": checkpoint.sha256}
    if new or draw or not album.holds(drawn):
        _draw(config, parts, checkpoint, results.measures, album)
        album.note(drawn)
    written = write()
    album.show(flat_scalars(written), epoch)
    return written


def _draw(
    config: Mapping[str, Any],
    parts: Parts,
    checkpoint: Checkpoint,
    measures: Mapping[str, Any],
    album: Album,
) -> None:
    settings, data = config["figures"], parts.data
    visualizer = parts.visualizer.at_epoch(checkpoint.meta["epoch"])
    posteriors = visualizer.posteriors(data.test)
    history = checkpoint.meta["history"]
    for name, figure in result_figures(visualizer, data, history, settings, posteriors):
        album.figure(name, figure)
    for name, figure in measure_figures(visualizer, measures, settings):
        album.figure(name, figure)
    for name, content in result_animations(visualizer, data, settings, posteriors):
        album.file(name, content)
    if settings["projector"] and album.events:
        embedding = projector_data(visualizer, data.test, settings["projector"], posteriors)
        write_projector(album.events.directory, embedding)


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
    runs = find_runs(typed_path(str(path)))
    if len(runs) != 1:
        raise ConfigError("run", f"{str(path)!r} holds {len(runs)} runs", "name one of them")
    run = runs[0]
    usual = compose(["run=x"], "evaluate")  # today's keys, whatever version wrote the run
    config = with_data_at(run, read_config(run.config), None) | {key: usual[key] for key in ASKED_ANEW}
    config |= {"device": device}
    check_identity(run, config)
    parts = assemble(validate(config), set_up_torch(config))
    checkpoint = _load_checkpoint(run, config, parts, which)
    parts = parts._replace(visualizer=parts.visualizer.at_epoch(checkpoint.meta["epoch"]))
    results = read_record(run.results if which == "best" else run.results.with_suffix(f".{which}.json"))
    if results["checkpoint"]["sha256"] != checkpoint.sha256:
        raise RunError(
            run, f"its results are not of its {which} checkpoint", f"run `python evaluate.py run={run}`"
        )
    return LoadedRun(run, config, results, parts)


def _load_checkpoint(run: RunDirectory, config: Mapping[str, Any], parts: Parts, which: Which) -> Checkpoint:
    """Put a checkpoint's weights into the model of ``parts``, after a look at whose they are."""
    path = run.best if which == "best" else run.last
    checkpoint = load_checkpoint(path)
    run.check_owner(path, checkpoint, config_sha256(semantic(config)))
    epoch = checkpoint.meta["epoch"]
    if which == "best" and (best := checkpoint.meta.get("best", epoch)) != epoch:
        raise RunError(path, f"of epoch {epoch}, but the best was {best}", WAY_OUT)
    load_model(parts.model, checkpoint.tensors)
    return checkpoint


def evaluate_runs(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What evaluate.py does: measure every run that ``settings["run"]`` names, or holds.

    Returns:
        The results of each.

    Raises:
        ConfigError: a path names no run.
        RunError: a run is being trained, or its checkpoint is missing, damaged or of another config; of several
            runs, after the others have been measured.
    """
    set_up_torch(settings)  # a wrong device is told once, not of every run
    given = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    if not given or not all(given):  # `run=` with nothing behind it would measure whatever lies here
        raise ConfigError("run", "no directory given", "name a directory under outputs/, or a folder of runs")
    runs = [run for path in given for run in find_runs(typed_path(str(path)))]
    all_results, failed = [], []
    for run, outcome in _outcomes(runs, settings):
        if isinstance(outcome, NotAVAE) and len(runs) > 1:
            log.info("%s: a classifier, left out", run)
        elif isinstance(outcome, FmvaeError):
            log.error("fmvae: error: %s", outcome)
            failed.append(run)
        else:
            log.info("%s", describe(run, outcome))
            all_results.append(outcome)
    if failed:
        names = ", ".join(str(run) for run in failed)
        raise RunError(
            "run", f"{len(failed)} of {len(runs)} could not be measured ({names})", "see the lines above"
        )
    return all_results


def _outcomes(
    runs: Sequence[RunDirectory], settings: Mapping[str, Any]
) -> Iterator[tuple[RunDirectory, dict[str, Any] | FmvaeError]]:
    """Each run with its results, or with why there are none."""
    if len(runs) == 1:  # its errors are the command's
        yield runs[0], _evaluate_run(runs[0], settings, set_up_torch(settings))
        return
    workers = min(settings["workers"], len(runs))
    if workers == 1:
        for run in runs:
            yield run, _outcome(run, settings)
        return
    # each its share of the processor, or they would wait for each other
    threads = settings["threads"] or max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(_outcome, run, {**settings, "threads": threads}) for run in runs]
        for run, future in zip(runs, futures, strict=True):
            try:
                yield run, future.result()
            except BrokenProcessPool:
                yield run, RunError(run, "its worker was killed, or ran out of memory", "give fewer workers")


def _outcome(run: RunDirectory, settings: Mapping[str, Any]) -> dict[str, Any] | FmvaeError:
    try:
        return _evaluate_run(run, settings, set_up_torch(settings))
    except FmvaeError as error:
        return error
    except Exception as error:  # whatever it is, it is this run's: the others are still measured
        if not (explained := of_the_machine(error)):
            log.exception("%s", run)
            explained = RunError(run, f"{type(error).__name__}: {error}", "report it with the lines above")
        return explained


def with_data_at(run: RunDirectory, config: dict[str, Any], root: str | None) -> dict[str, Any]:
    """A run's config with the folder of its dataset: ``root``, or where the run found it, or the usual places.

    The digests of the files, and not their place, are what makes it the same dataset.
    """
    stored = config["data"].get("root")
    if root is None and stored and not typed_path(stored).exists():
        log.warning("%s: the dataset is no longer in %s; looking in the usual places", run, stored)
        stored = None
    return config | {"data": {**config["data"], "root": root or stored}}


def _assembled(config: Mapping[str, Any], device: torch.device) -> Parts:
    """Build the objects of a stored config. Errors name ``data_root``, evaluate.py's key for ``data.root``."""
    try:
        return assemble(config, device)
    except DataError as error:
        way_out = error.way_out.replace("data.root=", "data_root=")
        if "data.download_to=" in way_out:
            way_out = "correct it, or leave it out"
        raise DataError(error.subject.replace("data.root", "data_root"), error.problem, way_out) from None


def _evaluate_run(run: RunDirectory, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    config = with_data_at(run, read_config(run.config), settings["data_root"])
    config |= {key: settings[key] for key in ASKED_ANEW}
    check_identity(run, config)
    config, which, force = validate(config), settings["checkpoint"], settings["force"]
    # only the best checkpoint's numbers and figures are shown in TensorBoard
    album = Album(run.figures, FinalEvents(run.path)) if which == "best" else Album(run.figures / which)
    with run.held(), named(run.path):
        if (state := run.read_status()).get("state") != "complete":
            log.warning("%s: its training is not complete (epoch %s)", run, state.get("epoch", "unknown"))
        remove_temporaries(run.path)
        return measure(run, config, _assembled(config, device), which, album, force=force, draw=force)


def check_identity(run: RunDirectory, config: Mapping[str, Any]) -> None:
    """A config that was edited in place would measure one model under another's name."""
    sha256 = config_sha256(semantic(config))
    if not run.name.endswith(sha256[:8]):
        raise ConfigError(
            run.config,
            "not the config this directory is named by",
            "undo the edit, or train the edited config",
        )


def find_runs(path: Path) -> list[RunDirectory]:
    """The run at ``path``, or those in the folder ``path``, by name. ConfigError if there are none."""
    path = path.resolve()  # the name and the lock are the directory's own, however it is reached
    if (path / "config.yaml").is_file():
        directories = {path}
    else:
        directories = {file.parent.resolve() for file in path.glob("*/config.yaml")}
        directories = {directory for directory in directories if ".old-" not in directory.name}
    found = [run for run in map(RunDirectory, sorted(directories)) if run.has_id]
    if not found:
        what = "no run (no config.yaml in it)" if path.is_dir() else "no such directory"
        if directories:
            what = "no run (it has a config.yaml, but a run's directory is named by its config)"
        raise ConfigError("run", f"{str(path)!r}: {what}", "name a directory under outputs/, or a folder of runs")
    return found
