"""Learning curves are told apart by what their runs differ in, in colour, in grey, and in the legend's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from fmvae.report.collect import collect
from fmvae.report.learning import NOT_COMPLETE, learning_curves
from fmvae.report.looks import DASHES, MAX_ENTRIES, RAMPS, WIDTHS, Looks, ramp
from fmvae.report.settings import Setting, curves_of, settings_of
from fmvae.report.style import Style
from tests.report.fakes import FACTOR, TC, write_run
from tests.report.test_learning import write_history


def sweep(folder: Path, *runs: dict[str, Any], model: Sequence[str] = ("base",), seeds: int = 1) -> list[Setting]:
    """The settings of runs with histories, whose last value is the number of the setting."""
    for i, (given, name) in enumerate((given, name) for given in runs for name in model):
        for seed in range(seeds):
            run = write_run(folder, f"model={name}", seed=seed, blocks={"checkpoint": {"epoch": 2}}, **given)
            write_history(run, [300.0, 200.0 + i, 200.0 + i])
    return settings_of(collect([folder]))


def chart(folder: Path) -> Figure:
    runs = collect([folder])
    figure = learning_curves(runs, settings_of(runs), lambda run: (run.name, "a/"), [])
    assert figure is not None
    return figure


def drawn(figure: Figure) -> dict[float, set[tuple[str, str, float]]]:
    """The looks of the lines of a panel, by the last value, which is the setting's."""
    looks: dict[float, set[tuple[str, str, float]]] = {}
    for line in figure.axes[0].lines:
        if line.get_linestyle() != "None":
            look = (to_hex(line.get_color()), str(line._dash_pattern), line.get_linewidth())  # pyright: ignore
            looks.setdefault(float(np.asarray(line.get_ydata())[-1]), set()).add(look)
    return looks


def told_apart(looks: dict[float, set[tuple[str, str, float]]]) -> bool:
    """Whether each setting has one look, and no other setting has it."""
    each = [look for found in looks.values() for look in found]
    return all(len(found) == 1 for found in looks.values()) and len(set(each)) == len(looks)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def betas(*values: float) -> list[dict[str, Any]]:
    return [{"beta": value} for value in values]


def gammas(*values: float) -> list[dict[str, Any]]:
    return [{"loss": TC | {"gamma": value}} for value in values]


def test_each_beta_has_its_colour_and_the_legend_names_it_and_seeds_look_alike(tmp_path):
    settings = sweep(tmp_path, *betas(0.5, 1.0, 4.0), seeds=2)
    figure = chart(tmp_path)
    looks = drawn(figure)
    assert len(looks) == 3
    assert told_apart(looks)
    assert words(figure) == ["β = 0.5", "β = 1", "β = 4"]
    handles = figure.legends[0].get_lines()
    shown = [looks[200.0 + i].copy().pop()[0] for i in range(3)]
    assert [to_hex(handle.get_color()) for handle in handles] == shown  # and each word is at its colour
    assert all(handle.get_marker() in ("", "None") for handle in handles)  # a dot is the best epoch alone
    # the control: the looks of the other charts, in which a curve runs along β
    (curve,) = curves_of(settings)
    style = Style([curve])
    old = (to_hex(style.colour[style.hue(curve)]), style.line[style.shape(curve)], 1.0)
    assert not told_apart({key: {old} for key in looks})


@pytest.mark.parametrize(
    ("runs", "models", "legend"),
    [
        (betas(0.5, 1.0, 4.0), ["base", "conv"], ["β = 0.5", "β = 1", "β = 4", "base", "conv"]),
        (betas(1.0) + gammas(1.0, 4.0, 10.0), ["base"], ["gamma = 1", "gamma = 4", "gamma = 10", "elbo", "tc"]),
        (betas(1.0, 4.0) + gammas(2.0, 4.0), ["base"], None),
        (
            [{"beta": b, "z": z} for b in (0.0, 1.0) for z in (2, 10)],
            ["base"],
            ["β = 0", "β = 1", "z = 2", "z = 10"],
        ),
        (
            [{"z": z} for z in (2, 10)],
            ["base", "conv"],
            ["base, z = 2", "base, z = 10", "conv, z = 2", "conv, z = 10"],
        ),
        ([{"z": 2, "beta": 1.0}, {"z": 10, "beta": 4.0}], ["base"], ["β = 1", "β = 4", "z = 2", "z = 10"]),
        ([{"z": z} for z in (2, 10)], ["base"], ["z = 2", "z = 10"]),
        ([{}, {"loss": TC}, {"loss": FACTOR}], ["base"], ["base, elbo", "base, factor", "base, tc"]),
        ([{}, {"loss": TC}], ["base", "conv"], ["elbo", "tc", "base", "conv"]),
        ([{}], ["base"], ["z = 2"]),
        ([{"z": z} for z in range(1, 20)], ["base", "conv"], None),
        (betas(*range(12)), ["base", "conv"], None),
    ],
)
def test_settings_never_look_alike(tmp_path, runs, models, legend):
    settings = sweep(tmp_path, *runs, model=models)
    figure = chart(tmp_path)
    looks = drawn(figure)
    assert len(looks) == len(settings)
    assert told_apart(looks)
    assert "repeat" not in figure.get_supxlabel()
    if legend:
        assert words(figure) == legend


def test_a_strength_with_many_values_has_a_colour_bar_with_the_colours_of_the_curves(tmp_path):
    values = [0.0, *np.geomspace(0.1, 50, 19).round(3).tolist()]
    sweep(tmp_path, *betas(*values))
    figure = chart(tmp_path)
    assert told_apart(drawn(figure))
    assert words(figure) == []
    bar = figure.axes[2]
    assert bar.get_ylabel() == "β"
    (mesh,) = [one for one in bar.collections if isinstance(one, QuadMesh)]
    colours = [to_hex(tuple(mesh.to_rgba(np.array([i]))[0])) for i in range(len(values))]
    assert [{colour} for colour in colours] == [
        {look[0] for look in drawn(figure)[200.0 + i]} for i in range(len(values))
    ]
    for place, text in zip(bar.get_yticks(), bar.get_yticklabels(), strict=True):
        assert text.get_text() == f"{values[round(place)]:g}"
    assert "order of the values of β" in figure.get_supxlabel()


@pytest.mark.parametrize("count", [MAX_ENTRIES, MAX_ENTRIES + 1])
def test_up_to_so_many_strengths_are_named_one_by_one(tmp_path, count):
    sweep(tmp_path, *betas(*range(count)))
    figure = chart(tmp_path)
    named = count <= MAX_ENTRIES
    assert len(figure.axes) == (2 if named else 3)
    assert words(figure) == ([f"β = {i}" for i in range(count)] if named else [])


@pytest.mark.parametrize("more", [0, 1])
def test_more_kinds_than_line_styles_are_admitted_in_the_caption(tmp_path, more):
    kinds = len(DASHES) * len(WIDTHS) + more
    sweep(tmp_path, *[{"beta": beta, "z": z} for beta in (1.0, 2.0) for z in range(1, kinds + 1)])
    figure = chart(tmp_path)
    assert told_apart(drawn(figure)) is not bool(more)
    assert ("Line styles repeat" in figure.get_supxlabel()) is bool(more)
    assert words(figure)[-1] == ("and 2 more" if more else f"z = {kinds}")


def test_two_strengths_with_many_values_have_a_bar_each_and_it_lies_beside_the_panels(tmp_path):
    sweep(tmp_path, *betas(*range(2, 10)), *gammas(*range(2, 10)))
    figure = chart(tmp_path)
    assert told_apart(drawn(figure))
    assert {axes.get_ylabel() for axes in figure.axes[2:]} == {"β", "gamma"}
    assert words(figure) == ["elbo", "tc"]
    figure.draw_without_rendering()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox())]
    boxes.append(figure.legends[0].get_window_extent())
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_runs_that_are_not_complete_are_grey_and_dashed_as_no_other_is(tmp_path):
    sweep(tmp_path, *betas(0.5, 1.0), model=["base", "conv"])
    write_history(write_run(tmp_path, beta=9.0, state="interrupted"), [310.0, 300.0])
    figure = chart(tmp_path)
    (found,) = [line for line in figure.axes[0].lines if np.asarray(line.get_ydata())[-1:].tolist() == [300.0]]
    assert (found.get_color(), found.get_linestyle()) == ("0.5", "--")
    assert NOT_COMPLETE.dash not in DASHES
    assert "Grey and dashed: runs that are not complete" in figure.get_supxlabel()
    assert words(figure) == ["β = 0.5", "β = 1", "base", "conv"]


def test_only_what_is_drawn_has_a_place_in_the_legend(tmp_path):
    sweep(tmp_path, *betas(0.5, 1.0))
    write_run(tmp_path, beta=16.0)  # without a history
    assert words(chart(tmp_path)) == ["β = 0.5", "β = 1"]


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def readable(colours: Sequence[str]) -> bool:
    """Whether the contrast on white is at least 3:1, and CIE lightness rises by 3 or more at each step.

    Lightness is what grey print leaves, and what colour vision deficiencies leave about as it is.
    """
    shares = np.array([luminance(colour) for colour in colours])
    lightness = np.where(shares > 216 / 24389, 116 * np.cbrt(shares) - 16, shares * 24389 / 27)
    return bool((1.05 / (shares + 0.05) >= 3).all() and (np.diff(lightness) >= 3).all())


@pytest.mark.parametrize("which", range(len(RAMPS)))
@pytest.mark.parametrize("count", [2, 3, 6, MAX_ENTRIES])
def test_ramps_are_readable_on_white_in_grey_and_for_all_colour_vision(which, count):
    assert readable(ramp(count, which))


@pytest.mark.parametrize(
    "colours",
    [
        lambda share: matplotlib.colormaps["viridis"](0.8 * share),  # pale at the end
        lambda share: matplotlib.colormaps["hsv"](0.9 * share),  # not in order
        lambda share: matplotlib.colormaps["viridis"](0.0),  # all alike, as they were
    ],
)
def test_the_control_other_colours_are_not(colours: Callable[[float], Any]):
    assert not readable([to_hex(colours(i / 11)) for i in range(12)])


def test_looks_are_those_of_the_other_charts_if_no_strength_varies(tmp_path):
    settings = sweep(tmp_path, {}, {"loss": TC}, model=["base", "conv"])
    curves = curves_of(settings)
    style = Style(curves)
    looks = Looks(style, curves)
    for curve in curves:
        look = looks.of(curve.settings[0])
        assert look.colour == to_hex(style.colour[style.hue(curve)])
        assert look.dash == style.line[style.shape(curve)]
    more = curves_of(sweep(tmp_path, {"beta": 4.0}))  # the control
    assert not Looks(Style(more), more).as_elsewhere
