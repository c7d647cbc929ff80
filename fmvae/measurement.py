"""A trained run's numbers and figures, from its checkpoint: at the end of training, and whenever asked again."""

from __future__ import annotations

import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fmvae.assembly import Parts, assemble, set_up_torch
from fmvae.config import read_config, semantic, validate
from fmvae.data import FashionMNISTManager
from fmvae.errors import ConfigError
from fmvae.evaluation import evaluate
from fmvae.runs import RunDirectory, config_sha256, load_checkpoint
from fmvae.runs.checkpoint import load_model
from fmvae.runs.files import write_bytes, write_record
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import render
from fmvae.visualization import result_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Which = Literal["best", "last"]
log = logging.getLogger("fmvae")


def measure(
    run: RunDirectory,
    config: Mapping[str, Any],
    parts: Parts,
    which: Which,
    show: Callable[[str, Figure], object],
) -> dict[str, Any]:
    """Measure a run's checkpoint on the test split and draw it; writes its results and fid files.

    Args:
        which: the checkpoint. ``best`` writes results.json, ``last`` results.last.json.
        show: called with the name and figure of each picture.

    Returns:
        What was written: every number, with what it was measured on and where it comes from.
    """
    path = run.best if which == "best" else run.last
    checkpoint = load_checkpoint(path)
    sha256 = config_sha256(semantic(config))
    run.check_owner(path, checkpoint, sha256)
    load_model(parts.model, checkpoint.tensors)

    asked = config["evaluation"]["fid"]["num_images"]
    num_images = fid_images(parts.data) if asked is None else asked
    measures = dict(evaluate(parts.model, parts.objective, parts.data, seed=config["seed"], fid_images=num_images))
    for name, figure in result_figures(
        parts.visualizer, parts.data, checkpoint.meta["history"], config["figures"]
    ):
        show(name, figure)

    epoch = checkpoint.meta["epoch"]
    results = {
        "run": run.path.name,
        "config_sha256": sha256,
        "checkpoint": {"which": which, "epoch": epoch, "sha256": checkpoint.sha256},
        "validation": checkpoint.meta["history"][epoch - 1],
        **measures,
        "provenance": {
            "training": checkpoint.meta["provenance"],
            "evaluation": provenance(parts.data.device),
            "data_sha256": parts.data.sha256,
        },
    }
    suffix = "" if which == "best" else f".{which}"
    if "fid" in measures:
        source = {key: results[key] for key in ("run", "config_sha256", "checkpoint", "provenance")}
        write_record(run.fid.with_suffix(f"{suffix}.json"), {**measures["fid"], **source})
    write_record(run.results.with_suffix(f"{suffix}.json"), results)
    return results


def fid_images(data: FashionMNISTManager) -> int:
    """How many images a Fréchet distance compares unless told: 10,000, or what there is; 0 if that is too few."""
    available = min(10_000, len(data.test), len(data.train))
    if available > math.prod(data.image_shape):
        return available
    log.warning("FID is left out: %d images cannot give a covariance of %s pixels", available, data.image_shape)
    return 0


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
        config = read_config(run.config)
        if settings["data_root"]:
            config["data"]["root"] = settings["data_root"]
        config |= {key: settings[key] for key in ("evaluation", "figures")}
        _check_identity(run, config)
        which: Which = settings["checkpoint"]
        figures = run.figures if which == "best" else run.figures / which

        def save(name: str, figure: Figure, directory: Path = figures) -> None:
            write_bytes(directory / f"{name}.png", render(figure))

        with run.held():
            results = measure(run, validate(config), assemble(config, device), which, save)
        log.info("%s", describe(run, results))
        all_results.append(results)
    return all_results


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


def describe(run: RunDirectory, results: Mapping[str, Any]) -> str:
    """A run's results as a small table for the terminal, and where to look further."""
    test, checkpoint = results["test"], results["checkpoint"]
    rows = [
        ("objective", test["objective"], test["objective_at_mean"]),
        ("recon", test["recon"], test["recon_at_mean"]),
        ("KL", test["kl"], None),
        ("-ELBO", test["neg_elbo"], None),
    ]
    lines = [
        "",
        f"{run.path.name}: {checkpoint['which']} checkpoint, epoch {checkpoint['epoch']}",
        "",
        f"  test, {test['num_images']:,} images    z sampled   z at the mean   (nats per image)",
    ]
    for name, sampled, mean in rows:
        at_mean = f"{mean:>16.2f}" if mean is not None else ""
        lines.append(f"  {name:<22}{sampled:>12.2f}{at_mean}".rstrip())
    for features, block in results.get("fid", {}).items():
        title = f"FID in {features}, {block['num_images']:,}"
        lines += ["", f"  {title:<22}  generation  reconstruction  floor (train images)"]
        lines.append(
            f"  {'':<22}{block['generation']:>12.3f}{block['reconstruction']:>16.3f}{block['floor']:>8.3f}"
        )
    lines += [
        "",
        f"  results      {run}/results.json",
        f"  figures      {run}/figures/",
        f"  TensorBoard  {_tensorboard()} --logdir {RunDirectory(run.path.parent)}",
        "",
    ]
    return "\n".join(lines)


def _tensorboard() -> str:
    """The command as it can be typed here, whether or not the environment is activated."""
    beside_python = Path(sys.executable).with_name("tensorboard")
    on_path = shutil.which("tensorboard")
    if on_path and Path(on_path) == beside_python:
        return "tensorboard"
    return str(RunDirectory(beside_python)) if beside_python.exists() else "tensorboard"
