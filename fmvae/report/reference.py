"""Write docs/results.md: published numbers of the reference studies, next to those of our own runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fmvae.config import compose
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.project import PROJECT_ROOT
from fmvae.config.stored import to_yaml
from fmvae.errors import FmvaeError
from fmvae.report.tables import (
    Found,
    Row,
    accuracy_table,
    fid_table,
    latent_table,
    likelihood_table,
    model_of,
    percent,
    provenance_table,
)
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes
from fmvae.runs.results import blocks, read_results

PUBLISHED = PROJECT_ROOT / "docs" / "published.yaml"
FIGURES = 420  # width of a picture on the page, in pixels
PICTURES = ("samples", "class_samples")
TRAVERSALS = ("traversal_prior",)

PAGE = """# Results

The runs of the reference studies, by us, and the numbers published for them. This page is written by
`{command}` from run directories, and from copies of runs on other machines (`docs/results/`).
Only the published numbers were entered by hand (`docs/published.yaml`). A title links to all numbers of its run;
the run's config, commit and hashes are in the last table.

## Likelihood

Test set, nats per image; of several seeds the mean ± standard deviation. *ours* draws z from the posterior, *at μ*
decodes its mean, as for many published tables; −ELBO = recon + KL compares across β; IWAE 64 is the
importance-weighted bound of 64 draws (lower is closer to −log p(x)).

{likelihood}

## Fréchet distances and related measures

{num_images} generated images (decoder means) against as many test images, in the features of our FashionResNet18
and in pixels; ± is the standard deviation over seeds, of one seed the standard error of the draw. *recon.* is the
distance of reconstructions, *floor* that of training images: what a perfect model would score. Published distances
use other extractors: compare the order of models, not the values.

{fid}

## Do generated images show the requested class?

{num_generated} generated images, {per_class} of each class, classified by the FashionResNet18 that was also
trained on blurred images ({classifier}). The last column but one: the images that FID compares, classified by the
network of FID's features.
The rows below the reference rows are those of `python train.py sweep=conditional_study`.

{accuracy}

## Latents

{latent}

## Pictures

{pictures}

## Where each row comes from

{provenance}
"""


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
    found = []
    for job, config in zip(jobs, configs, strict=True):
        name = RunIdentity.of(config).name
        if read := _complete(folder, name) or _kept(kept / name):
            found.append(Found(_command(job), *read))
    return Row(title, _command(jobs[0]), tuple(found))


def _command(overrides: Sequence[str]) -> str:
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


def write_page(folder: Path, docs: Path, command: str) -> Path:
    """Write ``results.md`` into ``docs``; return its path.

    Its rows are the runs in ``folder``. For runs that are not there, the copies in ``docs/results`` are used.

    Args:
        command: the command that writes the page, shown on it.

    Raises:
        FmvaeError: none of the runs is in either folder.
    """
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    seeds = {word: None for job in sweep_jobs("vae_study") for word in job if word.startswith("seed=")}
    kept = docs / "results"
    rows = [find(folder, kept, [f"experiment={name}"], name, list(seeds)) for name in published]
    traversals, conditionals = (
        [find(folder, kept, job) for job in sweep_jobs(name)] for name in ("traversal_study", "conditional_study")
    )
    found = [row for row in (*rows, *traversals, *conditionals) if row.found]
    if not found:
        raise FmvaeError(
            folder,
            f"holds none of the reference runs ({', '.join(published)}; other settings give other runs)",
            "run `python train.py experiment=baseline`, or `python train.py sweep=vae_study` for all",
        )
    check_comparable(folder, kept, found)
    pictures = []
    for row in found:
        figures = PICTURES if row in rows else TRAVERSALS if row in traversals else ()
        for i, one in enumerate(row.found):
            for path in keep(one, kept, figures if i == 0 else ()):
                pictures.append(f'<img src="{path}" width="{FIGURES}" alt="{row.title}: {Path(path).stem}">')
    text = PAGE.format(
        command=command,
        likelihood=likelihood_table([*rows, *traversals], published),
        fid=fid_table(found, published),
        accuracy=accuracy_table(found, published),
        latent=latent_table(found),
        provenance=provenance_table(found),
        pictures="\n".join(pictures),
        **_sizes(found),
    )
    path = docs / "results.md"
    write_bytes(path, text.encode())
    return path


def _sizes(rows: Sequence[Row]) -> dict[str, str]:
    """Return the numbers of images and the classifier's accuracy on real images, as texts for the page."""
    results = [one.results for row in rows for one in row.found]
    fids = [result["fid"] for result in results if "fid" in result]
    blocks = [result["accuracy"] for result in results if "accuracy" in result]
    images = {block["num_images"] for fid in fids for block in fid.values()}
    generated = {block["generated"]["num_images"] for block in blocks}
    per_class = {block["settings"]["num_per_class"] for block in blocks}
    real = {percent(block["real"]["overall"]) for block in blocks}

    def listed(values: set[Any]) -> str:
        return " or ".join(f"{value:,}" if isinstance(value, int) else value for value in sorted(values)) or "no"

    return {
        "num_images": listed(images),
        "num_generated": listed(generated),
        "per_class": listed(per_class),
        "classifier": f"{listed(real)} right on the real test images",
    }
