"""Load a finished run, for notebooks and for measuring it again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.assembly import Parts, assemble
from fmvae.common.text import typed_path
from fmvae.common.torch_setup import set_up_torch
from fmvae.config.composing import compose
from fmvae.config.known import takes
from fmvae.config.own_code import allowing
from fmvae.config.schema import validate
from fmvae.config.stored import ASKED_ANEW, read_config
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.columns import SAMPLERS
from fmvae.evaluation.features import generated_images
from fmvae.measurement.measure import load_best_or_last
from fmvae.measurement.sampling import Which, held_if_free, sampler_store, settings_of
from fmvae.models.modes import in_evaluation_mode
from fmvae.runs.directory import RunDirectory, find_runs, identify
from fmvae.runs.names import run_path
from fmvae.runs.results import read_results

log = logging.getLogger("fmvae")


class LoadedRun(NamedTuple):
    """A finished run: its directory, config and results, and the objects of its config with trained weights."""

    run: RunDirectory
    config: dict[str, Any]
    results: dict[str, Any]
    parts: Parts

    def sample(
        self,
        num: int,
        sampler: str = "prior",
        labels: int | Sequence[int] | np.ndarray | Tensor | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Generate images (num, C, H, W) in [0, 1]: decoder means, on the run's device.

        With the run's seed, the same number and the same labels, the images are those of the run's measures, bit
        for bit, and those of its figures of samples.

        A sampler is fitted with the settings of the run's results, or else with the usual ones. Its fit is read
        from the run's directory. A new fit is written there under the run's lock, as by ``evaluate.py``. If
        another process holds the lock, or the directory may not be written, it is kept in memory.

        Args:
            num: >= 1.
            sampler: from what latents are drawn: ``prior``, ``gmm``, ``flow``, ``two_stage`` or ``aggregate``.
            labels: for a conditional model, the class of all images, or of each.
            seed: of the draws; None is the run's seed.

        Raises:
            ConfigError: an argument is unknown, out of range, missing or not needed.
            RunError: the posteriors cannot be fitted.
        """
        if type(num) is not int or num < 1:
            raise ConfigError("sample", f"num is {num!r}", "give a whole number of images, 1 or more")
        if sampler not in SAMPLERS:
            raise ConfigError("sample", f"there is no sampler {sampler!r}", f"choose from {', '.join(SAMPLERS)}")
        context = self.parts.evaluator.context
        asked = self._labels(num, labels)
        draws = None
        if sampler != "prior":  # the model's own draws are those of the measures
            fit = settings_of(self.results, self.config["evaluation"], sampler)
            draws = context.samplers.get(sampler, fit).sample
        stream = rng.stream(self.config["seed"] if seed is None else seed, "sampling", device=context.device)
        model, likelihood = context.model, context.objective.likelihood
        with in_evaluation_mode(context.model, context.objective):
            return torch.cat([*generated_images(model, likelihood, asked, stream, draws)])

    def _labels(self, num: int, labels: int | Sequence[int] | np.ndarray | Tensor | None) -> Tensor:
        """Return the label of each image (num,), after checks; zeros for a model without labels."""
        data, device = self.parts.data, self.parts.data.device
        if not self.parts.model.conditional:
            if labels is not None:
                problem = f"labels are given, but {self.config['model']['_name_']} takes none"
                raise ConfigError("sample", problem, "leave them out, or load a conditional model")
            return torch.zeros(num, dtype=torch.int64, device=device)
        way_out = f"give one in [0, {data.num_classes}), or {num} of them"
        if labels is None:
            raise ConfigError("sample", "no labels, and this model is conditional", way_out)
        try:
            given = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise ConfigError("sample", f"labels {labels!r}", way_out) from None
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            raise ConfigError("sample", f"labels of type {given.dtype}", way_out)
        if given.shape not in ((), (num,)):
            raise ConfigError("sample", f"labels of shape {tuple(given.shape)} for {num} images", way_out)
        for label in (int(given.min()), int(given.max())):
            if not 0 <= label < data.num_classes:
                raise ConfigError("sample", f"label {label}", way_out)
        return given.to(device, torch.int64).expand(num)


def load_run(
    path: str | Path, which: Which = "best", device: str = "auto", *, allow: Sequence[str] = ()
) -> LoadedRun:
    """Load the run in a directory, for example in a notebook; its model and objective are in evaluation mode.

    Args:
        path: of the run, or a short name: ``last``, or the beginning of its name in ``outputs/``.
        allow: your own packages whose classes its config may name.

    Raises:
        ConfigError: there is no run, or its config was edited.
        RunError: it has no results yet, or its checkpoint is missing or damaged.
    """
    runs = find_runs(run_path(str(path)))
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
    parts.evaluator.context.samplers = sampler_store(
        run, which, parts, config, checkpoint.sha256, may_write=lambda: held_if_free(run)
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
