"""Load a finished run, for notebooks and for measuring it again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fmvae.assembly import Parts, assemble
from fmvae.common.text import typed_path
from fmvae.common.torch_setup import set_up_torch
from fmvae.config.composing import compose
from fmvae.config.known import takes
from fmvae.config.own_code import allowing
from fmvae.config.schema import validate
from fmvae.config.stored import ASKED_ANEW, read_config
from fmvae.errors import ConfigError, RunError
from fmvae.measurement.measure import Which, load_best_or_last
from fmvae.runs.directory import RunDirectory, find_runs, identify
from fmvae.runs.results import read_results

log = logging.getLogger("fmvae")


class LoadedRun(NamedTuple):
    """A finished run: its directory, config and results, and the objects of its config with trained weights."""

    run: RunDirectory
    config: dict[str, Any]
    results: dict[str, Any]
    parts: Parts


def load_run(
    path: str | Path, which: Which = "best", device: str = "auto", *, allow: Sequence[str] = ()
) -> LoadedRun:
    """Load the run in a directory, for example in a notebook; its model and objective are in evaluation mode.

    Args:
        allow: your own packages whose classes its config may name.

    Raises:
        ConfigError: there is no run, or its config was edited.
        RunError: it has no results yet, or its checkpoint is missing or damaged.
    """
    runs = find_runs(typed_path(str(path)))
    if len(runs) != 1:
        raise ConfigError("run", f"{str(path)!r} holds {len(runs)} runs", "name one of them")
    run = runs[0]
    usual = compose(["run=x"], "evaluate")  # the current keys, as an older version may have written the run
    config = with_data_at(run, read_config(run.config), None) | {key: usual[key] for key in ASKED_ANEW}
    config |= {"device": device}
    identity = identify(run, config)
    with allowing(allow):
        parts = assemble(validate(config), set_up_torch(config))
    checkpoint = load_best_or_last(run, identity, parts, which)
    for module in (parts.model, parts.objective):
        module.eval()
    parts = parts._replace(visualizer=parts.visualizer.at_epoch(checkpoint.meta["epoch"]))
    results = read_results(run.results if which == "best" else run.results.with_suffix(f".{which}.json"))
    if results["checkpoint"]["sha256"] != checkpoint.sha256:
        raise RunError(
            run, f"its results are not of its {which} checkpoint", f"run `python evaluate.py run={run}`"
        )
    return LoadedRun(run, config, results, parts)


def with_data_at(run: RunDirectory, config: dict[str, Any], root: str | None) -> dict[str, Any]:
    """Return a run's config with the folder of its dataset: ``root``, else the stored one, else None.

    Any folder will do, as the dataset is identified by the digests of its files. The config is not changed if the
    class of the data takes no ``root``.
    """
    stored = config["data"].get("root")
    if root is None and stored is None:
        return config
    if root is not None and not takes(config["data"], "root"):
        log.warning("%s: its data are not read from a folder; data_root=%s is not used", run, root)
        return config
    if root is None and stored and not typed_path(stored).exists():
        log.warning("%s: the dataset is no longer in %s; searching the default locations", run, stored)
        stored = None
    return config | {"data": {**config["data"], "root": root or stored}}
