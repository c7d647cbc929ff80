"""Find the runs that docs/results.md shows, in folders of runs or among its copies, and keep copies of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fmvae.config import compose
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.stored import to_yaml
from fmvae.errors import FmvaeError
from fmvae.report.tables import Found, Row, model_of
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes
from fmvae.runs.results import blocks, read_results


def find(
    folder: Path, kept: Path, overrides: Sequence[str], title: str | None = None, seeds: Sequence[str] = ()
) -> Row:
    """Return a row with the complete runs of these overrides, from ``folder``, one of its sweeps, or ``kept``.

    Args:
        kept: the folder with the page's copies of runs; the runs themselves may be on other machines.
        title: of the row; None makes one from the model, z, beta and epochs.
        seeds: overrides such as ``seed=0``, one for each run to find; empty leaves the seed to ``overrides``.
    """
    jobs = [[*overrides, seed] for seed in seeds] or [list(overrides)]
    configs = [compose(job) for job in jobs]
    if title is None:
        config = configs[0]
        z, beta, epochs = config["latent_dim"]["value"], config["beta"]["value"], config["trainer"]["epochs"]
        title = f"{model_of(config)}, z = {z}, β = {beta:g}, {epochs} epochs"
    found = [
        one for job, config in zip(jobs, configs, strict=True) if (one := found_run(folder, kept, job, config))
    ]
    return Row(title, command_of(jobs[0]), tuple(found))


def found_run(folder: Path, kept: Path, job: Sequence[str], config: Mapping[str, Any]) -> Found | None:
    """Return the complete run of a job with this config, as ``find`` looks for it; None if there is none."""
    name = RunIdentity.of(config).name
    read = _complete(folder, name) or _kept(kept / name)
    return Found(command_of(job), *read) if read else None


def command_of(overrides: Sequence[str]) -> str:
    """Return the command that trains the run of these overrides."""
    sweep = any(override.startswith("sweep=") for override in overrides)
    return f"python train.py {'-m ' * sweep}{' '.join(overrides)}"


def _complete(folder: Path, name: str) -> tuple[RunDirectory, dict[str, Any]] | None:
    for run in map(RunDirectory, (folder / name, *sorted(folder.glob(f"*/{name}")))):
        if run.config.exists() and (results := run.final_results()) and "settings" in results["test"]:
            return run, results  # results without settings are of an older version
    return None


def _kept(path: Path) -> tuple[RunDirectory, dict[str, Any]] | None:
    run = RunDirectory(path)
    return (run, read_results(run.results)) if run.config.exists() and run.results.exists() else None


def check_comparable(folder: Path, kept: Path, rows: Sequence[Row]) -> None:
    """Refuse runs that were not all measured with the same settings (extractor, number of images).

    Raises:
        FmvaeError: the settings of a run differ from those of the runs before it.
    """
    for measure in dict.fromkeys(name for row in rows for one in row.found for name in blocks(one.results)):
        usual = None
        for one in (one for row in rows for one in row.found):
            settings = one.at(f"{measure}/settings")
            usual = usual or settings
            if settings and settings != usual:
                problem = f"its {measure} was measured with {settings}, that of others with {usual}"
                way_out = (
                    f"measure all alike: python evaluate.py run={folder}; delete from {kept} what is not there"
                )
                raise FmvaeError(one.run, problem, way_out)


def keep(found: Found, kept: Path, figures: Sequence[str]) -> Iterator[str]:
    """Copy the files that the page links to into ``kept``; yield the paths of the figures, relative to the page.

    Only the semantic part of the config is copied: the rest, such as the output folder, concerns one machine.
    """
    target = kept / found.run.path.name
    if target != found.run.path:
        config = semantic(yaml.safe_load(found.run.config.read_text(encoding="utf-8")))
        write_bytes(target / found.run.config.name, to_yaml(config).encode())
        write_bytes(target / found.run.results.name, found.run.results.read_bytes())
        for source in (found.run.figures / f"{name}.png" for name in figures):
            if source.exists():
                shutil.copyfile(source, target / source.name)
    yield from (f"{kept.name}/{target.name}/{name}.png" for name in figures if (target / f"{name}.png").exists())
