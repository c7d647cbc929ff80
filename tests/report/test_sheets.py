"""A contact sheet shows the runs' own pictures, each in its place."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from fmvae.report.collect import collect
from fmvae.report.settings import settings_of
from fmvae.report.sheets import (
    MAX_CELLS,
    MIN_DARK,
    SPACE,
    TITLE_WIDTH,
    WIDTH,
    Cell,
    _read,
    _tiles,
    contact_sheet,
    layers,
)
from tests.report.fakes import FACTOR, write_figure, write_run


def sheet(folder, title="Samples") -> np.ndarray | None:
    content = contact_sheet(settings_of(collect([folder])), "samples", title)
    return None if content is None else np.asarray(Image.open(io.BytesIO(content)), float) / 255


def test_a_picture_is_cropped_to_its_tiles(tmp_path):
    run = write_run(tmp_path)
    write_figure(run, "samples", 0.5)
    picture = _read(run / "figures" / "samples.png")
    assert picture is not None
    height, width = picture.shape
    assert width == WIDTH
    assert abs(height / width - 60 / 90) < 0.03  # nothing of the title is left
    assert picture[:10, :80].max() < 0.1  # but the black of the first tile is
    assert abs(picture[int(15 / 60 * height), int(15 / 90 * width)] - 0.5) < 0.02


def test_a_dense_line_of_text_is_not_taken_for_tiles():
    """A few rows of it are mostly dark; the white line between rows of tiles does not end them."""
    ink = np.zeros((120, 100), bool)
    ink[5:8, 10:90] = True  # of a title
    ink[20:60, 15:85] = ink[62:100, 15:85] = True
    assert _tiles(ink) == (15, 20, 85, 100)
    ink[5 : 5 + MIN_DARK, 10:90] = True  # control: as high as a tile
    assert _tiles(ink)[1] == 5


def test_rows_are_models_and_z_and_columns_are_betas(tmp_path):
    greys = {(2, 0.5): 0.2, (2, 4.0): 0.4, (10, 4.0): 0.6}
    for (z, beta), grey in greys.items():
        write_figure(write_run(tmp_path, z=z, beta=beta), "samples", grey)
    pixels = sheet(tmp_path)
    assert pixels is not None
    left = pixels.shape[1] - 2 * (WIDTH + SPACE)
    cell = round(WIDTH * 60 / 90)
    bottom = pixels.shape[0] - SPACE

    def grey_of(row: int, column: int) -> float:
        top = bottom - (2 - row) * (cell + SPACE) + SPACE
        return float(pixels[top + cell // 4, left + column * (WIDTH + SPACE) + WIDTH // 6])

    assert abs(grey_of(0, 0) - 0.2) < 0.02
    assert abs(grey_of(0, 1) - 0.4) < 0.02
    assert abs(grey_of(1, 1) - 0.6) < 0.02
    assert grey_of(1, 0) == 1  # there is no such run


def test_the_first_seed_whose_picture_can_be_read_is_shown(tmp_path):
    damaged, whole, other = (write_run(tmp_path, seed=seed) for seed in range(3))
    write_figure(whole, "samples", 0.4)
    alone = sheet(tmp_path)
    write_figure(other, "samples", 0.8)
    (damaged / "figures").mkdir()
    (damaged / "figures" / "samples.png").write_bytes(b"\x89PNG")
    both = sheet(tmp_path)
    assert alone is not None
    assert both is not None
    assert np.array_equal(alone, both)
    write_figure(damaged, "samples", 0.8)
    changed = sheet(tmp_path)
    assert changed is not None
    assert not np.array_equal(alone, changed)


ORANGE = (1.0, 0.6, 0.2)


def sheet_of(folder) -> tuple[Image.Image, Image.Image, Sequence[Image.Image]]:
    """The sheet of two shades, the same without its pictures, and the pictures."""
    cells: list[Cell] = []
    content = contact_sheet(settings_of(collect([folder])), "samples", "Samples", cells)
    assert content is not None
    labels, cells = layers(content, cells)
    whole, rest, *pictures = [Image.open(io.BytesIO(one)) for one in (content, labels, *(c.jpeg for c in cells))]
    return whole, rest, pictures


@pytest.mark.parametrize("shade", [ORANGE, (0.6, 0.6, 0.6)])
def test_a_sheet_keeps_the_colours_of_pictures(shade, tmp_path):
    """Control: RGB figures that have no colours are a grey sheet, the same as from grey figures."""
    coloured = shade == ORANGE
    write_figure(write_run(tmp_path / "rgb"), "samples", shade)
    write_figure(write_run(tmp_path / "rgb", beta=2.0), "samples", 0.4)
    whole, rest, (first, second) = sheet_of(tmp_path / "rgb")
    place = (WIDTH // 6, round(WIDTH * 15 / 90))
    assert (whole.mode, first.mode, rest.mode) == (*(["RGB"] * 2 if coloured else ["L"] * 2), "LA")
    told = first.convert("RGB").getpixel(place), second.convert("RGB").getpixel(place)
    for found, expected in zip(told, (shade, (0.4, 0.4, 0.4)), strict=True):
        np.testing.assert_allclose(np.array(found) / 255, expected, atol=0.02)
    left = whole.width - 2 * (WIDTH + SPACE)  # of the first cell
    np.testing.assert_array_less(np.ptp(np.asarray(whole.convert("RGB"), int)[:, :left], axis=2), 1)  # black text
    assert bool(np.ptp(np.asarray(whole.convert("RGB"), int), axis=2).any()) == coloured
    if not coloured:
        write_figure(write_run(tmp_path / "grey"), "samples", shade[0])
        write_figure(write_run(tmp_path / "grey", beta=2.0), "samples", 0.4)
        assert sheet_of(tmp_path / "grey")[0] == whole


def test_no_pictures_no_sheet(tmp_path):
    run = write_run(tmp_path)
    assert sheet(tmp_path) is None
    (run / "figures").mkdir()
    (run / "figures" / "samples.png").write_text("no picture")
    assert sheet(tmp_path) is None
    assert contact_sheet([], "samples", "Samples") is None


def test_a_large_grid_is_thinned_out(tmp_path):
    first = write_run(tmp_path, z=1)
    write_figure(first, "samples", 0.5)
    picture = (first / "figures" / "samples.png").read_bytes()
    for z in range(1, 13):
        for beta in range(1, 11):
            run = first if (z, beta) == (1, 1) else write_run(tmp_path, z=z, beta=float(beta))
            (run / "figures").mkdir(exist_ok=True)
            (run / "figures" / "samples.png").write_bytes(picture)
    pixels = sheet(tmp_path)
    assert pixels is not None
    rows, columns = pixels.shape[0] // (round(WIDTH * 60 / 90) + SPACE), pixels.shape[1] // (WIDTH + SPACE)
    assert rows * columns <= MAX_CELLS
    assert columns == 8


def test_strengths_that_are_not_beta_have_columns_of_their_own(tmp_path):
    """All of them have one beta, and were one cell if columns were betas."""
    for i, gamma in enumerate((5.0, 10.0, 40.0)):
        write_figure(write_run(tmp_path, loss=FACTOR | {"gamma": gamma}), "samples", 0.2 + 0.3 * i)
    pixels = sheet(tmp_path)
    assert pixels is not None
    greys = [0.2, 0.5, 0.8]
    assert [bool((abs(pixels - grey) < 0.01).sum() > 100) for grey in greys] == [True] * 3
    write_figure(write_run(tmp_path, beta=2.0), "samples", 0.65)  # along another number, so columns are places
    write_run(tmp_path, beta=4.0)
    mixed = sheet(tmp_path)
    assert mixed is not None
    assert [bool((abs(mixed - grey) < 0.01).sum() > 100) for grey in (*greys, 0.65)] == [True] * 4
    assert mixed.shape[0] > pixels.shape[0]  # a row more
    assert (mixed.shape[1] - pixels.shape[1]) < WIDTH  # and no column more


def test_a_title_that_is_wider_than_the_pictures_takes_more_lines(tmp_path):
    """Control: a title that fits changes neither width nor height."""
    write_figure(write_run(tmp_path), "samples", 0.5)
    sheets = [sheet(tmp_path, title) for title in ("Samples", "Draws", "Samples of a title; " * 8)]
    short, other, long = (one for one in sheets if one is not None)
    assert short.shape == other.shape
    assert TITLE_WIDTH >= long.shape[1] > short.shape[1]
    assert long.shape[0] > short.shape[0] + 40
    ink = long[: long.shape[0] - short.shape[0] + 40] < 0.9  # the title's lines
    assert not ink[:, -SPACE // 2 :].any()
    assert ink[:, : long.shape[1] // 2].any()
