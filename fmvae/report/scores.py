"""Charts of scores of disentanglement: against each objective's strength, and their rank correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fmvae.evaluation.columns import NEG_ELBO, Column
from fmvae.report.above import BLOCK, scores_of
from fmvae.report.charts import Describe, beta_axis, draw_levels, levels_key, silent
from fmvae.report.collect import Run
from fmvae.report.levels import by_data
from fmvae.report.matching import levels, matches
from fmvae.report.settings import BETA, Curve, Setting, Statistic, curves_of, label
from fmvae.report.style import Style, caption, legend
from fmvae.visualization.tiles import new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UDR = "UDR"
ROTATED = "In the row UDR, dotted: latents rotated at random, with as many informative dimensions as the runs have"
FEWEST = 6  # runs of one data set and model whose ranks are correlated
# numbers beside the scores, by the name in the chart
OTHERS = {"recon": "test/recon", NEG_ELBO: "test/neg_elbo", "KL": "test/kl", "TC": "decomposition/tc"}


def score_chart(settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw each score against the strength of each objective: a row for each score, and for UDR if it is known.

    A column of panels has the runs of one model and data that share a strength, such as β or gamma. Bars are
    standard deviations over seeds. UDR has a level of its own at each point, as it depends on how many dimensions
    are informative. Return None if no setting has a score.
    """
    columns = scores_of(settings)
    groups = _groups(settings)
    panels = [
        (name, group, strength, own)
        for name, group in groups.items()
        for strength, own in _by_strength(curves_of(group)).items()
    ]
    if not columns or not panels:
        return None
    compared = matches(settings)
    similar = {id(setting): Statistic.of(entry["scores"].values()) for setting, entry in compared}
    rotated = {id(setting): float(np.mean(levels(entry))) for setting, entry in compared}
    rows: list[Column | None] = [*columns, *([None] if similar else [])]
    every = [curve for *_, own in panels for curve in own]
    style = Style(every)
    wide = max(2.5 * len(panels) + 0.8 + style.width(every), 6.5)
    figure = new_figure(wide, 1.75 * len(rows) + 1.5)
    grid = figure.subplots(len(rows), len(panels), sharey="row", squeeze=False)
    for j, (name, group, strength, curves) in enumerate(panels):
        strengths = list(dict.fromkeys(curve.strength for curve in every))
        for axes, column in zip(grid[:, j], rows, strict=True):
            values = sorted({curve.value(one) for curve in curves for one in curve.settings})
            beta_axis(axes, values, "β" if strength == BETA else label(strength, strengths))
            if column:
                draw_levels(axes, group, column)
            for curve in curves:
                points = [
                    (curve.value(one), found, one)
                    for one in curve.settings
                    if (found := one.statistic(column.tag) if column else similar.get(id(one)))
                ]
                if points:
                    style.draw(axes, curve, points)
                    if not column:
                        beside = [rotated[id(one)] for *_, one in points]
                        colour = style.colour[style.hue(curve)]
                        axes.plot([x for x, *_ in points], beside, ":", marker="_", color=colour, linewidth=1)
                for value, found, one in points:
                    if column:
                        describe(axes, (value, found.mean), one, (column.tag,))
        for axes in grid[:-1, j]:
            axes.set_xlabel("")
        grid[0, j].set_title(name, fontsize=9)
    for axes, column in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(column.header if column else UDR)
    legend(figure, style.handles(every))
    key = levels_key(settings, columns)
    caption(
        figure,
        "Points are means over seeds, bars their standard deviations.",
        f"Levels: {key}." * bool(key),
        f"{ROTATED}." * bool(similar),
    )
    set_title(figure, "Scores of disentanglement by strength")
    return figure


def correlation_chart(settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw Spearman's rank correlations of scores, UDR, recon, −ELBO, KL and TC over the runs of one data set.

    Return None if no model and data have enough runs with a score.
    """
    known = {name: score for _, entry in matches(settings) for name, score in entry["scores"].items()}
    found = []
    for name, group in _groups(settings).items():
        runs = [run for setting in group for run in setting.runs if _tags(run)]
        numbers = _numbers(runs, known)
        if len(runs) >= FEWEST and len(numbers) > 1:
            found.append((name, len(runs), numbers))
    if not found:
        return None
    side = max(len(numbers) for *_, numbers in found)
    # one below the other: side by side, their texts would be too small on a page
    figure = new_figure(0.42 * side + 3.6, (0.42 * side + 2.0) * len(found) + 0.4)
    shown = None
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (name, num, numbers) in zip(panels, found, strict=True):
        matrix = spearman(np.array(list(numbers.values())))
        shown = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu")
        axes.set_xticks(range(len(numbers)), list(numbers), rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(numbers)), list(numbers))
        axes.tick_params(labelsize=8)
        for (row, column), value in np.ndenumerate(matrix):
            if row != column and np.isfinite(value):
                colour = "white" if abs(value) > 0.6 else "black"
                axes.text(
                    column,
                    row,
                    f"{round(float(value), 1) + 0.0:.1f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
        axes.set_title(f"{name}, {num} runs", fontsize=9)
    assert shown is not None
    figure.colorbar(shown, ax=list(panels), label="Spearman's rank correlation", fraction=0.03)
    set_title(figure, "Do scores agree? Rank correlations over runs")
    return figure


def spearman(numbers: np.ndarray) -> np.ndarray:
    """Return the rank correlations of the rows of (M, N), (M, M): NaN where a row is constant.

    Columns where either of two rows is NaN take no part in their correlation.
    """
    from scipy.stats import spearmanr

    result = np.full((len(numbers), len(numbers)), np.nan)
    for i, first in enumerate(numbers):
        for j, second in enumerate(numbers):
            both = np.isfinite(first) & np.isfinite(second)
            a, b = first[both], second[both]
            if min(len({*a}), len({*b})) > 1:
                result[i, j] = spearmanr(a, b)[0]
    return result


def _groups(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Return the settings with a score by model, z and data: those that share levels."""
    groups: dict[str, list[Setting]] = {}
    data = by_data(settings)
    several = len({setting.first.latent_dim for setting in settings}) > 1
    for name, same in data.items():
        for setting in same:
            if scores_of([setting]):
                z = f", z = {setting.first.latent_dim}" if several else ""
                groups.setdefault(f"{setting.first.model}{z}, {name}", []).append(setting)
    return groups


def _by_strength(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.strength, []).append(curve)
    return found


def _tags(run: Run) -> dict[str, str]:
    """Return the tags of a run's scores by header; levels are none."""
    return {column.header: column.tag for column in run.columns if column.counted == BLOCK and column.direction}


def _numbers(runs: Sequence[Run], known: Mapping[str, float]) -> dict[str, list[float]]:
    """Return a row of numbers (N,) for each quantity that a run has, NaN for runs that lack it."""
    tags = {header: tag for run in runs for header, tag in _tags(run).items()} | OTHERS
    rows = {header: [run.scalars.get(tag, np.nan) for run in runs] for header, tag in tags.items()}
    scores = [header for header in rows if header not in OTHERS]
    ordered = {header: rows[header] for header in scores} | {UDR: [known.get(run.name, np.nan) for run in runs]}
    ordered |= {header: rows[header] for header in OTHERS}
    return {header: row for header, row in ordered.items() if np.isfinite(row).sum() >= FEWEST}
