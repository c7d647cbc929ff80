"""Write docs/results.md: published numbers of the reference studies, next to those of our own runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fmvae.config.composing import sweep_jobs
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import FmvaeError
from fmvae.report import family, literature
from fmvae.report.keeping import check_comparable, find, keep
from fmvae.report.tables import (
    Row,
    accuracy_table,
    fid_table,
    latent_table,
    likelihood_table,
    percent,
    provenance_table,
)
from fmvae.runs.files import write_bytes

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

{literature}## Fréchet distances and related measures

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

{family}## Pictures

{pictures}

## Where each row comes from

{provenance}
"""


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
    of_papers = {name for name, theirs in published.items() if literature.is_of_the_literature(theirs)}
    rows = [
        find(folder, kept, [f"experiment={name}"], name, list(seeds))
        for name in published
        if name not in of_papers
    ]
    likelihoods = [find(folder, kept, [f"experiment={name}"], name) for name in sorted(of_papers)]
    traversals, conditionals = (
        [find(folder, kept, job) for job in sweep_jobs(name)] for name in ("traversal_study", "conditional_study")
    )
    found = [row for row in (*rows, *traversals, *conditionals) if row.found]
    study = family.read(folder, kept)
    if not found and not study.found and not any(row.found for row in likelihoods):
        names = ", ".join(row.title for row in (*rows, *likelihoods))
        raise FmvaeError(
            folder,
            f"holds none of the reference runs ({names}; other settings give other runs)",
            "run `python train.py experiment=baseline`, or `python train.py sweep=vae_study` for all",
        )
    for rows_of_one_study in (found, study.found, [row for row in likelihoods if row.found]):
        check_comparable(folder, kept, rows_of_one_study)
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
        literature=literature.section(likelihoods, published, kept),
        family=family.section(study, kept),
        provenance=provenance_table([*found, *likelihoods, *study.found]),
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
