"""Write the report of a sweep: tables, figures and an HTML page, read from run directories."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmvae.evaluation.columns import SAMPLERS
from fmvae.report.charts import against_beta, mi_kl, rate_distortion, tc_recon
from fmvae.report.collect import Run, collect
from fmvae.report.comparison import compare, markdown, run_table
from fmvae.report.page import Picture, render_page
from fmvae.report.settings import Setting, particulars, settings_of, telling
from fmvae.report.sheets import contact_sheet
from fmvae.runs.files import write_bytes
from fmvae.runs.recorder import render

log = logging.getLogger("fmvae")

# headings, what to read off the charts, and what draws them
CHARTS = {
    "rate_distortion": ("Rate and distortion", "", rate_distortion),
    "tc_recon": (
        "Total correlation and distortion",
        "How much reconstruction do independent latents cost? TC is 0 if q(z), over all training images, is the "
        "product of its marginals. Of two curves, the one nearer to the lower left has the more independent "
        "latents at an equal distortion. A TC near 0 may also mean latents that are not used: compare the MI.",
        tc_recon,
    ),
    "mi_kl": (
        "Mutual information and KL",
        "How much of the KL is information about the image? KL = MI + TC + dimension-wise KL, so a point's "
        "distance below the line MI = KL is the KL that tells nothing of the image. The MI is that of the "
        "training images and the KL that of the test images, so points may cross the line by their difference. "
        "The MI of N images is at most ln N: where it comes near, the latents may hold more than the chart shows.",
        mi_kl,
    ),
    "against_beta": ("Against β", "", against_beta),
}
IN_ROWS = "one row per class, in the dataset's order"
SHEETS = {  # headings, and what is added to them for conditional models
    "samples": ("Samples from the prior", IN_ROWS),
    **{f"samples_{sampler}": (f"Samples from the sampler {sampler}", IN_ROWS) for sampler in SAMPLERS[1:]},
    "traversal_prior": (
        "Latent traversals from the prior mean, one row per dimension, largest KL (or bound on information) first",
        "of the first test image's class",
    ),
}


def write_report(folders: Sequence[Path], to: Path | None = None) -> Path:
    """Write ``index.html``, ``table.csv``, ``table.md`` and the figures of the runs in ``folders``.

    Equal run directories give equal files, byte for byte.

    Args:
        folders: of sweeps, or of parts of one sweep from several machines. A run in several folders counts once.
        to: the folder to write into; None is ``report/`` in the first folder.

    Returns:
        The path of the page.

    Raises:
        FmvaeError: a folder holds no runs.
    """
    runs = collect(folders)
    for run in runs:
        if run.state == "damaged":
            log.warning("%s: damaged, so not in the tables: %s", run.directory, run.reason)
    target = (to or folders[0] / "report").resolve()
    settings = settings_of(runs)
    comparison, title = compare(settings), " + ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    figures = {f"{name}.png": figure for name, figure in _figures(settings)}
    files = {name: figure.content for name, figure in figures.items()}
    files["table.csv"] = run_table(runs).encode()
    files["table.md"] = _markdown(title, comparison.markdown() if settings else "", runs).encode()
    files["index.html"] = render_page(title, runs, comparison, figures, target).encode()
    for name, content in files.items():
        write_bytes(target / name, content)
    for name in _names():  # remove figures of an earlier report
        if name not in files:
            (target / name).unlink(missing_ok=True)
    return target / "index.html"


def _names() -> list[str]:
    return [f"{name}.png" for name in (*CHARTS, *(f"sheet_{name}" for name in SHEETS))]


def _figures(settings: Sequence[Setting]) -> Iterator[tuple[str, Picture]]:
    """Yield the name and picture of each figure for which the runs have data."""
    for name, (heading, note, draw) in CHARTS.items():
        if figure := draw(settings):
            yield name, Picture(heading, render(figure), note)
    conditional = any(setting.first.conditional for setting in settings)
    for name, (heading, of_classes) in SHEETS.items():
        heading += f"; conditional models: {of_classes}" if conditional else ""
        if content := contact_sheet(settings, name, heading):
            yield f"sheet_{name}", Picture(heading, content)


def _markdown(title: str, table: str, runs: Sequence[Run]) -> str:
    parts = [f"# {markdown(title)}", table or "No run is complete yet."]
    if others := [run for run in runs if not run.complete]:
        keys = telling([run for run in runs if run.config])
        lines = [_line(run, particulars(run, keys)) for run in others]
        parts += ["## Not in the table", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(run: Run, particular: str) -> str:
    what = f"{run.name} ({particular})" if particular else run.name
    return f"- {markdown(what)}: {markdown(run.state)}. {markdown(run.reason)}"
