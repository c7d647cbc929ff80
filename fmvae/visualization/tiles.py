"""Helpers of figures: new figures, grids of images in one array, and a model in evaluation mode."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, inference_mode

from fmvae.data.checks import CHANNELS
from fmvae.errors import ConfigError
from fmvae.models import VAE
from fmvae.models.modes import in_evaluation_mode
from fmvae.visualization.appearance import size, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

GAP = 1  # pixels between tiles
TITLE_MARGIN = 0.15  # inches to the left and to the right of a title, at least
LINE, POINTS = 1.2, 72  # height of a line, of its font's size; points of an inch
# where lines are broken: after commas and semicolons, at spaces, and in words, but not between a backslash and $
SEPARATORS = (r"(?<=[,;] )", r"(?<= )", r"(?<!\\)(?=.)")
ENTRY = 0.22  # inches, of a row of a legend
MOST_TRIES = 5  # of widening a figure for its legend
LETTER = 0.6  # width of a letter, of its font's size


def new_figure(width: float, height: float, least: float = 2.4) -> Figure:
    """Create an empty figure with this size in inches, or the user's width; it is not registered with pyplot.

    Args:
        least: the smallest height of a figure that the user has made narrower.

    Raises:
        ConfigError: matplotlib cannot be imported with the user's settings.
    """
    try:
        from matplotlib.figure import Figure  # takes half a second, which training need not wait for
    except (ImportError, ValueError, OSError) as error:
        problem = f"matplotlib cannot be imported ({str(error).partition(chr(10))[0]})"
        raise ConfigError("figures", problem, "correct its settings and repeat the command") from None
    return Figure(figsize=size(width, height, least), layout="constrained")


def set_title(figure: Figure, text: str, **options: Any) -> None:
    """Set the title of a figure, in as many lines as its width needs.

    Args:
        text: a line that is too wide is broken as by :func:`break_lines`.
        options: of :meth:`matplotlib.figure.Figure.suptitle`.
    """
    break_lines(figure.suptitle("", **options), text, _room(figure))


def set_note(figure: Figure, text: str, usual: float = 9) -> None:
    """Write what one must know to read a figure below its panels, in as many lines as its width needs.

    It is not the label of an axis, as matplotlib's layout reserves no width for those: in a narrow figure they are
    cut off.

    Args:
        usual: its size of text, as for :func:`text_size`.
    """
    note = figure.supxlabel("", fontsize=text_size(usual))
    break_lines(note, text, _room(figure), colon=False, separators=SEPARATORS[1:])


def set_panel_title(axes: Axes, text: str, inches: float, **options: Any) -> None:
    """Set the title of a panel, in lines of at most this width, which are broken at semicolons first.

    Args:
        options: of :meth:`matplotlib.axes.Axes.set_title`.
    """
    separators = ("(?<=; )", *SEPARATORS)
    break_lines(axes.set_title("", **options), text, inches, colon=False, separators=separators)


def _room(figure: Figure) -> float:
    return figure.get_size_inches()[0] - 2 * TITLE_MARGIN


def break_lines(
    title: Text, text: str, inches: float, *, colon: bool = True, separators: Sequence[str] = SEPARATORS
) -> None:
    """Let a title show a text in lines of at most this width.

    The figure grows by the lines added, so that its panels keep their size.

    Args:
        colon: if the first line is too wide, break it at its first colon, which is left out, before anywhere else.
        separators: where to break, as regular expressions, each only where the ones before are not enough.
    """
    figure = title.get_figure(root=True)
    assert figure is not None

    def fits(line: str) -> bool:
        title.set_text(line.rstrip())
        return title.get_window_extent().width <= inches * figure.dpi

    lines = []
    for i, line in enumerate(text.split("\n")):
        for part in line.split(": ", 1) if colon and i == 0 and not fits(line) else [line]:
            lines += _broken(part, fits, separators)
    added = len(lines) - len(text.split("\n"))
    if added:
        figure.set_figheight(figure.get_figheight() + added * LINE * float(title.get_fontsize()) / POINTS)
    title.set_text("\n".join(line.rstrip() for line in lines))


def _broken(text: str, fits: Callable[[str], bool], separators: Sequence[str]) -> list[str]:
    """Return a text in lines that fit, as long as there are separators."""
    if fits(text) or not separators:
        return [text]
    lines: list[str] = []
    for piece in filter(None, re.split(separators[0], text)):
        if lines and fits(lines[-1] + piece):
            lines[-1] += piece
        else:
            lines += _broken(piece, fits, separators[1:])
    return lines


@contextmanager
def looking_at(model: VAE) -> Iterator[None]:
    """Switch to evaluation mode without gradients inside; afterwards, restore the mode of each layer."""
    with in_evaluation_mode(model), inference_mode():
        yield


def legend_beside(figure: Figure, axes: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draw a legend to the right of the last panel, in as many columns as its entries need.

    The figure grows by further columns.
    """
    rows = max(int((figure.get_figheight() - 1.2) / ENTRY), 1)
    columns = math.ceil(len(names) / rows)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
    legend = axes.legend(handles, names, ncols=columns, **place)
    if columns > 1:
        width = legend.get_window_extent().width / figure.dpi
        figure.set_figwidth(figure.get_figwidth() + width * (columns - 1) / columns)
        axes.set_anchor("W")  # the layout reserves no room for what a panel of fixed proportions leaves free
        for _ in range(MOST_TRIES):
            figure.draw_without_rendering()
            beyond = figure.get_tightbbox().x1 - figure.get_figwidth()
            if beyond <= 0:
                break
            figure.set_figwidth(figure.get_figwidth() + beyond + TITLE_MARGIN)


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], most: int) -> None:
    """Draw a legend below the panels, in at most so many columns, and fewer if the figure is narrow."""
    for columns in range(most, 0, -1):
        legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def tile(images: Tensor, num_columns: int, gap: int = GAP) -> np.ndarray:
    """Arrange images (N, C, H, W) in reading order in one array (rows * (H + gap), num_columns * (W + gap)).

    For RGB images, the array has an additional last axis of size 3. The gap, to the right of and below each image,
    is NaN, and so are the empty tiles after the last image.

    Raises:
        ValueError: the images have neither 1 nor 3 channels.
    """
    num_images, channels, height, width = images.shape
    if channels not in CHANNELS:
        raise ValueError(f"{channels} channels: pictures show 1 (grey) or 3 (RGB)")
    num_rows = math.ceil(num_images / num_columns)
    tiles = np.full((num_rows * num_columns, height + gap, width + gap, channels), np.nan, np.float32)
    tiles[:num_images, :height, :width] = images.permute(0, 2, 3, 1).float().cpu()
    rows = tiles.reshape(num_rows, num_columns, height + gap, width + gap, channels).swapaxes(1, 2)
    array = rows.reshape(num_rows * (height + gap), num_columns * (width + gap), channels)
    return array[:, :, 0] if channels == 1 else array


def tile_centres(num_tiles: int, size: int) -> np.ndarray:
    """Return the centres (num_tiles,) of images of ``size`` pixels along an axis of a tiled array."""
    return np.arange(num_tiles) * (size + GAP) + (size - 1) / 2


def name_columns(
    axes: Axes, centres: Sequence[float] | np.ndarray, names: Sequence[str], room: float, usual: float
) -> bool:
    """Name columns along the x axis, above it if the ticks are there. Names that do not fit are turned.

    Args:
        room: inches of a column.
        usual: their size of text, as for :func:`text_size`.

    Returns:
        Whether they are turned.
    """
    turned = max(map(len, names), default=0) * LETTER * usual / POINTS > room
    options: dict[str, Any] = {}
    if turned:
        above = axes.xaxis.get_ticks_position() == "top"
        options = {"rotation": 35, "ha": "left" if above else "right", "rotation_mode": "anchor"}
    axes.set_xticks(centres, names, fontsize=text_size(usual), **options)
    return turned


def show_tiles(axes: Axes, tiles: np.ndarray) -> None:
    """Draw a tiled array, grey (H, W) or RGB (H, W, 3), with no frame and no ticks; NaN is white."""
    axes.imshow(np.nan_to_num(tiles, nan=1) if tiles.ndim == 3 else tiles, cmap="gray", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=text_size(9))
    axes.set(xticks=[], yticks=[])
