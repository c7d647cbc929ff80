"""One run, from its config to its results: what train.py calls."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmvae.assembly import Parts, assemble, set_up_torch
from fmvae.config import build, semantic, to_yaml
from fmvae.errors import FmvaeError
from fmvae.measurement import describe, measure
from fmvae.models import VAE
from fmvae.runs import Checkpoint, Recorder, RunDirectory, config_sha256, run_name
from fmvae.runs.files import read_record, remove_temporaries, write_bytes
from fmvae.runs.observer import Observer
from fmvae.runs.provenance import provenance
from fmvae.training import Checkpointer, ConditionalVAETrainer, EpochLog, ProgressBar, VAETrainer
from fmvae.visualization import FigureObserver

log = logging.getLogger("fmvae")


def train(config: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Bring the run of this config to its end, from wherever it stands; returns its results.

    Raises:
        FmvaeError: see the errors of the parts; the run directory says the same in status.json and train.log.
    """
    identity = semantic(config)
    sha256 = config_sha256(identity)
    run = RunDirectory(Path(config["output_root"]) / (config["sweep_name"] or "") / run_name(identity))
    device = set_up_torch(config)
    with run.held():
        if config["restart"] and (aside := run.move_aside()):
            log.info("moved the run there was to %s", aside)
        if run.state(sha256) == "complete":
            log.info("complete: %s (restart=true trains it anew)", run)
            return _show(run)
        # everything a config can be wrong about is built before anything is written
        parts = assemble(config, device)
        optimization = _optimization(config, parts.model)
        checkpoint = run.newest_checkpoint(sha256)
        run.path.mkdir(parents=True, exist_ok=True)
        remove_temporaries(run.path)
        with logging_to(run), reporting_failure(run):
            write_bytes(run.config, to_yaml(config).encode())
            write_bytes(run.overrides, to_yaml_list(overrides).encode())
            _train(
                run,
                config,
                parts,
                optimization,
                checkpoint,
                {"run": run.path.name, "config_sha256": sha256, "config": identity},
            )
        return _show(run)


def _train(
    run: RunDirectory,
    config: Mapping[str, Any],
    parts: Parts,
    optimization: tuple[Optimizer, LRScheduler | None],
    checkpoint: Checkpoint | None,
    identity: Mapping[str, Any],
) -> None:
    settings = config["trainer"]
    epoch = checkpoint.meta["epoch"] if checkpoint else 0
    recorder = Recorder(run, epoch, to_yaml(config), _hparams(config))
    at_terminal = settings["progress"] and sys.stderr.isatty()
    observers: list[Any] = [
        EpochLog(run),
        *([ProgressBar()] if at_terminal else []),
        recorder,
        FigureObserver(parts.visualizer, parts.data, recorder, config["figures"]),
        Checkpointer(run, {**identity, "provenance": provenance(parts.data.device)}, settings["checkpoint_every"]),
    ]
    trainer = _trainer(config, parts, optimization, observers)
    if checkpoint:
        trainer.load_state(checkpoint.tensors, checkpoint.meta)
        recorder.write_history(trainer.history)
        log.info("resuming %s after epoch %d of %d", run, trainer.epoch, trainer.epochs)
    else:
        log.info("training %s on %s", run, parts.data.device)
    run.write_status("running", epoch=trainer.epoch, epochs=trainer.epochs)
    with _above_the_bar(at_terminal):
        trainer.train()

    results = measure(
        run, config, parts, "best", show=lambda name, figure: recorder.figure(name, figure, trainer.epoch)
    )
    recorder.scalars(flat_scalars(results), trainer.epoch)
    recorder.close(complete=True)
    run.write_status("complete", epoch=trainer.epoch, epochs=trainer.epochs)


def _optimization(config: Mapping[str, Any], model: VAE) -> tuple[Optimizer, LRScheduler | None]:
    optimizer = build(config["optimizer"], "optimizer", Optimizer, params=list(model.parameters()))
    if not config.get("scheduler"):
        return optimizer, None
    return optimizer, build(config["scheduler"], "scheduler", LRScheduler, optimizer=optimizer)


def _trainer(
    config: Mapping[str, Any],
    parts: Parts,
    optimization: tuple[Optimizer, LRScheduler | None],
    observers: Sequence[Observer],
) -> VAETrainer:
    settings = config["trainer"]
    trainer = ConditionalVAETrainer if parts.model.conditional else VAETrainer
    return trainer(
        parts.model,
        parts.objective,
        parts.data,
        *optimization,
        epochs=settings["epochs"],
        seed=config["seed"],
        validate_every=settings["validate_every"],
        patience=settings["patience"],
        max_grad_norm=settings["max_grad_norm"],
        observers=observers,
    )


def _hparams(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which people compare runs, flat."""
    return {
        "model": config["model"]["_name_"],
        "beta": config["beta"]["value"],
        "beta_schedule": config["beta"]["_target_"].rsplit(".", 1)[-1].lower(),
        "latent_dim": config["latent_dim"]["value"],
        "likelihood": config["likelihood"]["_target_"].rsplit(".", 1)[-1],
        "epochs": config["trainer"]["epochs"],
        "batch_size": config["data"]["batch_size"],
        "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
        "lr": config["optimizer"]["lr"],
        "seed": config["seed"],
    }


@contextmanager
def logging_to(run: RunDirectory) -> Iterator[None]:
    """Everything logged inside goes into the run's train.log too, with the time."""
    handler = logging.FileHandler(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


@contextmanager
def reporting_failure(run: RunDirectory) -> Iterator[None]:
    """Leave the reason of a failure in status.json, and its traceback in train.log alone."""
    try:
        yield
    except BaseException as error:
        kind = "failed" if isinstance(error, Exception) else "interrupted"
        reason = str(error) if isinstance(error, FmvaeError) else f"{type(error).__name__}: {error}"
        try:
            run.write_status(kind, error=reason, epoch=run.read_status().get("epoch", 0))
            with open(run.log, "a", encoding="utf-8") as file:
                traceback.print_exception(error, file=file)
        except OSError as second:  # a full disk must not hide what happened
            log.warning("%s: %s", run.status, second)
        raise


def _above_the_bar(at_terminal: bool):
    """Log lines above a progress bar instead of through it."""
    if not at_terminal:
        return nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm

    return logging_redirect_tqdm()


def to_yaml_list(overrides: Sequence[str]) -> str:
    """The command line's overrides in their native form, one a line."""
    return "".join(f"- {json.dumps(override)}\n" for override in overrides) or "[]\n"


def flat_scalars(results: Mapping[str, Any]) -> dict[str, float]:
    """The final numbers as ``test/<measure>`` and ``fid/<features>/<what>``."""
    test = {f"test/{name}": value for name, value in results["test"].items() if isinstance(value, float)}
    fid = results.get("fid", {})
    return test | {
        f"fid/{features}/{name}": value
        for features, block in fid.items()
        for name, value in block.items()
        if isinstance(value, float)
    }


def _show(run: RunDirectory) -> dict[str, Any]:
    """Log a complete run's results, and return them."""
    results = read_record(run.results)
    log.info("%s", describe(run, results))
    return results
