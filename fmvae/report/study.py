"""The section of docs/results.md on the runs of a named sweep: words, charts and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fmvae.common.trees import flat
from fmvae.config.composing import sweep_jobs
from fmvae.config.identity import RunIdentity, whole
from fmvae.report import findings, keeping
from fmvae.report.collect import complete_run
from fmvae.report.conclusion import conclude
from fmvae.report.matching import FILE, compared, informative, levels, matches
from fmvae.report.settings import BETA, Curve, Setting, curves_of, label, settings_of
from fmvae.report.sweep import CHARTS
from fmvae.report.tables import Found, Row, folded, table
from fmvae.runs.directory import RunDirectory
from fmvae.runs.files import write_bytes, write_record
from fmvae.runs.recorder import render

WIDTH = 620  # of a chart on the page, in pixels
WIDEST = 6  # columns of a table, beside the three that name a row
LEVELS = {"untrained encoder": "untrained", "shuffled factors": "chance"}  # rows of a table, and their blocks
SCORES = "disentanglement"
Columns = Mapping[str, tuple[str, int, str | None]]


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
        levels = [row for model in self.rows for row in self.levels(model)]
        return {row.title: row for row in (*self.every, *levels)}

    def levels(self, model: str) -> list[Row]:
        """Return a row for each level beside the scores of a model's runs; it may have no runs."""
        runs = [one for row in self.rows[model].values() for one in row.found]
        return [
            Row(f"{model}, {name}", "", tuple(_of_level(runs, block)))
            for name, block in LEVELS.items()
            if any(one.at(f"{SCORES}/{block}") for one in runs)
        ]

    @property
    def found(self) -> list[Row]:
        return [row for row in self.every if row.found]


@dataclass
class Topic:
    """A named sweep with a section of its own.

    Args:
        sweep: its name.
        heading: of the section.
        text: the section, with the fields ``{sweep}``, ``{shown}``, ``{planned}``, ``{epochs}``, ``{z}``,
            ``{draws}``, ``{images}`` and ``{parts}``.
        finding: the file with the words, written by hand, as for :func:`fmvae.report.findings.told`.
        drawn: names of charts of a sweep's report.
        columns: of the tables: the tag of the number, its digits, and the tag of its standard error.
        ruled: whether the conclusion of a sweep's report is a part of the section.
    """

    sweep: str
    heading: str
    text: str
    finding: Path
    drawn: Sequence[str]
    columns: Columns
    ruled: bool = False

    def read(self, folder: Path, kept: Path) -> Study:
        """Return the runs of the sweep that are in ``folder``, in one of its sweeps, or in ``kept``.

        Strengths are those of the whole sweep, so that a row has the same title whichever runs are there.
        """
        runs, found = [], {}
        for job in sweep_jobs(self.sweep):
            config = keeping.compose(job)
            identity = RunIdentity.of(config)
            one = keeping.found_run(folder, kept, job, config)
            directory = one.run if one else RunDirectory(kept / identity.name)
            values = flat(whole(identity.semantic))
            runs.append(complete_run(directory, identity.name, values, one.results if one else {}))
            if one:
                found[identity.name] = one
        settings = settings_of(runs)
        similar = _similarities(settings)
        found = {
            name: one._replace(results={**one.results, "udr": similar[name]}) if name in similar else one
            for name, one in found.items()
        }
        curves = curves_of(settings)
        strengths = list(dict.fromkeys(curve.strength for curve in curves))
        rows: dict[str, dict[tuple[str, str], Row]] = {}
        for curve in curves:
            for setting in curve.settings:
                words = setting.first.word("loss"), _strength(curve, setting, strengths)
                own = tuple(found[run.name] for run in setting.runs if run.name in found)
                command = f"python train.py sweep={self.sweep}"
                rows.setdefault(curve.model, {})[words] = Row(", ".join((curve.model, *words)), command, own)
        return Study(settings, rows, len(runs))

    def section(self, study: Study, kept: Path) -> str:
        """Return the section as Markdown; empty if none of the runs is there.

        Its charts and copies of its runs are written into ``kept``.

        Raises:
            FmvaeError: a field in the words of the finding names no row or no column.
        """
        if not study.found:
            return ""
        parts = [self.told(study)]
        for row in study.found:
            for one in row.found:
                list(keeping.keep(one, kept, ()))
        _keep_similarities(study, kept)
        there = [setting for setting in study.settings if setting.statistic("test/recon")]
        parts += [_conclusion(there)] if self.ruled else []
        for name in self.drawn:
            heading, note, draw = CHARTS[name]
            path = kept / f"{self.sweep}-{name}.png"
            if figure := draw(there if self.ruled else study.settings):
                write_bytes(path, render(figure))
                parts.append(f'<img src="{kept.name}/{path.name}" width="{WIDTH}" alt="{heading}">')
                parts.append(f"*{heading}{'' if heading.endswith('?') else '.'}*" + f" {note}" * bool(note))
            else:
                path.unlink(missing_ok=True)
        parts += [
            folded(f"All numbers of model={model}", text)
            for model, rows in study.rows.items()
            if (text := self._table(rows, study.levels(model)))
        ]
        first, values = study.found[0].config, partial(_values, study)
        return self.text.format(
            sweep=self.sweep,
            shown=sum(len(row.found) for row in study.found),
            planned=study.planned,
            epochs=first["trainer"]["epochs"],
            z=first["latent_dim"]["value"],
            draws=values("decomposition/num_draws"),
            images=values("decomposition/num_images"),
            parts="\n\n".join(filter(None, parts)),
        )

    def _table(self, rows: Mapping[tuple[str, str], Row], levels: Sequence[Row]) -> str:
        """Return a model's tables, each of a few columns; empty if none of its runs is there."""
        body = [
            ([row._replace(title=loss).link, strength, str(len(row.found))], row)
            for (loss, strength), row in rows.items()
            if row.found
        ]
        beside = [([row.title.partition(", ")[2], "", str(len(row.found))], row) for row in levels]
        if not body:
            return ""
        names, tables = list(self.columns), []
        size = -(-len(names) // -(-len(names) // WIDEST))  # as many in each table
        for first in range(0, len(names), size):
            shown = names[first : first + size]
            cells = [(heads, [_cell(row, self.columns[name]) for name in shown]) for heads, row in body + beside]
            kept = [[*heads, *own] for i, (heads, own) in enumerate(cells) if i < len(body) or any(own)]
            tables.append(table(["loss", "strength", "seeds", *shown], kept))
        return "\n\n".join(tables)

    def texts(self) -> dict[str, Callable[[Row], str]]:
        """Return the numbers that findings may name, as functions of a row."""
        return {name: partial(_cell, number=number) for name, number in self.columns.items()}

    def told(self, study: Study) -> str:
        """Return the words of the finding, with the fields' numbers, as in ``findings.told``.

        Raises:
            FmvaeError: a field names a row or column that the sweep does not have.
        """
        return findings.told(self.finding, study.titled, self.texts())


def _strength(curve: Curve, setting: Setting, strengths: Sequence[str]) -> str:
    """Return a setting's strength as text, such as ``β 4`` or ``gamma 20``."""
    name = "β" if curve.strength == BETA else label(curve.strength, strengths)
    return f"{name} {curve.value(setting):g}"


def _of_level(runs: Sequence[Found], block: str) -> Iterator[Found]:
    """Yield the runs with a level's scores in place of their own; of runs with equal ones, the first."""
    seen = []
    for one in runs:
        scores = one.at(f"{SCORES}/{block}")
        if scores and scores not in seen:
            seen.append(scores)
            yield one._replace(results={SCORES: scores})


def _similarities(settings: Sequence[Setting]) -> dict[str, dict[str, float]]:
    """Return for each run that has a UDR, by its name, the score, its level and what the level depends on."""
    return {
        name: {"score": score, "informative": count, "rotated": level}
        for _, entry in matches(settings)
        for (name, score), count, level in zip(
            entry["scores"].items(), informative(entry), levels(entry), strict=True
        )
    }


def _keep_similarities(study: Study, kept: Path) -> None:
    """Keep what was measured between seeds beside the copies of the runs, with that of other studies."""
    if entries := [dict(entry) for _, entry in matches(study.settings)]:
        names = {name for entry in entries for name in entry["scores"]}
        others = [entry for entry in compared(kept) if not names & set(entry["scores"])]
        write_record(kept / FILE, {"settings": [*others, *entries]})


def _conclusion(settings: Sequence[Setting]) -> str:
    """Return what a sweep's report says of these settings, as a list in Markdown."""
    runs = [run for setting in settings for run in setting.runs]
    conclusion = conclude(runs, settings, lambda run: None, "")
    return conclusion._replace(warnings=[], commands=[]).markdown()


def _values(study: Study, path: str) -> str:
    found = sorted({value for row in study.found for value in row.values(path)})
    return " or ".join(f"{value:,}" for value in found) or "no"


def _cell(row: Row, number: tuple[str, int, str | None]) -> str:
    path, digits, error = number
    return row.cell(path, digits, error=error)
