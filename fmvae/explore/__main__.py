"""Explore latent spaces in the browser: ``python -m fmvae.explore outputs/<run>``, or a folder of runs."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fmvae.common.command import run_command, say
from fmvae.common.logs import Terminal
from fmvae.common.text import short
from fmvae.common.text import typed_path as path
from fmvae.errors import ConfigError, FmvaeError, RunError
from fmvae.explore import NAME
from fmvae.runs.names import run_path

MOST = 16  # runs on a page: each brings a decoder
log = logging.getLogger("fmvae")


def explore(arguments: Sequence[str]) -> Path:
    """Write the page that the arguments ask for; return its path."""
    parser = argparse.ArgumentParser(
        prog="python -m fmvae.explore",
        description="Write explorer.html: sliders for the latent dimensions of a run, decoded in the page. "
        "Of several runs, or a folder of them, the images stand side by side.",
    )
    parser.add_argument("run", nargs="+", type=run_path, help="a run's directory, or a folder of runs")
    parser.add_argument("--to", type=path, help="the file; usually explorer.html in the (first) folder given")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or auto; it encodes images")
    parser.add_argument("--allow", action="append", default=[], help="a package of your own that configs may name")
    given = parser.parse_args(arguments)
    # torch, which --help need not wait for
    from fmvae.explore.page import write_explorer

    subjects, left_out = _subjects(given.run, given.device, given.allow)
    return write_explorer(given.to or given.run[0] / NAME, subjects, left_out)


def _subjects(paths: Sequence[Path], device: str, allow: Sequence[str]) -> tuple[list[Any], list[tuple[str, str]]]:
    """Return the runs to show, and the names of the others in the folders with the reason."""
    from fmvae.report.collect import collect, states
    from fmvae.report.labels import labels_of

    alone = len(paths) == 1 and (paths[0] / "config.yaml").is_file()
    found = collect(paths)
    runs = [run for run in found if run.complete]
    begun = [run for run in found if run.state != "new"]
    left_out = [(run.name, f"{run.state}: {run.reason}") for run in begun if not run.complete]
    if planned := len(found) - len(begun):
        left_out.append((f"{planned} planned", "not begun yet"))
    if alone and left_out:  # load_run says what is wrong with it
        return [_subject(found[0].directory.path, "", device, allow)], []
    if not runs:
        problem = f"no complete run in it ({states(found)})"
        raise FmvaeError(short(paths[0]), problem, "train one to its end first")
    if len(runs) > MOST:
        way_out = f"name some of them, at most {MOST}, one after another"
        raise ConfigError("run", f"{len(runs)} runs are too many for a page", way_out)
    labels = labels_of(runs) if len(runs) > 1 else [""]
    subjects = []
    for run, label in zip(runs, labels, strict=True):
        try:
            subjects.append(_subject(run.directory.path, label, device, allow))
        except RunError as error:
            if len(runs) == 1:
                raise
            log.warning("%s: left out: %s", run.name, error.problem)
            left_out.append((run.name, error.problem))
    if not subjects:
        raise FmvaeError(short(paths[0]), "no run in it can be loaded", "see the lines above")
    return subjects, left_out


def _subject(directory: Path, label: str, device: str, allow: Sequence[str]) -> Any:
    from fmvae.explore.content import Subject
    from fmvae.measurement.explorer import facts_of
    from fmvae.measurement.load import load_run

    log.info("%s", short(directory))
    loaded = load_run(directory, device=device, allow=allow)
    visualizer, data = loaded.parts.visualizer, loaded.parts.data
    return Subject(directory.name, visualizer, data, label, facts_of(loaded.results), _sources(loaded))


def _sources(loaded: Any) -> Mapping[str, Callable[[], Any]]:
    """Return the samplers that the run was measured with and whose fits are in its directory."""
    from fmvae.evaluation.columns import SAMPLERS
    from fmvae.measurement.sampling import in_words, settings_of
    from fmvae.visualization import Source

    store, found = loaded.parts.evaluator.context.samplers, {}
    kept = [file.stem for file in sorted(loaded.run.samplers.glob("*.safetensors")) if file.stem in SAMPLERS]
    for name in dict.fromkeys([*loaded.results.get("samplers", {}), *kept]):
        if name == "prior":
            continue
        settings = settings_of(loaded.results, loaded.config["evaluation"], name)
        try:
            sampler = store.read(name, settings) if name != "aggregate" else store.get(name, settings)
        except FmvaeError as error:
            log.warning("%s: no draws from %s: %s", loaded.run, name, error.problem)
            continue
        found[name] = partial(Source, in_words(sampler), sampler.sample)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Terminal()])
        say(explore(sys.argv[1:] if arguments is None else arguments))
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
