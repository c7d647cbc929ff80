"""Write docs/results.md: published numbers of the reference studies, next to those of our own runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fmvae.config.composing import sweep_jobs
from fmvae.config.project import PROJECT_ROOT
from fmvae.errors import FmvaeError
from fmvae.report import findings, generators, literature
from fmvae.report.keeping import check_comparable, find, keep
from fmvae.report.reference_tables import (
    accuracy_table,
    classes_tables,
    columns,
    companions_table,
    fid_table,
    gallery,
    grid_table,
    judged,
    latent_table,
    likelihood_table,
    provenance_table,
    published_table,
)
from fmvae.report.tables import Row, folded, percent
from fmvae.report.topics import TOPICS
from fmvae.runs.files import write_bytes

PUBLISHED = PROJECT_ROOT / "docs" / "published.yaml"
FINDING = PROJECT_ROOT / "docs" / "findings" / "results.md"  # written by hand
WIDTH = 380  # of a picture on the page, in pixels
PICTURES = {
    "samples": "samples, decoder means of latents from the prior",
    "class_samples": "samples of each class, a row for each",
}
TRAVERSALS = {"traversal_prior": "each row moves one latent dimension, the others stay at 0"}

LIKELIHOODS, DISTANCES, LATENTS = "Likelihood", "Fréchet distances and related measures", "Latents"
CLASSES_SHOWN = "Do generated images show the requested class?"
PICTURES_OF_ALL, ORIGIN = "Pictures", "Where each row comes from"
ORDER = (
    *(LIKELIHOODS, literature.HEADING, DISTANCES, generators.HEADING, CLASSES_SHOWN),
    *(LATENTS, *(topic.heading for topic in TOPICS), PICTURES_OF_ALL, ORIGIN),
)

PAGE = """# Results

The runs of the reference studies, by us, and the numbers published for them. This page is written by
`{command}` from run directories, and from copies of runs on other machines (`docs/results/`).
Its sentences are written by hand (`docs/findings/`), and so are the published numbers (`docs/published.yaml`); all
other numbers come from the runs. A title links to all numbers of its run.

{findings}## Contents

{contents}

{sections}
"""
LIKELIHOOD = """Test set, nats per image; of several seeds the mean ± standard deviation. −ELBO = recon + KL
compares across β; IWAE 64 is the importance-weighted bound of 64 draws (lower is closer to −log p(x)).

{likelihood}{published}"""
BESIDE = """

The published numbers beside ours. The objective is recon + β · KL. *ours* draws z from the posterior, *at μ*
decodes its mean, as for many published tables.

{table}"""
FID = """{num_images} generated images (decoder means) against as many test images, in the features of our
FashionResNet18 and in pixels; ± is the standard deviation over seeds, of one seed the standard error of the draw.
*recon.* is the distance of reconstructions, *floor* that of training images: what a perfect model would score.
Published distances use other extractors: compare the order of models, not the values.

{fid}{companions}"""
ACCURACY = """{num_generated} generated images, {per_class} of each class, classified by the FashionResNet18 that
was also trained on blurred images ({classifier}). *By FID's network*: the images that FID compares, classified by
the network of FID's features. The shares of every class are on [a page of their own](results/classes.md).

{accuracy}{grid}"""
GRID = """

The runs of `python train.py sweep=conditional_study`: the share of images that show the class asked for, for each
model, z and β, one seed each.

{table}"""
CLASSES = """# Do generated images show the requested class? Each class

Written by `{command}`; it belongs to
[the results](../results.md#do-generated-images-show-the-requested-class). The share of generated images of each
class that the classifier takes for that class.

{tables}
"""
PROVENANCE = """# Where each row of the results comes from

Written by `{command}`; it belongs to [the results](../results.md). For each run: the command
that trains it, its config, its best epoch, the commit that trained it, and the SHA-256 (the first ten digits) of
the test images, of the checkpoint, of FID's classifier and of the classifier that judges classes.

{table}
"""


def write_page(folder: Path, docs: Path, command: str) -> Path:
    """Write ``results.md`` and its pages in ``results/`` into ``docs``; return the path of the first.

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
    studies = [(topic, topic.read(folder, kept)) for topic in TOPICS]
    of_studies = [row for _, study in studies for row in study.found]
    search = generators.read(folder, kept, list(seeds))
    if not any((found, of_studies, search.found, *(row.found for row in likelihoods))):
        names = ", ".join(row.title for row in (*rows, *likelihoods))
        raise FmvaeError(
            folder,
            f"holds none of the reference runs ({names}; other settings give other runs)",
            "run `python train.py experiment=baseline`, or `python train.py sweep=vae_study` for all",
        )
    of_each = (study.found for _, study in studies)
    for rows_of_one_study in (found, *of_each, [row for row in likelihoods if row.found]):
        check_comparable(folder, kept, rows_of_one_study)
    pictures = []
    for row in found:
        figures = PICTURES if row in rows else TRAVERSALS if row in traversals else {}
        for i, one in enumerate(row.found):
            for path in keep(one, kept, tuple(figures) if i == 0 else ()):
                pictures.append((path, f"{row.title}: {figures[Path(path).stem]}"))
    classified = judged(found)
    sections = _sections(rows, traversals, found, published) | {
        literature.HEADING: literature.section(likelihoods, published, kept),
        generators.HEADING: generators.section(search, folder, kept),
        **{topic.heading: topic.section(study, kept) for topic, study in studies},
        PICTURES_OF_ALL: gallery(pictures, WIDTH) if pictures else "",
    }
    sections = {title: sections[title] for title in ORDER if sections[title]}
    every = {row.title: row for row in (*rows, *likelihoods, *traversals, *conditionals)} | search.titled
    texts = generators.COLUMNS | columns(published)
    for topic, study in studies:
        every, texts = study.titled | every, topic.texts() | texts
    told = findings.told(FINDING, every, texts)
    pages = {
        docs / "results.md": PAGE.format(
            command=command,
            findings=told and f"## Findings\n\n{told}\n\n",
            contents="\n".join(f"- [{title}](#{anchor(title)})" for title in sections),
            sections="\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items()),
        ),
        kept / "provenance.md": PROVENANCE.format(
            command=command, table=provenance_table([*found, *likelihoods, *search.found, *of_studies], "")
        ),
    }
    if classified:
        pages[kept / "classes.md"] = CLASSES.format(command=command, tables=classes_tables(classified, ""))
    for path, text in pages.items():
        write_bytes(path, text.encode())
    return docs / "results.md"


def _sections(
    rows: Sequence[Row], traversals: Sequence[Row], found: Sequence[Row], published: Mapping[str, Any]
) -> dict[str, str]:
    """Return the sections on the reference studies by heading; those without numbers are empty.

    Args:
        rows: of published experiments; they may have no runs.
        traversals: of ``sweep=traversal_study``, alike.
        found: all rows with runs, those of ``sweep=conditional_study`` too.
    """
    sizes, classified, others = _sizes(found), judged(found), [row for row in found if row not in rows]
    latents = (
        latent_table([row for row in found if row in rows]),
        _folded("The runs of `conditional_study`", latent_table(others)),
    )
    return {
        LIKELIHOODS: LIKELIHOOD.format(
            likelihood=likelihood_table([*rows, *traversals]),
            published=_added(BESIDE, published_table(rows, published)),
        ),
        DISTANCES: FID.format(
            fid=fid_table(found, published), companions=_added("\n\n{table}", companions_table(found)), **sizes
        ),
        CLASSES_SHOWN: ACCURACY.format(
            accuracy=accuracy_table([row for row in classified if row in rows] or classified, published),
            grid=_added(GRID, grid_table([row for row in classified if row in others])),
            **sizes,
        )
        if classified
        else "",
        LATENTS: "\n\n".join(filter(None, latents)),
        ORIGIN: "Command, config, commit and hashes of every run: [a page of their own](results/provenance.md).",
    }


def anchor(title: str) -> str:
    """Return the name that GitHub, and the documentation site, give a heading."""
    return re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-")


def _added(text: str, table: str) -> str:
    return table and text.format(table=table)


def _folded(summary: str, table: str) -> str:
    return table and folded(summary, table)


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
