"""The section of docs/results.md on ``sweep=family``: what each objective presses on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fmvae.common.trees import flat
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity, whole
from fmvae.config.project import PROJECT_ROOT
from fmvae.report import findings, keeping
from fmvae.report.collect import complete_run
from fmvae.report.settings import BETA, Curve, Setting, curves_of, label, settings_of
from fmvae.report.sweep import CHARTS
from fmvae.report.tables import Row, folded, table
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes
from fmvae.runs.recorder import render

SWEEP = "family"
FINDING = PROJECT_ROOT / "docs" / "findings" / "family.md"  # written by hand
DRAWN = ("rate_distortion", "tc_recon", "mi_kl")
WIDTH = 620  # of a chart on the page, in pixels

# by column: the tag of the number, its digits, and that of its standard error
COLUMNS: dict[str, tuple[str, int, str | None]] = {
    "recon": ("test/recon", 2, None),
    "KL": ("test/kl", 2, None),
    "MI": ("decomposition/mi", 2, "decomposition/mi_se"),
    "TC": ("decomposition/tc", 3, "decomposition/tc_se"),
    "dimension-wise KL": ("decomposition/dimension_wise", 3, "decomposition/dimension_wise_se"),
    "−ELBO": ("test/neg_elbo", 2, None),
}

HEADING = "What each objective presses on"
SECTION = """The runs of `python train.py sweep={sweep}`: {shown} of its {planned} runs are shown, of z = {z},
{epochs} epochs.
Each objective was trained at several strengths. For `elbo` and `tc` the strength is β; for the others it is the
named weight, and β = 1. recon, KL and −ELBO are those of the test set, in nats per image. MI, TC and
dimension-wise KL add up to the KL of the training images; they are estimated with
{draws} draws and all posteriors of {images} images. ± is the standard deviation over seeds, or, for a single seed,
the standard error of the draws.

{parts}"""


class Study(NamedTuple):
    """The sweep's runs.

    Args:
        settings: of all its runs; those that are not complete have no numbers.
        rows: by model, and then by loss and strength, a row for each setting, which may have no runs.
        planned: the number of its runs.
    """

    settings: list[Setting]
    rows: dict[str, dict[tuple[str, str], Row]]
    planned: int

    @property
    def every(self) -> list[Row]:
        return [row for rows in self.rows.values() for row in rows.values()]

    @property
    def titled(self) -> dict[str, Row]:
        return {row.title: row for row in self.every}

    @property
    def found(self) -> list[Row]:
        return [row for row in self.every if row.found]


def read(folder: Path, kept: Path) -> Study:
    """Return the runs of the sweep that are in ``folder``, in one of its sweeps, or in ``kept``.

    Strengths are those of the whole sweep, so that a row has the same title whichever runs are there.
    """
    runs, found = [], {}
    for job in sweep_jobs(SWEEP):
        config = keeping.compose(job)
        identity = RunIdentity.of(config)
        one = keeping.found_run(folder, kept, job, config)
        if one:
            found[identity.name] = one
        directory = one.run if one else RunDirectory(kept / identity.name)
        runs.append(
            complete_run(directory, identity.name, flat(whole(identity.semantic)), one.results if one else {})
        )
    settings = settings_of(runs)
    curves = curves_of(settings)
    strengths = list(dict.fromkeys(curve.strength for curve in curves))
    rows: dict[str, dict[tuple[str, str], Row]] = {}
    for curve in curves:
        for setting in curve.settings:
            words = setting.first.word("loss"), _strength(curve, setting, strengths)
            own = tuple(found[run.name] for run in setting.runs if run.name in found)
            command = f"python train.py sweep={SWEEP}"
            rows.setdefault(curve.model, {})[words] = Row(", ".join((curve.model, *words)), command, own)
    return Study(settings, rows, len(runs))


def _strength(curve: Curve, setting: Setting, strengths: Sequence[str]) -> str:
    """Return a setting's strength as text, such as ``β 4`` or ``gamma 20``."""
    name = "β" if curve.strength == BETA else label(curve.strength, strengths)
    return f"{name} {curve.value(setting):g}"


def section(study: Study, kept: Path) -> str:
    """Return the section as Markdown; empty if none of the runs is there.

    Its charts and copies of its runs are written into ``kept``.

    Raises:
        FmvaeError: a field in the words of the finding names no row or no column.
    """
    if not study.found:
        return ""
    finding = told(study)
    for row in study.found:
        for one in row.found:
            list(keeping.keep(one, kept, ()))
    parts = [finding] if finding else []
    for name in DRAWN:
        heading, note, draw = CHARTS[name]
        path = kept / f"{SWEEP}-{name}.png"
        if figure := draw(study.settings):
            write_bytes(path, render(figure))
            parts.append(f'<img src="{kept.name}/{path.name}" width="{WIDTH}" alt="{heading}">')
            parts.append(f"*{heading}.*" + f" {note}" * bool(note))
        else:
            path.unlink(missing_ok=True)
    parts += [
        folded(f"All numbers of model={model}", text)
        for model, rows in study.rows.items()
        if (text := _table(rows))
    ]
    first, values = study.found[0].config, partial(_values, study)
    return SECTION.format(
        sweep=SWEEP,
        shown=sum(len(row.found) for row in study.found),
        planned=study.planned,
        epochs=first["trainer"]["epochs"],
        z=first["latent_dim"]["value"],
        draws=values("decomposition/num_draws"),
        images=values("decomposition/num_images"),
        parts="\n\n".join(parts),
    )


def _values(study: Study, path: str) -> str:
    found = sorted({value for row in study.found for value in row.values(path)})
    return " or ".join(f"{value:,}" for value in found) or "no"


def _table(rows: dict[tuple[str, str], Row]) -> str:
    """Return a model's table; empty if none of its runs is there."""
    header = ["loss", "strength", "seeds", *COLUMNS]
    body = [
        [row._replace(title=loss).link, strength, str(len(row.found)), *(_cell(row, name) for name in COLUMNS)]
        for (loss, strength), row in rows.items()
        if row.found
    ]
    return table(header, body) if body else ""


def _cell(row: Row, column: str) -> str:
    path, digits, error = COLUMNS[column]
    return row.cell(path, digits, error=error)


def columns() -> dict[str, Callable[[Row], str]]:
    """Return the numbers that findings may name, as functions of a row."""
    return {name: partial(_cell, column=name) for name in COLUMNS}


def told(study: Study) -> str:
    """Return the words of the finding, with the fields' numbers, as in ``findings.told``.

    Raises:
        FmvaeError: a field names a row or column that the sweep does not have.
    """
    return findings.told(FINDING, study.titled, columns())
