"""Charts of how the latents of seeds match, from what ``python -m fmvae.udr`` has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmvae.errors import FmvaeError
from fmvae.report.charts import Describe, silent
from fmvae.report.naming import Names
from fmvae.report.settings import Setting
from fmvae.report.style import caption
from fmvae.runs.files import read_record
from fmvae.visualization.tiles import new_figure, set_panel_title, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "udr.json"
MOST = 12  # settings whose matrices are drawn
PANEL = 3.4  # inches, of a matrix
MARKS = (
    "A point for each seed, a line at their mean; dotted: the mean of latents rotated at random, with as many "
    "informative dimensions (dim.) as the runs have."
)
SPREAD = 0.25  # of a setting's points, in rows


def compared(folder: Path) -> list[dict[str, Any]]:
    """Return the settings in a folder's ``udr.json``; none if it is not there, or damaged."""
    try:
        return read_record(folder / FILE)["settings"]
    except (FmvaeError, OSError, LookupError):
        return []


def matches(settings: Sequence[Setting]) -> list[tuple[Setting, Mapping[str, Any]]]:
    """Return the settings that were compared, with all their present runs, each with its entry of ``udr.json``.

    An entry of other checkpoints, as of runs that were trained anew since, is none.
    """
    folders = dict.fromkeys(run.directory.path.parent for setting in settings for run in setting.runs)
    entries = {frozenset(entry["scores"]): entry for folder in folders for entry in compared(folder)}
    found = ((setting, entries.get(frozenset(run.name for run in setting.runs))) for setting in settings)
    return [(setting, entry) for setting, entry in found if entry is not None and _is_of(entry, setting)]


def _is_of(entry: Mapping[str, Any], setting: Setting) -> bool:
    then = entry.get("key", {}).get("checkpoints", {})
    return all(run.checkpoint == then.get(run.name, run.checkpoint) for run in setting.runs)


def uncompared(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings with enough seeds for UDR that were not compared with all their present runs."""
    from fmvae.evaluation.disentanglement.udr import FEWEST

    done = {id(setting) for setting, _ in matches(settings)}
    return [setting for setting in settings if len(setting.runs) >= FEWEST and id(setting) not in done]


def informative(entry: Mapping[str, Any]) -> list[int]:
    """Return the numbers of informative dimensions of an entry's runs, in the order of its scores."""
    return [sum(one) for one in entry["informative"]]


def levels(entry: Mapping[str, Any]) -> list[float]:
    """Return for each run of an entry the UDR of rotated latents with as many informative dimensions.

    It follows from what is in the file, so it is computed where it is shown; see
    :func:`fmvae.evaluation.disentanglement.rotated_level`.
    """
    from fmvae.evaluation.disentanglement.udr import rotated_level

    return rotated_level(informative(entry)).tolist()


def dimensions(entry: Mapping[str, Any]) -> str:
    """Return the numbers of informative dimensions of an entry's runs as text, such as ``4`` or ``3 to 5``."""
    found = informative(entry)
    least, most = min(found), max(found)
    return str(least) if least == most else f"{least} to {most}"


def udr_chart(settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw the UDR of each run in a row per setting, with the setting's mean and its level for rotated latents.

    Return None if nothing was compared.
    """
    if not (found := matches(settings)):
        return None
    names = Names(settings)
    figure = new_figure(8, 0.32 * len(found) + 2.0)
    axes = figure.subplots()
    for row, (_, entry) in enumerate(found):
        scores = list(entry["scores"].values())
        shifts = np.linspace(-SPREAD, SPREAD, len(scores))
        axes.plot(scores, row + shifts, "o", color="tab:blue", markersize=4, alpha=0.7)
        axes.plot(np.mean(scores), row, "|", color="black", markersize=14, markeredgewidth=2)
        level = np.mean(levels(entry))
        axes.plot([level, level], [row - 0.4, row + 0.4], ":", color="0.4", linewidth=1.6)
    axes.set_yticks(
        range(len(found)), [f"{names.of(setting)}; {dimensions(entry)} dim." for setting, entry in found]
    )
    axes.set(
        xlabel="UDR (Spearman)",
        xlim=(0, 1),
        ylim=(len(found) - 0.5, -0.5),
    )
    axes.grid(axis="x", alpha=0.3)
    images = " or ".join(f"{num:,}" for num in sorted({entry["num_images"] for _, entry in found}))
    caption(figure, MARKS)
    set_title(figure, f"How well latents match between seeds, on {images} test images")
    return figure


def pairing_chart(settings: Sequence[Setting], describe: Describe = silent) -> Figure | None:
    """Draw for each setting how the latents of its first two seeds correlate, in the order of their pairing.

    Dimensions of the first seed are in rows, those that carry information above; of the other in columns, each
    partner on the diagonal. A dimension that is not informative is named in brackets.
    """
    from fmvae.evaluation.disentanglement import matched

    if not (found := matches(settings)[:MOST]):
        return None
    names, wide = Names(settings), min(len(found), 4)
    tall = -(-len(found) // wide)
    figure = new_figure(PANEL * wide + 0.8, 3.5 * tall + 0.6)
    panels = figure.subplots(tall, wide, squeeze=False).flatten()
    shown = None
    for axes, (setting, entry) in zip(panels, found, strict=False):
        similarity, kept = np.array(entry["similarity"]), entry["informative"]
        partners = matched(similarity)
        strength = [similarity[row, column] if column >= 0 else -1 for row, column in enumerate(partners)]
        rows = sorted(range(len(partners)), key=lambda row: (not kept[0][row], -strength[row]))
        columns = [partners[row] for row in rows if partners[row] >= 0]
        columns += [column for column in range(similarity.shape[1]) if column not in columns]
        shown = axes.imshow(similarity[rows][:, columns], vmin=0, vmax=1, cmap="Blues")
        axes.set_yticks(range(len(rows)), [_named(row, kept[0]) for row in rows], fontsize=7)
        axes.set_xticks(
            range(len(columns)), [_named(column, kept[1]) for column in columns], fontsize=7, rotation=90
        )
        axes.set(ylabel=f"seed {entry['seeds'][0]}", xlabel=f"seed {entry['seeds'][1]}")
        set_panel_title(axes, names.of(setting), PANEL - 0.5, fontsize=9)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    assert shown is not None
    figure.colorbar(shown, ax=panels.tolist(), label="absolute rank correlation", fraction=0.03)
    set_title(figure, "Latents of two seeds, partners on the diagonal; in brackets: not informative")
    return figure


def _named(dimension: int, informative: Sequence[bool]) -> str:
    return f"z{dimension}" if informative[dimension] else f"(z{dimension})"
