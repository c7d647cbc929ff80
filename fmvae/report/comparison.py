"""The tables of a sweep: all numbers of every run, and the means over seeds of every setting."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fmvae.evaluation.columns import BLOCKS, IN_BATCHES, NATS, Column, in_table_order
from fmvae.report.collect import Run, sortable
from fmvae.report.comparable import NO_MATCH, nats_compare, unlike
from fmvae.report.levels import levels_beside
from fmvae.report.settings import (
    OWN,
    Setting,
    Statistic,
    differing,
    is_word,
    label,
    shown,
    source,
    telling,
)
from fmvae.report.tables import number, percent, table

CAPTION = (
    "Mean ± sample standard deviation over n seeds. Test set{images}; {nats} in nats per image. −ELBO = recon + "
    "KL compares across β, the objective itself is in table.csv. Best of each column in bold{but}."
)
OF_ONE = "If n is 1, {names} ± the standard error of the estimate."
PARTS = (
    "In batches: parts of the objective, means over batches of what it computes. A part that is estimated from a "
    "batch depends on the batch's size, and is not the measured number of that name."
)
UNUSED = "A low TC may also mean latents that are not used: read it with MI and recon."


class Cell(NamedTuple):
    text: str
    best: bool = False


class Comparison(NamedTuple):
    """The table of settings, to be written as Markdown or HTML."""

    header: list[str]
    rows: list[list[Cell]]
    caption: str

    def markdown(self) -> str:
        rows = [[f"**{cell.text}**" if cell.best else markdown(cell.text) for cell in row] for row in self.rows]
        return table([markdown(name) for name in self.header], rows) + f"\n\n{self.caption}"


def markdown(text: str) -> str:
    """Escape a text, so that Markdown shows it unchanged."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(text.split()))


def columns_of(settings: Sequence[Setting]) -> list[Column]:
    """Return the columns of the table that at least one setting has."""
    found = in_table_order(column for setting in settings for run in setting.runs for column in run.columns)
    return [column for column in found if "table" in column.places]


def text(column: Column, value: float) -> str:
    """Format a value of a column."""
    return percent(value) if column.share else number(value, column.digits)


def compare(settings: Sequence[Setting]) -> Comparison:
    """Return the table with a row per setting, and a column per quantity that at least one setting has."""
    told, columns = telling([setting.first for setting in settings]), columns_of(settings)
    words, keys = ([key for key in told.keys if is_word(key) == word] for word in (True, False))
    schedules = {setting.first.schedule for setting in settings} - {"constant"}
    header = ["model", *(label(key, told.keys) for key in words), "z", "β", *(["schedule"] if schedules else [])]
    header += [*(label(key, told.keys) for key in keys), "n"]
    best = {column: _best(column, settings) for column in columns}
    rows = []
    for setting in settings:
        run = setting.first
        own = told.of(run)
        cells = [run.model, *(shown(key, run) for key in words), str(run.latent_dim), f"{run.beta:g}"]
        cells += [run.schedule] if schedules else []
        cells += [*(shown(key, run) if key in own else "" for key in keys), str(len(setting.runs))]
        row = [Cell(text) for text in cells]
        for column in columns:
            row.append(_cell(column, setting, best[column]))
        rows.append(row)
    return Comparison([*header, *(column.header for column in columns)], rows, caption(settings))


def _best(column: Column, settings: Sequence[Setting]) -> str | None:
    """Return the best mean of a column as printed text, so that equal texts are all bold.

    None if no best of the column is marked, it has fewer than two means, or they do not compare.
    """
    statistics = [statistic for setting in settings if (statistic := setting.statistic(column.tag))]
    if not column.has_best or len(statistics) < 2 or unlike(column, settings):
        return None
    best = max if column.direction == "higher" else min
    return text(column, best(statistic.mean for statistic in statistics))


def _error(column: Column, setting: Setting) -> Statistic | None:
    """Return the standard error of the estimate of a setting of one run, if it was measured."""
    return setting.statistic(f"{column.tag}_se") if len(setting.runs) == 1 else None


def _cell(column: Column, setting: Setting, best: str | None) -> Cell:
    statistic, error, n = setting.statistic(column.tag), _error(column, setting), len(setting.runs)
    if statistic is None:
        return Cell("")
    if column.digits == 0 and not statistic.mean.is_integer():
        column = replace(column, digits=1)  # the mean of counts
    mean = text(column, statistic.mean)
    spread = error.mean if error else statistic.sd
    told = mean if spread is None else f"{mean} ± {text(column, spread)}"
    return Cell(told if statistic.n == n else f"{told} (n = {statistic.n})", mean == best)


def caption(settings: Sequence[Setting]) -> str:
    """Return the table's caption: the numbers of images, and the distances that a perfect model would have."""
    runs = [run for setting in settings for run in setting.runs]

    def images(block: str) -> str:
        sizes = {run.sizes[block] for run in runs if block in run.sizes}
        return listed(f"{size:,}" for size in sizes)

    columns, test = columns_of(settings), images("test")
    nats = nats_compare(settings)
    unordered = [column for column in columns if not column.has_best and (nats or column.unit != NATS)]
    but = f" (none of {_headers(unordered)})" if unordered else ""
    in_nats = _headers([column for column in columns if column.unit == NATS])
    parts = [CAPTION.format(images=f", {test} images" if test else "", nats=in_nats, but=but)]
    parts += [] if nats else [f"{NO_MATCH}, so none of them is in bold."]
    if of_one := [column for column in columns if any(_error(column, setting) for setting in settings)]:
        parts.append(OF_ONE.format(names=_headers(of_one)))
    parts += [PARTS] if any(column.header.endswith(IN_BATCHES) for column in columns) else []
    for column in columns:
        num_images, floors = images(column.counted), floors_of(settings, column)
        floor = f"; floor (training against test images) {floors}" if floors else ""
        if column.note:
            filled = {"header": column.header, "images": num_images or "unknown", "floor": floor}
            parts.append(column.note.format(**filled, levels=levels_beside(settings, column)))
        elif column.counted not in BLOCKS:  # the user's own measure
            told = [*([column.unit] if column.unit else []), *([f"{num_images} images"] if num_images else [])]
            parts += [f"{column.header}: {', '.join(told)}."] if told else []
    parts += [UNUSED] if any(column.tag == "decomposition/tc" for column in columns) else []
    return " ".join(dict.fromkeys(parts))


def _headers(columns: Sequence[Column]) -> str:
    names = [column.header for column in columns]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def floors_of(settings: Sequence[Setting], column: Column) -> str:
    """Return the distances between training and test images for a column of distances; empty if it has none."""
    runs = [run for setting in settings for run in setting.runs if column.floor in run.scalars]
    return listed(text(column, run.scalars[column.floor]) for run in runs)


def listed(texts: Iterable[str]) -> str:
    return " or ".join(sorted(set(texts), key=sortable))


def run_table(runs: Sequence[Run]) -> str:
    """Return a CSV with one row per run: its settings, the keys that differ between runs, and all final numbers.

    Numbers are in full precision.
    """
    configs = [run.config for run in runs if run.config]
    skipped = {key for key in OWN if not source(key)} | {"trainer.epochs"}
    repeated = {
        key
        for key in {key for config in configs for key in config}
        if (of := source(key)) and all(config.get(key, config.get(of)) == config.get(of) for config in configs)
    }
    keys = [key for key in differing(configs) if key not in skipped | repeated]
    tags = sorted({tag for run in runs for tag in run.scalars}, key=sortable)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ["run", "state", "model", "latent_dim", "beta", "schedule", "seed", "epochs"]
    writer.writerow([*names, *(key.removesuffix("._name_") for key in keys), *tags, "error"])
    for run in runs:
        config = run.config
        row = [run.name, run.state, run.model, run.latent_dim, run.beta, run.schedule]
        row += [config.get("seed"), config.get("trainer.epochs")]
        row += [_plain(config[key]) if key in config and not is_word(key) else shown(key, run) for key in keys]
        writer.writerow([*row, *(run.scalars.get(tag, "") for tag in tags), run.reason])
    return file.getvalue()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
