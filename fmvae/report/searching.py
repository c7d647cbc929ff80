"""Charts of a search: the trials in their order, the Pareto front of two objectives, what the keys explain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmvae.evaluation.columns import built_in_columns
from fmvae.evaluation.criteria import word_tag
from fmvae.report.naming import few
from fmvae.report.style import COLOURS
from fmvae.sweeps.record import Record, Trial, chosen
from fmvae.visualization.tiles import new_figure, set_title

# is told of each point that a chart draws: its axes, its place, the study's name and the trial
Tell = Callable[[Axes, tuple[float, float], Trial], None]
USUAL = {"fid": {"features": []}, "iwae": {"num_samples": 64}}  # an evaluation for the tags of words
FEWEST = 2  # trials in a chart
NAMED = 6  # trials of a front that are named
MOST = 6  # studies of a folder that are drawn


def labelled(objective: str) -> str:
    """Return the label of an axis for an objective: header and unit of its column, or else its name."""
    if objective == "fid":
        return "FID of generated images, in the first features of evaluation.fid"
    tag = word_tag(objective, USUAL)
    column = next((column for column in built_in_columns() if column.matches(tag)), None)
    if column is None:
        return objective
    where = "" if tag.startswith("test/") else f" ({tag})"
    return f"{column.header}{where}" + (f", {column.unit}" if column.unit else "")


def found_by(studies: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Return a sentence for each study, as lead and rest: its trials, and the best one or the Pareto front."""
    said = []
    for name, record in studies.items():
        states = Counter(trial.state for trial in record.trials)
        number = f"{states['complete']} of {len(record.trials)} trials are complete"
        best = [trial for trial in _complete(record) if trial.number in record.front]
        told = [
            f"trial {trial.number} ("
            + ", ".join(f"{one} {value:.4g}" for one, value in zip(record.objectives, trial.values, strict=True))
            + f") with {', '.join(chosen(trial))}"
            for trial in sorted(best, key=lambda trial: trial.values)
        ]
        if len(record.objectives) > 1 and told:
            what = f"the Pareto front has {len(told)} of them: {few(told, NAMED)}"
        else:
            what = f"the best is {told[0]}" if told else "none has a value"
        said.append((f"Search {name}:", f" {number}; {what}."))
    return said


def history_chart(studies: Mapping[str, Record], tell: Tell) -> Figure | None:
    """Draw each trial's value in order, and the best one so far; a row for each objective of each study."""
    panels = [
        (name, record, place)
        for name, record in list(studies.items())[:MOST]
        for place in range(len(record.objectives))
        if len(_complete(record)) >= FEWEST
    ]
    if not panels:
        return None
    figure = new_figure(8, 3.2 * len(panels) + 0.6)
    for axes, (name, record, place) in zip(
        figure.subplots(len(panels), 1, squeeze=False).flat, panels, strict=True
    ):
        _history(axes, record, place, tell)
        if len(studies) > 1:
            axes.set_title(f"study {name}", fontsize="medium")
    set_title(figure, f"The trials of the search, chosen by {' and '.join(_samplers(studies))}")
    return figure


def _history(axes: Axes, record: Record, place: int, tell: Tell) -> None:
    complete = _complete(record)
    numbers, values = [trial.number for trial in complete], [trial.values[place] for trial in complete]
    lower = record.directions[place] == "minimize"
    axes.plot(numbers, values, "o", color=COLOURS[0], markersize=5, label="a trial")
    best = (np.minimum if lower else np.maximum).accumulate(values)
    axes.step(numbers, best, where="post", color=COLOURS[1], label=f"{'lowest' if lower else 'highest'} so far")
    for state, colour, said in (("pruned", "0.45", "pruned"), ("fail", COLOURS[3], "failed")):
        if ended := [trial.number for trial in record.trials if trial.state == state]:
            axes.plot(
                ended,
                [0.02] * len(ended),
                "|",
                color=colour,
                markersize=9,
                markeredgewidth=1.5,
                transform=axes.get_xaxis_transform(),
                label=f"{said}: no value",
            )
    axes.set(xlabel="trial", ylabel=labelled(record.objectives[place]).replace(", ", ",\n", 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    for trial, value in zip(complete, values, strict=True):
        tell(axes, (trial.number, value), trial)


def front_chart(studies: Mapping[str, Record], tell: Tell) -> Figure | None:
    """Draw the trials of searches by two objectives, and join those that no other surpasses in both."""
    found = [
        (name, record)
        for name, record in studies.items()
        if len(record.objectives) == 2 and len(_complete(record)) >= FEWEST
    ][:MOST]
    if not found:
        return None
    figure = new_figure(7.5, 5 * len(found) + 0.6)
    for axes, (name, record) in zip(figure.subplots(len(found), 1, squeeze=False).flat, found, strict=True):
        if len(studies) > 1:
            axes.set_title(f"study {name}", fontsize="medium")
        complete = _complete(record)
        front = sorted((trial.values for trial in complete if trial.number in record.front), key=lambda v: v[0])
        others = [trial.values for trial in complete if trial.number not in record.front]
        axes.plot(*_columns(others), "o", color="0.6", markersize=5, label="surpassed by another trial")
        steps = (
            "steps-post" if record.directions[0] == "minimize" else "steps-pre"
        )  # what is reached between points
        axes.plot(
            *_columns(front), "o-", ds=steps, color=COLOURS[1], markersize=6, linewidth=1, label="Pareto front"
        )
        better = [{"minimize": "lower", "maximize": "higher"}[each] for each in record.directions]
        axes.set(
            xlabel=f"{labelled(record.objectives[0])} ({better[0]} is better)",
            ylabel=f"{labelled(record.objectives[1])}\n({better[1]} is better)",
        )
        axes.grid(alpha=0.25)
        axes.legend(fontsize="small")
        for trial in complete:
            tell(axes, (trial.values[0], trial.values[1]), trial)
    set_title(figure, "Trials of the search by both objectives")
    return figure


def importance_chart(studies: Mapping[str, Record], tell: Tell) -> Figure | None:
    """Draw for each objective the share of its variance over trials that each key explains."""
    rows = list(_importances(studies))[:MOST]
    if not rows:
        return None
    figure = new_figure(7.5, sum(0.35 * len(shares) + 0.9 for _, shares in rows) + 0.6)
    heights = [0.35 * len(shares) + 0.9 for _, shares in rows]
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)
    for axes, (title, shares) in zip(panels.flat, rows, strict=True):
        keys = sorted(shares, key=shares.__getitem__)
        axes.barh([key.lstrip("+").removesuffix(".value") for key in keys], [shares[key] for key in keys])
        axes.set(xlim=(0, 1), xlabel="share of the variance over trials (fANOVA)")
        axes.set_title(title, fontsize="medium")
        axes.grid(axis="x", alpha=0.25)
    set_title(figure, "Which keys matter in the range of the search")
    return figure


def _importances(studies: Mapping[str, Record]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for name, record in studies.items():
        for objective, shares in zip(record.objectives, record.importances, strict=False):
            if shares:
                yield labelled(objective) + (f"; study {name}" if len(studies) > 1 else ""), shares


def _complete(record: Record) -> list[Trial]:
    return [trial for trial in record.trials if trial.state == "complete"]


def _columns(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _samplers(studies: Mapping[str, Record]) -> list[str]:
    return list(dict.fromkeys(record.sampler for record in list(studies.values())[:MOST]))
