"""Measure and draw a trained VAE from its checkpoint, at the end of training or later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmvae.assembly import Parts, fitted_samplers
from fmvae.common.phases import phase
from fmvae.config.identity import RunIdentity
from fmvae.errors import RunError
from fmvae.evaluation.partial import Partials
from fmvae.evaluation.samplers import fit_settings
from fmvae.measurement.explorer import explore_run, explorer_of
from fmvae.measurement.sampling import Which, sampler_store, sources
from fmvae.runs.checkpoint import WAY_OUT, Checkpoint, load_checkpoint
from fmvae.runs.directory import RunDirectory
from fmvae.runs.provenance import provenance
from fmvae.runs.recorder import Album
from fmvae.runs.results import Results, flat_scalars
from fmvae.runs.resuming import check_data, check_owner
from fmvae.visualization import (
    Appearance,
    appearing,
    measure_figures,
    projector_data,
    result_animations,
    result_figures,
    samplers_drawn,
    write_projector,
)


def measure(
    run: RunDirectory,
    identity: RunIdentity,
    config: Mapping[str, Any],
    parts: Parts,
    which: Which,
    album: Album,
    *,
    force: bool = False,
    draw: bool = False,
) -> dict[str, Any]:
    """Measure a run's checkpoint on the test split and draw its figures; write its results and fid files.

    Numbers already measured with the same checkpoint, data and settings are kept. A measure with new settings
    replaces its earlier numbers; measures that are not requested are kept.

    Args:
        identity: of the run, by its config.
        which: the checkpoint. ``best`` writes results.json, ``last`` results.last.json.
        album: writes the figures, and shows the numbers in TensorBoard.
        force: measure everything again.
        draw: draw figures even if no number is new.

    Returns:
        The written results: all numbers with their settings and provenance.
    """
    checkpoint = load_best_or_last(run, identity, parts, which)
    suffix = "" if which == "best" else f".{which}"
    results_path, fid_path = (file.with_suffix(f"{suffix}.json") for file in (run.results, run.fid))
    epoch = checkpoint.meta["epoch"]
    source = {
        "run": run.path.name,
        "config_sha256": identity.sha256,
        "checkpoint": {"which": which, "epoch": epoch, "sha256": checkpoint.sha256},
    }
    results = Results(source, parts.data.sha256)
    results.read(results_path)

    def write() -> dict[str, Any]:
        row = checkpoint.meta["history"][epoch - 1]
        return results.write(results_path, fid_path, training_of(checkpoint), validation=row)

    known = {} if force else dict(results.measures)
    here = provenance(parts.data.device, config)
    # without the commit, which must not discard hours: FORMAT in partial.py tells changes of the code that matter
    where = {name: value for name, value in here.items() if name != "git"}
    key = {**source, "data_sha256": parts.data.sha256, "where": where}
    parts.evaluator.context.partials = partials = Partials(run.partial, key, anew=force)
    parts.evaluator.context.samplers = sampler_store(run, which, parts, config, checkpoint.sha256, anew=force)
    new = False
    for name, block in parts.evaluator.measure(known, results.measures.keys()):
        if block != known.get(name):
            results.measures[name], results.origins[name], new = block, here, True
            write()  # write after each measure: they take minutes, and a kill must not lose them
            partials.done(name)
    evaluation = config["evaluation"]
    shown = samplers_drawn(config["figures"], fitted_samplers(evaluation))
    settings = {key: value for key, value in config["figures"].items() if key != "explorer"}  # no album picture
    drawn = {"settings": settings, "checkpoint_sha256": checkpoint.sha256}
    drawn |= {"samplers": {name: fit_settings(evaluation, name) for name in shown}} if shown else {}
    changed = new or draw or not album.holds(drawn)
    if changed:
        _draw(config, parts, checkpoint, results.measures, album)
        album.note(drawn)
    written = write()
    page = explorer_of(run, which)
    if config["figures"].get("explorer") and (changed or not page.exists()):
        visualizer = parts.visualizer.at_epoch(epoch)
        fits = sources(parts.evaluator.context, evaluation, fitted_samplers(evaluation))
        explore_run(page, parts, visualizer, written, fits)
    album.show(flat_scalars(written), epoch)
    return written


def training_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the provenance of a checkpoint's training, with the number of epochs in a stack if there are any."""
    stacked = checkpoint.meta.get("stacked_epochs")
    return {**checkpoint.meta["provenance"], **({"stacked_epochs": stacked} if stacked else {})}


def _draw(
    config: Mapping[str, Any],
    parts: Parts,
    checkpoint: Checkpoint,
    measures: Mapping[str, Any],
    album: Album,
) -> None:
    settings, data, evaluation = config["figures"], parts.data, config["evaluation"]
    fits = sources(parts.evaluator.context, evaluation, fitted_samplers(evaluation))
    visualizer = parts.visualizer.at_epoch(checkpoint.meta["epoch"])
    posteriors = visualizer.posteriors(data.test)
    history = checkpoint.meta["history"]
    look = Appearance.of(settings)
    with appearing(look):
        for name, figure in result_figures(visualizer, data, history, settings, posteriors, fits, measures):
            album.figure(name, figure, look.formats, look.dpi)
        for name, figure in measure_figures(visualizer, measures, settings, data.train.factors):
            album.figure(name, figure, look.formats, look.dpi)
    for name, content in result_animations(visualizer, data, settings, posteriors, fits):
        album.file(name, content)
    if settings["projector"] and album.events:
        with phase("TensorBoard's projector", minor=True):
            embedding = projector_data(visualizer, data.test, settings["projector"], posteriors)
            write_projector(album.events.directory, embedding)


def load_best_or_last(run: RunDirectory, identity: RunIdentity, parts: Parts, which: Which) -> Checkpoint:
    """Load a checkpoint's weights into the model of ``parts``, after a check that it belongs to this run."""
    path = run.best if which == "best" else run.last
    checkpoint = load_checkpoint(path)
    check_owner(path, checkpoint, identity.sha256)
    check_data(path, checkpoint, parts.data.sha256)
    epoch = checkpoint.meta["epoch"]
    if which == "best" and (best := checkpoint.meta.get("best", epoch)) != epoch:
        raise RunError(path, f"of epoch {epoch}, but the best was {best}", WAY_OUT)
    parts.load(checkpoint.tensors)
    return checkpoint
