"""The section of docs/results.md on the best generators, and on the search that led to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fmvae.config.composing import sweep_jobs
from fmvae.config.project import PROJECT_ROOT
from fmvae.evaluation.columns import NEG_ELBO
from fmvae.measurement.summary import sampler_name
from fmvae.report import findings, keeping
from fmvae.report.tables import Row, folded, model_of, table, table_and_missing

SWEEP = "generators"
FINDING = PROJECT_ROOT / "docs" / "findings" / "generators.md"  # written by hand
FREE, CONDITIONAL = "best_generator", "best_conditional"
LIKELIHOODS = ("best_likelihood", "best_likelihood_flow")
PICTURES = {
    "samples_gmm": "samples, decoder means of latents from the mixture",
    "neighbours_gmm": "samples, each above the training images that are nearest to it in pixels",
    "class_samples_gmm": "samples of each class",
}
FEATURES = "resnet18"
MIXTURE = f"samplers/gmm/{FEATURES}/generation"
WIDTH = 620  # of a picture on the page, in pixels
HEADING = "The best generators we found"
SECTION = """Found by a search (`python train.py sweep={sweep}`) over models, dimensions, β and likelihoods, then
trained for longer. FID is measured as in the tables above, on images made from latents of three sources: the
prior; `gmm`, a mixture of Gaussians fitted to the posteriors of the training images; and `q(z)`, these posteriors,
which a better density could come close to. *recon.* is the distance of reconstructions. The search chose models,
temperatures and the number of components of `best_generator` by the same distances from test images, which favours
what it chose; the other numbers of components are chosen by validation images.

{generators}

The other measures of images from the mixture. *mixture*: its number of components, and T, which multiplied their
standard deviations when latents were drawn. *nearest*: the median distance to the nearest training image, divided
by that to the nearest test image and by the same ratio of test images; far below 1 if training images are copied,
near 1 if not. *shown as asked*: the share of images that the classifier recognises as the class asked for.

{companions}

{parts}"""
TRIED = """FID of the search, of {epochs} epochs and one seed each, in features computed in {precision}; `gmm` has
{components} components. −ELBO compares only rows of one likelihood.

{table}"""


def _distance(sampler: str, name: str = "generation") -> Callable[[Row], str]:
    path = f"fid/{FEATURES}" if sampler == "prior" else f"samplers/{sampler}/{FEATURES}"
    return lambda row: row.cell(f"{path}/{name}", 3, error=f"{path}/{name}_se")


# by column of the tables, and of the fields in the finding
COLUMNS: dict[str, Callable[[Row], str]] = {
    NEG_ELBO: lambda row: row.cell("test/neg_elbo"),
    "FID, prior": _distance("prior"),
    "gmm": _distance("gmm"),
    "q(z)": _distance("aggregate"),
    "recon.": _distance("prior", "reconstruction"),
    **{name: _distance("gmm", name) for name in ("precision", "recall", "density", "coverage")},
    "nearest": _distance("gmm", "nearest_ratio"),
    "shown as asked": lambda row: row.share("samplers/gmm/accuracy/generated/overall"),
}
DISTANCES = (NEG_ELBO, "FID, prior", "gmm", "q(z)", "recon.")
COMPANIONS = ("precision", "recall", "density", "coverage", "nearest", "shown as asked")


class Search(NamedTuple):
    """The rows of the section: of the experiments by name, and of the search."""

    best: dict[str, Row]
    tried: list[Row]

    @property
    def found(self) -> list[Row]:
        return [row for row in (*self.best.values(), *self.tried) if row.found]

    @property
    def titled(self) -> dict[str, Row]:
        return self.best | {row.title: row for row in self.tried}


def read(folder: Path, kept: Path, seeds: Sequence[str]) -> Search:
    """Return the runs that are in ``folder``, in one of its sweeps, or in ``kept``.

    Args:
        seeds: overrides, of the runs of each experiment.
    """
    names = (FREE, CONDITIONAL, *LIKELIHOODS)
    best = {name: keeping.find(folder, kept, [f"experiment={name}"], name, seeds) for name in names}
    return Search(best, [_tried(folder, kept, job) for job in sweep_jobs(SWEEP)])


def _tried(folder: Path, kept: Path, job: list[str]) -> Row:
    row = keeping.find(folder, kept, job)
    told = [word.partition("=")[2] for word in job if word.startswith("likelihood=")]
    return row._replace(title=", ".join([row.title, *told]))


def section(search: Search, folder: Path, kept: Path) -> str:
    """Return the section as Markdown; empty if none of its experiments was run. Copies its runs into ``kept``.

    Raises:
        FmvaeError: runs of one row or of the search were measured with other settings; a field in the words of the
            finding names no row or no column.
    """
    best = [row for row in search.best.values() if row.found]
    if not best:
        return ""
    for row in best:
        keeping.check_comparable(folder, kept, [row])
    keeping.check_comparable(folder, kept, [row for row in search.tried if row.found])
    pictures = []
    for row in search.found:
        for i, one in enumerate(row.found):
            shown = tuple(PICTURES) if i == 0 and row in best and row.title not in LIKELIHOODS else ()
            pictures += [
                (path, f"{row.title}: {PICTURES[Path(path).stem]}") for path in keeping.keep(one, kept, shown)
            ]
    told = findings.told(FINDING, search.titled, COLUMNS)
    parts = [told, *(f'<img src="{path}" width="{WIDTH}" alt="{text}">\n\n*{text}.*' for path, text in pictures)]
    parts.append(_search(search))
    return SECTION.format(
        sweep=SWEEP,
        generators=_generators(search),
        companions=_companions(best),
        parts="\n\n".join(part for part in parts if part),
    )


def _generators(search: Search) -> str:
    header = ["experiment", "model", "z, β", "seeds", *DISTANCES]
    body = []
    for row in search.best.values():
        if row.found:
            config = row.config
            z_and_beta = f"{config['latent_dim']['value']}, {config['beta']['value']:g}"
            numbers = (COLUMNS[name](row) for name in DISTANCES)
            body.append([row.link, model_of(config), z_and_beta, str(len(row.found)), *numbers])
    return table_and_missing(header, body, list(search.best.values()))


def _companions(rows: Sequence[Row]) -> str:
    body = [
        [row.link, _mixture(row), *(COLUMNS[name](row) for name in COMPANIONS)]
        for row in rows
        if row.values(MIXTURE)
    ]
    return table(["experiment", "mixture", *COMPANIONS], body)


def _mixture(row: Row) -> str:
    """Return the name of the mixture with what its fit has chosen; of all seeds, if they differ."""
    blocks = [one.at(f"samplers/gmm/{FEATURES}") for one in row.found]
    return "; ".join(sorted({sampler_name("gmm", block) for block in blocks if block}))


def _search(search: Search) -> str:
    """Return the table of what was tried, to unfold; empty if none of it was run."""
    rows = [row for row in search.tried if row.found]
    if not rows:
        return ""
    columns = (*DISTANCES, "recall")
    body = [[row.link, *(COLUMNS[name](row) for name in columns)] for row in rows]
    text = TRIED.format(
        epochs=rows[0].config["trainer"]["epochs"],
        precision=rows[0].found[0].at(f"fid/{FEATURES}/settings/precision"),
        components=rows[0].found[0].at(f"samplers/gmm/{FEATURES}/fitted/num_components"),
        table=table(["model", *columns], body),
    )
    return folded("What was tried", text)
