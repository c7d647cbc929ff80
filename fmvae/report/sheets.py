"""Contact sheets: the same figure of every setting in one picture, read from the runs' own figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from fmvae.report.settings import BETA, Curve, Setting, curves_of, label
from fmvae.report.style import spread
from fmvae.runs.recorder import render
from fmvae.visualization.tiles import break_lines, show_tiles

MAX_CELLS, MAX_COLUMNS = 60, 8
WIDTH, SPACE = 300, 12  # pixels of a cell, and between cells
TITLE_WIDTH = 640  # pixels up to which a sheet of few pictures is widened for its title
DPI = 110  # of every figure (render)
MIN_DARK = 8  # pixels; a line of text has fewer rows that are mostly dark, a tile more
QUALITY = 80  # of pictures as JPEG
PAPER = 250  # lighter pixels (0 to 255) are background


class Cell(NamedTuple):
    """A picture on a sheet: its file, what it shows, and its box as shares of the sheet, from the upper left.

    ``jpeg`` is the picture for a page, a fifth of the size of a PNG; see :func:`layers`.
    """

    path: Path
    text: str
    left: float
    top: float
    width: float
    height: float
    jpeg: bytes = b""


def layers(sheet: bytes, cells: Sequence[Cell]) -> tuple[bytes, list[Cell]]:
    """Take a sheet (PNG, grey or RGB) apart, so that a page can show it on its own paper, be that light or dark.

    Returns:
        The sheet without its pictures, black on transparent as PNG, and the cells with their pictures.
    """
    whole = Image.open(io.BytesIO(sheet))
    # tiles are small, so colours must not run into the next one
    options = {} if whole.mode == "L" else {"subsampling": 0}
    labels, found = whole.convert("L"), []
    for cell in cells:
        left, upper = round(cell.left * whole.width), round(cell.top * whole.height)
        box = (left, upper, left + round(cell.width * whole.width), upper + round(cell.height * whole.height))
        file = io.BytesIO()
        whole.crop(box).save(file, format="jpeg", quality=QUALITY, **options)
        found.append(cell._replace(jpeg=file.getvalue()))
        labels.paste(255, (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1))  # of which a border may be drawn
    file = io.BytesIO()
    Image.merge("LA", (Image.new("L", whole.size, 0), ImageChops.invert(labels))).save(file, "png", optimize=True)
    return file.getvalue(), found


def contact_sheet(
    settings: Sequence[Setting], name: str, title: str, pictures: list[Cell] | None = None
) -> bytes | None:
    """Draw ``figures/<name>.png`` of all settings into one PNG: a row per family and z, a column per strength.

    If curves run along different numbers, the columns are the places on the curves, and a row's name has its
    strengths.

    A setting's figure is that of its first seed with a readable one. If the grid has more than ``MAX_CELLS`` cells
    or ``MAX_COLUMNS`` columns, rows and columns are left out evenly, and the title says so. ``pictures`` gets the
    cells that are drawn.

    Returns:
        The file's content; None if no run has the figure.
    """
    curves = curves_of(settings)
    strengths = list(dict.fromkeys(curve.strength for curve in curves))
    rows = {}
    for curve in curves:
        places = {} if len(strengths) == 1 else {id(setting): i for i, setting in enumerate(curve.settings)}
        found = {
            places.get(id(setting), curve.value(setting)): paths
            for setting in curve.settings
            if (paths := _pictures(setting, name))
        }
        if found:
            along = f", {_name(curve.strength, strengths)} = {_values(curve)}" if len(strengths) > 1 else ""
            rows[f"{curve.family}, z = {curve.latent_dim}{along}"] = found
    columns = sorted({column for found in rows.values() for column in found})
    shown_columns = spread(columns, MAX_COLUMNS)
    # leaving out columns may have emptied a row
    candidates = [row for row in rows if any(column in rows[row] for column in shown_columns)]
    shown_rows = spread(candidates, MAX_CELLS // max(len(shown_columns), 1))
    cells = {(row, column): _first(rows[row].get(column, [])) for row in shown_rows for column in shown_columns}
    if all(cell is None for cell in cells.values()):
        return None
    grid = [[cells[row, column] for column in shown_columns] for row in shown_rows]
    shown = [[cell and cell[1] for cell in row] for row in grid]
    total, drawn = sum(len(found) for found in rows.values()), sum(cell is not None for cell in cells.values())
    if drawn < total:
        title += f" ({drawn} of {total} settings)"
    if len(strengths) == 1:
        heads = [f"{_name(strengths[0], strengths)} = {value:g}" for value in shown_columns]
    else:
        heads = [f"strength {place + 1}" for place in shown_columns]
    figure, boxes = _sheet(shown, [row.replace(", ", "\n") for row in shown_rows], heads, title)
    for (i, j), box in boxes.items() if pictures is not None else ():
        assert pictures is not None
        if cell := grid[i][j]:
            pictures.append(Cell(cell[0], f"{shown_rows[i]}, {heads[j]}", *box))
    coloured = any(cell is not None and cell.ndim == 3 for row in shown for cell in row)
    file = io.BytesIO()  # without colours, a third of the size
    Image.open(io.BytesIO(render(figure))).convert("RGB" if coloured else "L").save(file, format="png")
    return file.getvalue()


def _name(strength: str, strengths: Sequence[str]) -> str:
    return "β" if strength == BETA else label(strength, strengths)


def _values(curve: Curve) -> str:
    return " / ".join(f"{curve.value(setting):g}" for setting in curve.settings)


def _pictures(setting: Setting, name: str) -> list[Path]:
    paths = [run.directory.figures / f"{name}.png" for run in setting.runs]
    return [path for path in paths if path.is_file()]


def _first(paths: Sequence[Path]) -> tuple[Path, np.ndarray] | None:
    return next(((path, picture) for path in paths if (picture := _read(path)) is not None), None)


def _read(path: Path) -> np.ndarray | None:
    """Return a figure's images without title and labels, in [0, 1]: grey (H, WIDTH), or RGB (H, WIDTH, 3).

    None if it can't be read.
    """
    try:
        with Image.open(path) as image:
            paper = Image.new("RGBA", image.size, "white")
            colours = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    except (OSError, SyntaxError, ValueError):  # PIL's errors for a damaged file
        return None
    grey = colours.convert("L")
    box = _tiles(np.asarray(grey) < PAPER)
    tiles = colours.crop(box)
    if not np.ptp(np.asarray(tiles), axis=2).any():  # every pixel is as red as green and blue
        tiles = grey.crop(box)
    height = max(round(tiles.height * WIDTH / tiles.width), 1)
    return np.asarray(tiles.resize((WIDTH, height), Image.Resampling.LANCZOS), np.float32) / 255


def _tiles(ink: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box (left, upper, right, lower) of the rows and columns that are mostly dark.

    Rows of text are mostly light, or dark for a few pixels only, so titles and labels are outside the box.
    """

    def extent(inked: np.ndarray) -> tuple[int, int]:
        edges = np.flatnonzero(np.diff(inked > 0.5, prepend=False, append=False)).reshape(-1, 2)
        long = edges[edges[:, 1] - edges[:, 0] >= MIN_DARK]
        found = long if long.size else edges
        return (int(found[0, 0]), int(found[-1, 1])) if found.size else (0, len(inked))

    upper, lower = extent(ink.mean(1))
    left, right = extent(ink[upper:lower].mean(0))
    return left, upper, right, lower


def _sheet(
    grid: Sequence[Sequence[np.ndarray | None]], rows: Sequence[str], columns: Sequence[str], title: str
) -> tuple[Figure, dict[tuple[int, int], tuple[float, float, float, float]]]:
    """Draw a grid of pictures, (H, WIDTH) or (H, WIDTH, 3), without scaling them, with names of rows and columns.

    Return the figure, and by row and column the box of each cell: left, top, width and height, as shares of it.
    """
    heights = [max((len(cell) for cell in row if cell is not None), default=WIDTH // 4) for row in grid]
    tops = np.cumsum([0, *(height + SPACE for height in heights)])
    height, width = tops[-1] - SPACE, len(columns) * (WIDTH + SPACE) - SPACE
    # of a sheet with pictures in colour, the grey ones are drawn in three channels, too
    channels = (3,) if any(cell is not None and cell.ndim == 3 for row in grid for cell in row) else ()
    tiles = np.full((height, width, *channels), np.nan, np.float32)
    for top, row in zip(tops, grid, strict=False):
        for j, cell in enumerate(row):
            if cell is not None:
                place = tiles[top : top + len(cell), j * (WIDTH + SPACE) :][:, :WIDTH]
                place[...] = cell[..., None] if channels and cell.ndim == 2 else cell
    margin = 30 + 8 * max(len(line) for row in rows for line in row.split("\n"))
    across = max(margin + width + SPACE, min(10 * len(title), TITLE_WIDTH))
    figure = Figure(figsize=(across / DPI, (height + 70 + SPACE) / DPI))
    heading = figure.text(SPACE / across, 1, "", va="top", fontsize=12)
    break_lines(heading, title, (across - 2 * SPACE) / DPI, colon=False)
    total = (across, round(figure.get_figheight() * DPI))
    figure.set_figheight(total[1] / DPI)
    heading.set_y(1 - SPACE / total[1])
    axes = figure.add_axes((margin / total[0], SPACE / total[1], width / total[0], height / total[1]))
    show_tiles(axes, tiles)
    axes.set_xticks(np.arange(len(columns)) * (WIDTH + SPACE) + WIDTH / 2, columns, fontsize=11)
    axes.set_yticks(tops[:-1] + np.array(heights) / 2, rows, fontsize=10)
    axes.xaxis.tick_top()
    upper = total[1] - SPACE - height
    boxes = {
        (i, j): (
            (margin + j * (WIDTH + SPACE)) / total[0],
            (upper + tops[i]) / total[1],
            WIDTH / total[0],
            heights[i] / total[1],
        )
        for i in range(len(grid))
        for j in range(len(columns))
    }
    return figure, boxes
