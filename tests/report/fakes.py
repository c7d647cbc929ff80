"""Run directories that were never trained, for the tests of reports."""

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from fmvae.common.digests import digest
from fmvae.config import compose
from fmvae.config.identity import RunIdentity, semantic
from fmvae.runs.recorder import render
from fmvae.visualization.tiles import show_tiles

# groups of a config as those in conf/ make them; nothing builds them here
TC = {"_target_": "fmvae.objectives.BetaTCVAE", "_name_": "tc", "alpha": 1.0, "gamma": 1.0, "estimate": "mss"}
FACTOR = {"_target_": "fmvae.objectives.FactorVAE", "_name_": "factor", "latent_dim": 2, "gamma": 10.0, "depth": 6}
INFO = {"_target_": "fmvae.objectives.InfoVAE", "_name_": "info", "alpha": 0.0, "lam": 1000.0}
VAMP = {"_target_": "fmvae.models.VampPrior", "_name_": "vamp", "num_components": 500}


@cache
def _composed(*overrides: str) -> dict[str, Any]:
    return compose(overrides)


def write_run(
    folder: Path,
    *overrides: str,
    beta: float = 1.0,
    z: int = 2,
    seed: int = 0,
    split: int | None = None,
    state: str = "complete",
    fid: float | None = 8.0,
    accuracy: float | None = None,
    loss: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    decomposition: Mapping[str, float] | None = None,
    blocks: Mapping[str, Any] | None = None,
    **test: float,
) -> Path:
    """A run directory. ``test`` are the numbers of its results, a few are made up from beta, z and the seed.

    ``loss`` and ``prior`` are these groups of its config, ``decomposition`` is that block of its results.
    ``blocks`` replaces blocks of its results by path, such as ``fid/pixels``; None leaves a block out.
    """
    config = copy.deepcopy(_composed(*overrides))
    config["beta"]["value"] = beta
    config["latent_dim"]["value"] = config["model"]["latent_dim"] = z
    config["seed"], config["data"]["seed"] = seed, seed if split is None else split
    for group, given in (("loss", loss), ("prior", prior)):
        if given is not None:
            config[group] = dict(given)
    identity = semantic(config)
    path = folder / RunIdentity.of(identity).name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "status.json").write_text(json.dumps({"state": state, "epoch": 3, "epochs": 30}))
    recon, kl = 250 - z + beta + 0.1 * seed**2, 10 + z / (1 + beta) + 0.01 * seed
    numbers = {"recon": recon, "kl": kl, "neg_elbo": recon + kl, "objective": recon + beta * kl} | test
    results: dict[str, Any] = {
        "run": path.name,
        "config_sha256": RunIdentity.of(identity).sha256,
        "test": {**numbers, "num_images": 10_000, "settings": {}},
        "iwae": {"iwae_64": recon + kl - 1, "num_images": 1000, "settings": {"num_samples": 64}},
        "latent": {"active_units": z, "num_images": 10_000, "settings": {}},
    }
    if fid is not None:
        block = {"generation": fid, "floor": 0.125, "num_images": 5000, "settings": {"num_images": 5000}}
        results["fid"] = {"resnet18": block}
    if accuracy is not None:
        results["accuracy"] = {"generated": {"overall": accuracy, "num_images": 5000}, "settings": {}}
    if decomposition is not None:
        # ``columns``, as a user's measure has, so that the numbers are read even if no column is listed for them
        results["decomposition"] = {**decomposition, "columns": [], "settings": {}}
    for name, block in (blocks or {}).items():
        *parents, leaf = name.split("/")
        node = results
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = block
        if block is None:
            del node[leaf]
    if state == "complete":
        # write_record would wait for the disk, hundreds of times
        (path / "results.json").write_text(json.dumps({**results, "content_sha256": digest(results)}))
    return path


def edit_status(run: Path, **changes: Any) -> None:
    status = json.loads((run / "status.json").read_text()) | changes
    (run / "status.json").write_text(json.dumps(status))


def write_figure(run: Path, name: str, shade: float | tuple[float, float, float]) -> None:
    """A titled figure of 2 x 3 tiles of one grey, or of one colour (RGB), on black, like those of the package."""
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / f"{name}.png").write_bytes(_figure(shade))


@cache
def _figure(shade: float | tuple[float, float, float]) -> bytes:
    tiles = np.zeros((60, 90, 3) if isinstance(shade, tuple) else (60, 90), np.float32)
    tiles[5:25, 5:25] = shade
    tiles[:, 29::30] = np.nan
    figure = Figure(figsize=(5, 4), layout="constrained")
    show_tiles(figure.subplots(), tiles)
    figure.suptitle("A title\nof two lines, as long as it can be")
    return render(figure)
