"""Measure trained runs again; used by evaluate.py."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fmvae.assembly import Parts, assemble
from fmvae.common.disk import named
from fmvae.common.streams import hide_bars
from fmvae.common.torch_setup import set_up_torch
from fmvae.config.own_code import allow_from_now_on, granted
from fmvae.config.schema import validate
from fmvae.config.stored import ASKED_ANEW, NotAVAE, read_config
from fmvae.errors import ConfigError, DataError, FmvaeError, RunError, Terminated, exited, of_the_machine
from fmvae.measurement.load import with_data_at
from fmvae.measurement.measure import measure
from fmvae.measurement.summary import describe
from fmvae.runs.directory import RunDirectory, find_runs, identify
from fmvae.runs.events import FinalEvents
from fmvae.runs.files import remove_temporaries
from fmvae.runs.hparams import hparams
from fmvae.runs.names import run_path
from fmvae.runs.recorder import Album, report_history
from fmvae.runs.tracking import reporting
from fmvae.runs.tracks import maker, report_files, tracked

log = logging.getLogger("fmvae")


def evaluate_runs(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure every run that ``settings["run"]`` names or that is in a folder named there.

    Returns:
        The results of each run.

    Raises:
        ConfigError: there is no run at a path.
        RunError: a run is being trained, or its checkpoint is missing, damaged or of another config; with several
            runs, it is raised after the others have been measured.
    """
    set_up_torch(settings)  # report a wrong device once, not for every run
    given = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    if not given or not all(given):  # an empty `run=` would mean the current folder
        raise ConfigError("run", "no directory given", "name a directory under outputs/, or a folder of runs")
    runs = [run for path in given for run in find_runs(run_path(str(path), settings.get("output_root")))]
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
    """Yield each run with its results or its error."""
    if len(runs) == 1:  # its errors are raised directly
        yield runs[0], _evaluate_run(runs[0], settings, set_up_torch(settings))
        return
    workers = min(settings["workers"], len(runs))
    if workers == 1:
        for run in runs:
            yield run, _outcome(run, settings)
        return
    # divide the CPU's threads among the workers
    threads = settings["threads"] or max(1, torch.get_num_threads() // workers)
    own = (granted(), str(Path.cwd()))
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, own) as pool:
        futures = [pool.submit(_outcome, run, {**settings, "threads": threads}) for run in runs]
        for run, future in zip(runs, futures, strict=True):
            try:
                yield run, future.result()
            except BrokenProcessPool:
                yield run, RunError(run, "its worker was killed, or ran out of memory", "give fewer workers")


def _begin_worker(allowed: Sequence[str], folder: str) -> None:
    hide_bars()  # several processes share one terminal
    allow_from_now_on(allowed, folder)


def _outcome(run: RunDirectory, settings: Mapping[str, Any]) -> dict[str, Any] | FmvaeError:
    try:
        return _evaluate_run(run, settings, set_up_torch(settings))
    except FmvaeError as error:
        return error
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # any error is of this run only: the others are still measured
        if not (explained := of_the_machine(error) or exited(error)):
            log.exception("%s", run)
            explained = RunError(run, f"{type(error).__name__}: {error}", "report it with the lines above")
        return explained


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
    identity = identify(run, config)
    config, which, force = validate(config), settings["checkpoint"], settings["force"]
    # only the best checkpoint's numbers and figures are shown in TensorBoard and trackers
    album = Album(run.figures, FinalEvents(run.path)) if which == "best" else Album(run.figures / which)
    make_tracker = maker(config) if which == "best" else None
    with run.held(), named(run.path):
        if (state := run.read_status()).get("state") != "complete":
            log.warning("%s: its training is not complete (epoch %s)", run, state.get("epoch", "unknown"))
        remove_temporaries(run.path)
        parts = _assembled(config, device)
        about = tracked(run, config, hparams(config, parts.data.batch_size))
        with reporting(make_tracker, about) as album.reporter:
            if album.reporter:
                report_history(album.reporter, run.read_history())
            results = measure(run, identity, config, parts, which, album, force=force, draw=force)
            if album.reporter:
                report_files(album.reporter, run)
        return results
