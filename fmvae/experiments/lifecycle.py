"""The life cycle of a run: build or resume it, train, measure, finish. Used by train.py."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from fmvae.assembly import build_data
from fmvae.common import streams
from fmvae.common.disk import named
from fmvae.common.torch_setup import set_up_torch
from fmvae.config import own_code
from fmvae.config.building import find_class
from fmvae.config.identity import RunIdentity, is_vae
from fmvae.config.stored import NotAVAE, read_config, to_yaml
from fmvae.errors import ConfigError, FmvaeError
from fmvae.experiments.classifier import ClassifierExperiment
from fmvae.experiments.experiment import Experiment
from fmvae.experiments.run_log import logging_to, only_of, reporting_failure, to_yaml_list
from fmvae.experiments.vae import VAEExperiment
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint
from fmvae.runs.directory import MEASURING, RunDirectory
from fmvae.runs.files import make_directory, remove_temporaries, write_bytes
from fmvae.runs.hparams import first
from fmvae.runs.observer import added
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import Recorder, history_text
from fmvae.runs.results import read_results
from fmvae.runs.resuming import check_data, newest_checkpoint
from fmvae.runs.timing import Timing
from fmvae.runs.tracking import Reporter, reporting
from fmvae.runs.tracks import maker, report_files, tracked
from fmvae.training import Checkpointer, EpochLog, Guard, ProgressBar, Trainer

log = logging.getLogger("fmvae")


def train(config: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Start or resume the run of this config, complete it, and return its results.

    Raises:
        FmvaeError: any error of the run; it is also written to status.json and train.log in the run directory.
    """
    bars = nullcontext() if config["trainer"]["progress"] else streams.without_bars()
    with bars, attempt(config, overrides) as (run, trainer):
        if trainer:
            try:
                trainer.train()
            finally:
                streams.close_bars()
    return results(run, config)


@contextmanager
def attempt(
    config: dict[str, Any], overrides: Sequence[str] = ()
) -> Iterator[tuple[RunDirectory, Trainer | None]]:
    """Lock a run and yield it with its trainer, restored from the last checkpoint; None if the run is complete.

    The caller trains inside the block. When the block ends, the run is measured and marked as complete.
    """
    identity = RunIdentity.of(config)
    sha256 = identity.sha256
    run = RunDirectory(Path(config["output_root"]) / (config["sweep_name"] or "") / identity.name)
    with run.held(), named(run.path):
        # a failure to start a single run is visible in the terminal; for a run of a sweep, record it in its files
        with only_of(run), reporting_failure(run, config) if config["sweep_name"] else nullcontext():
            device = set_up_torch(config)
            if config["restart"] and (aside := run.move_aside()):
                log.info("moved the previous run to %s", aside)
            complete = run.state(sha256) == "complete"
            # build everything that can fail because of the config, before anything is written
            make_tracker = None if complete else maker(config)
            experiment = None if complete else _kind(config)(config, device)
            checkpoint = None if complete else newest_checkpoint(run, sha256)
            if experiment and checkpoint:
                check_data(run.path, checkpoint, experiment.trainer.data.sha256)
            elif complete:
                _check_named_data(run, config, device)
        if experiment is None:
            log.info("complete: %s (restart=true trains it anew)", run)
            _mend(run, config, overrides, identity)
            yield run, None
            return
        make_directory(run.path)
        remove_temporaries(run.path)
        about = tracked(run, config, experiment.hparams)
        with (
            logging_to(run),
            reporting_failure(run, config),
            named(run.path),
            reporting(make_tracker, about) as reporter,
        ):
            write_bytes(run.config, to_yaml(config).encode())
            write_bytes(run.overrides, to_yaml_list(overrides).encode())
            trainer = experiment.trainer
            whose: dict[str, Any] = {"run": run.path.name, "config_sha256": sha256, "config": identity.semantic}
            if not trainer.data.named_by_config:
                whose["data_sha256"] = trainer.data.sha256
            with only_of(run):
                recorder = _prepare(run, config, overrides, experiment, checkpoint, whose, reporter)
            try:
                yield run, trainer
            except OSError:
                run.check_held()  # if the directory was removed, report that instead
                raise
            run.check_held()
            begun = time.perf_counter()
            run.write_status("running", epoch=trainer.epoch, epochs=trainer.epochs, phase=MEASURING)
            experiment.measure(run, identity, recorder.album)
            Timing.read(run)._replace(measuring=time.perf_counter() - begun).write(run)
            recorder.close(complete=True)
            if reporter:
                report_files(reporter, run)
            run.write_status("complete", epoch=trainer.epoch, epochs=trainer.epochs)
            run.previous.unlink(missing_ok=True)  # no longer needed; saves space in sweeps of thousands of runs


def _check_named_data(run: RunDirectory, config: Mapping[str, Any], device: torch.device) -> None:
    """Refuse other images than a complete run was trained on, if its config does not say which."""
    kind = find_class(config["data"]["_target_"], "data")
    if not getattr(kind, "named_by_config", True):
        check_data(run.path, load_checkpoint(run.last), build_data(config, device).sha256)


def results(run: RunDirectory, config: Mapping[str, Any]) -> dict[str, Any]:
    """Read a complete run's results, and print them on the terminal."""
    found = read_results(run.results)
    log.info("%s", _kind(config).describe(run, found))
    return found


def _kind(config: Mapping[str, Any]) -> type[Experiment]:
    return VAEExperiment if is_vae(config) else ClassifierExperiment


def _mend(run: RunDirectory, config: Mapping[str, Any], overrides: Sequence[str], identity: RunIdentity) -> None:
    """Restore the config, overrides and metrics files of a complete run if they were changed or deleted."""
    try:
        same = RunIdentity.of(read_config(run.config)) == identity
    except NotAVAE:
        same = not is_vae(config)
    except ConfigError:
        same = False
    if not same:
        write_bytes(run.config, to_yaml(config).encode())
        write_bytes(run.overrides, to_yaml_list(overrides).encode())
    with suppress(FmvaeError):  # without the checkpoint the history is lost
        history = history_text(load_checkpoint(run.last).meta["history"])
        if not run.metrics.exists() or run.metrics.read_bytes() != history:
            write_bytes(run.metrics, history)


def _prepare(
    run: RunDirectory,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    experiment: Experiment,
    checkpoint: Checkpoint | None,
    identity: Mapping[str, Any],
    reporter: Reporter | None,
) -> Recorder:
    """Attach the observers to the trainer, and load the checkpoint if there is one."""
    settings = config["trainer"]
    trainer = experiment.trainer
    recorder = Recorder(
        run,
        checkpoint.meta["epoch"] if checkpoint else 0,
        to_yaml(config),
        experiment.hparams,
        experiment.metrics,
        experiment.layout,
        other_hparams=experiment.other_hparams,
        first=first(overrides, experiment.hparams),
        links=_links(config),
        reporter=reporter,
    )
    trainer.observers = [
        Guard(run),
        EpochLog(run),
        *([ProgressBar()] if _has_bar(config) else []),
        recorder,
        *experiment.observers(recorder),
        Checkpointer(
            run,
            {**identity, "provenance": _provenance(run, config, trainer, checkpoint)},
            settings["checkpoint_every"],
        ),
        *added(),
    ]
    if checkpoint:
        trainer.load_state(checkpoint.tensors, checkpoint.meta)
        recorder.write_history(trainer.history)
        recorder.catch_up(trainer.history)
        place = f"after epoch {trainer.epoch} of {trainer.epochs}"
        if trainer.within:
            place = f"in epoch {trainer.epoch + 1} of {trainer.epochs}, after step {trainer.within.step}"
        log.info("resuming %s %s", run, place)
    else:
        log.info("training %s on %s", run, trainer.data.device)
    run.write_status("running", epoch=trainer.epoch, epochs=trainer.epochs)
    return recorder


def _links(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the pages that belong to a run: their paths from its directory, by what they are."""
    pages = {"explorer": "explorer.html"} if is_vae(config) else {}
    return {**pages, "report of the sweep": "../report/index.html"} if config["sweep_name"] else pages


def _provenance(
    run: RunDirectory, config: Mapping[str, Any], trainer: Trainer, checkpoint: Checkpoint | None
) -> dict[str, Any]:
    """Return the provenance of this training; warn if a resumed run uses changed own code, and record both."""
    here = provenance(trainer.data.device, config)
    if checkpoint and "own_code" in here:
        known, changed = own_code.carried_on(checkpoint.meta["provenance"].get("own_code", {}), here["own_code"])
        here["own_code"] = known
        for package in changed:
            log.warning(
                "%s: the code of %s has changed since training began; restart=true trains it anew", run, package
            )
    return here


def _has_bar(config: Mapping[str, Any]) -> bool:
    return config["trainer"]["progress"] and streams.is_terminal(sys.stderr)
