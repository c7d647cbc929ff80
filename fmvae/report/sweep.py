"""Write the report of a sweep: tables, figures and an HTML page, read from run directories."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fmvae.common.text import short
from fmvae.evaluation.columns import SAMPLERS
from fmvae.report.charts import against_beta, mi_kl, rate_distortion, tc_recon
from fmvae.report.collect import Run, collect
from fmvae.report.comparison import columns_of, compare, markdown, run_table, text
from fmvae.report.conclusion import Sentence, conclude
from fmvae.report.hover import MAX_MARKS, MAX_SVG, Mark, hidden_title, svg
from fmvae.report.learning import learning_curves
from fmvae.report.matching import pairing_chart, udr_chart, uncompared
from fmvae.report.naming import Names
from fmvae.report.page import EXPLORER, Picture, address, render_page
from fmvae.report.scores import correlation_chart, score_chart
from fmvae.report.searching import Tell, found_by, front_chart, history_chart, importance_chart
from fmvae.report.settings import Setting, particulars, settings_of, telling
from fmvae.report.sheets import Cell, contact_sheet, layers
from fmvae.report.starts import started, unfinished
from fmvae.runs.files import write_bytes
from fmvae.runs.recorder import render
from fmvae.sweeps.record import Record, Trial, chosen, read_studies

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
    "scores": (
        "Scores of disentanglement",
        "How far do latents follow the known factors of the data, and by how much do seeds differ? Compare with "
        "the levels, not with 0: random features of images follow some factors, too.",
        score_chart,
    ),
    "score_correlations": (
        "Do the scores agree?",
        "Rank correlations over runs. Lower is better for recon, −ELBO and TC, so a score that agrees with one of "
        "them has a negative correlation with it. Runs of one setting differ in their seeds alone.",
        correlation_chart,
    ),
    "udr": (
        "UDR: latents of other seeds",
        "Do other seeds find the same latents? UDR is near 1 if the informative dimensions of two runs match one "
        "to one, in any order and with any sign. A run's score is the median over the other seeds. "
        "UDR is higher with fewer informative dimensions, whatever the latents are like. So compare it with the "
        "dotted line: independent latents that each run rotates at random, with as many dimensions.",
        udr_chart,
    ),
    "latent_pairs": ("The latents of two seeds, paired", "", pairing_chart),
}
LEARNING = "learning_curves"
SEARCHES = {
    "search_history": (
        "The search, trial by trial",
        "Has the search settled? While the line still falls (or rises) in its last third, more trials may find "
        "better runs: repeat the command with a larger hydra.sweeper.n_trials.total.",
        history_chart,
    ),
    "search_front": (
        "Two objectives",
        "What does one objective cost in the other? No trial surpasses one of the front in both.",
        front_chart,
    ),
    "search_importances": (
        "Importance of the keys",
        "Which keys are worth a closer look? The shares are those of the functional ANOVA of a random forest that "
        "was fitted to the trials. They hold for this search's range, and are rough for fewer than 30 trials.",
        importance_chart,
    ),
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
    """Write ``index.html``, ``table.csv``, ``table.md`` and the figures (PNG, and charts as PDF) of the runs.

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
    target = (to or folders[0] / "report").resolve()
    settings = settings_of(runs)
    studies = {name: study for folder in folders for name, study in read_studies(folder).items()}
    comparison, title = compare(settings), " + ".join(dict.fromkeys(folder.resolve().name for folder in folders))
    conclusion = conclude(
        runs, settings, started, short(folders[0]), unfinished, _uncompared(settings, folders[0])
    )
    searched = [Sentence(*said) for said in found_by(studies)]
    conclusion = conclusion._replace(findings=[*searched, *conclusion.findings])
    figures = {f"{name}.png": figure for name, figure in _figures(runs, settings, studies, target)}
    files = {name: figure.content for name, figure in figures.items()}
    files |= {f"{Path(name).stem}.pdf": figure.pdf for name, figure in figures.items() if figure.pdf}
    files["table.csv"] = run_table(runs).encode()
    table = comparison.markdown() if settings else ""
    files["table.md"] = _markdown(title, conclusion.markdown(), table, runs).encode()
    explorers = [path for folder in folders if (path := folder / EXPLORER).exists()]
    page = render_page(title, runs, conclusion, comparison, figures, target, explorers)
    files["index.html"] = page.encode()
    for name, content in files.items():
        write_bytes(target / name, content)
    for name in _names():  # remove figures of an earlier report
        if name not in files:
            (target / name).unlink(missing_ok=True)
    return target / "index.html"


def _uncompared(settings: Sequence[Setting], folder: Path) -> list[Setting]:
    """Return the settings that ``python -m fmvae.udr`` could compare, given the folder."""
    inside = folder.resolve()
    return [
        setting
        for setting in uncompared(settings)
        if all(run.directory.path.parent.resolve() == inside for run in setting.runs)
    ]


def _names() -> list[str]:
    charts = (*CHARTS, LEARNING, *SEARCHES)
    pictures = (*charts, *(f"sheet_{name}" for name in SHEETS))
    return [*(f"{name}.png" for name in pictures), *(f"{name}.pdf" for name in charts)]


def _figures(
    runs: Sequence[Run], settings: Sequence[Setting], studies: Mapping[str, Record], target: Path
) -> Iterator[tuple[str, Picture]]:
    """Yield the name and picture of each figure for which the runs have data."""
    points = _Points(settings, target)
    for name, (heading, note, draw) in CHARTS.items():
        if figure := draw(settings, points.describe):
            yield name, _picture(heading, figure, points.taken(), note)
    marks: list[Mark] = []
    if figure := learning_curves(runs, settings, points.of_run, marks):
        yield LEARNING, _picture("Learning curves", figure, marks)
    for name, (heading, note, draw) in SEARCHES.items():
        if figure := draw(studies, points.of_trial(runs)):
            yield name, _picture(heading, figure, points.taken(), note)
    conditional = any(setting.first.conditional for setting in settings)
    for name, (heading, of_classes) in SHEETS.items():
        heading += f"; conditional models: {of_classes}" if conditional else ""
        cells: list[Cell] = []
        if content := contact_sheet(settings, name, heading, cells):
            labels, cells = layers(content, cells)
            yield f"sheet_{name}", Picture(heading, content, cells=cells, labels=labels)


def _picture(heading: str, figure: Figure, marks: Sequence[Mark], note: str = "") -> Picture:
    figure.draw_without_rendering()  # lays it out, once for all three files
    figure.set_layout_engine("none")
    file = io.BytesIO()
    figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    drawn = svg(figure, marks, heading)
    if len(drawn) > MAX_SVG:
        drawn, pointed = "", "This chart is too large to point at its points."
    elif len(marks) > MAX_MARKS:
        pointed = f"{MAX_MARKS} of the {len(marks):,} points, evenly spaced, can be pointed at."
    else:
        pointed = ""
    told = f"{pointed} All numbers are in table.csv." if pointed else ""
    said = " ".join(filter(None, [note, told]))
    return Picture(heading, render(figure), said, file.getvalue(), drawn, title=hidden_title(figure))


class _Points:
    """What to say of the points of charts: the setting's name, its numbers, and a link to its first run."""

    def __init__(self, settings: Sequence[Setting], target: Path):
        self.target = target
        self.columns = {column.tag: column for column in columns_of(settings)}
        names = Names(settings)
        self.names = {id(setting): names.of(setting) for setting in settings}
        self.named = {id(run): self.names[id(setting)] for setting in settings for run in setting.runs}
        self.marks: list[Mark] = []

    def describe(self, axes: Axes, point: tuple[float, float], setting: Setting, tags: Sequence[str]) -> None:
        lines = [self.names[id(setting)]]
        for tag in tags:
            column, statistic = self.columns[tag], setting.statistic(tag)
            assert statistic is not None
            spread = "" if statistic.sd is None else f" ± {text(column, statistic.sd)}"
            lines.append(f"{column.header} {text(column, statistic.mean)}{spread}")
        lines.append(f"n = {len(setting.runs)}")
        self.marks.append(Mark(axes, *point, "\n".join(lines), self._address(setting.first)))

    def of_run(self, run: Run) -> tuple[str, str]:
        named = self.named.get(id(run))
        name = run.name if named is None else f"{named}, seed {run.config.get('seed')}"
        return name, self._address(run)

    def of_trial(self, runs: Sequence[Run]) -> Tell:
        """Return what is told of a point of a search's chart: trial, values and run, which it links to."""
        by_name = {run.name: run for run in runs}

        def tell(axes: Axes, point: tuple[float, float], trial: Trial) -> None:
            values = [f"{value:.4g}" for value in trial.values]
            link = self._address(by_name[trial.run]) if trial.run in by_name else ""
            lines = [f"trial {trial.number}: {', '.join(values)}", *chosen(trial)]
            self.marks.append(Mark(axes, *point, "\n".join(lines), link))

        return tell

    def _address(self, run: Run) -> str:
        return f"{address(run.directory.path, self.target)}/"

    def taken(self) -> list[Mark]:
        """Return the marks of the chart that was drawn last."""
        taken, self.marks = self.marks, []
        return taken


def _markdown(title: str, conclusion: str, table: str, runs: Sequence[Run]) -> str:
    parts = [f"# {markdown(title)}", conclusion, *([table] if table else [])]
    if others := [run for run in runs if not run.complete]:
        keys = telling([run for run in runs if run.config])
        lines = [_line(run, particulars(run, keys)) for run in others]
        parts += ["## Not in the table", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(run: Run, particular: str) -> str:
    what = f"{run.name} ({particular})" if particular else run.name
    return f"- {markdown(what)}: {markdown(run.state)}. {markdown(run.reason)}"
