"""Learning curves of all runs, and the charts whose points can be pointed at."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fmvae.report.collect import Run, collect
from fmvae.report.hover import MAX_MARKS, Mark, place, svg
from fmvae.report.learning import MAX_RUNS, learning_curves, read_history
from fmvae.report.settings import settings_of
from tests.report.fakes import write_run


def write_history(run: Path, values: list[float], kl: float = 5.0) -> None:
    rows = [{"epoch": i + 1, "val/neg_elbo": value, "val/kl": kl} for i, value in enumerate(values)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def drawn(folder: Path) -> tuple[Figure | None, list[Mark]]:
    runs, marks = collect([folder]), []
    return learning_curves(runs, settings_of(runs), lambda run: (run.name, "a/"), marks), marks


def test_every_run_has_its_curve_and_the_best_epoch_its_dot(tmp_path):
    for beta in (0.5, 4.0):
        run = write_run(tmp_path, beta=beta, blocks={"checkpoint": {"epoch": 2}})
        write_history(run, [300.0, 250.0 + beta, 260.0])
    write_history(write_run(tmp_path, beta=9.0, state="interrupted"), [310.0, 300.0])
    write_run(tmp_path, beta=16.0)  # without a history
    figure, marks = drawn(tmp_path)
    assert figure is not None
    curves = [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert sorted(np.asarray(line.get_ydata()).tolist() for line in curves) == [
        [300.0, 250.5, 260.0],
        [300.0, 254.0, 260.0],
        [310.0, 300.0],
    ]
    dots = [tuple(np.ravel(line.get_xydata()).tolist()) for line in figure.axes[0].lines]
    assert {(2.0, 250.5), (2.0, 254.0)} <= set(dots)
    texts = [mark.text for mark in marks]
    assert sum("best epoch 2: −ELBO, validation 250.50" in text for text in texts) == 1
    assert any("last epoch 2: −ELBO, validation 300.00" in text for text in texts)
    assert "not complete" in figure.get_supxlabel()


@pytest.mark.parametrize("num_epochs", [2, 9, 10])
def test_few_epochs_are_all_shown_and_an_axis_names_what_is_outside(tmp_path, num_epochs):
    """Control: of ten epochs, the first is left out; a shorter run beside a long one changes nothing of that."""
    write_history(write_run(tmp_path), [382.0, *np.linspace(260, 250, num_epochs - 1)])
    write_history(write_run(tmp_path, seed=1), [380.0, 258.0])
    figure, _ = drawn(tmp_path)
    assert figure is not None
    axes = figure.axes[0]
    if num_epochs < 10:
        assert axes.get_ylim()[0] < min(258, 260 if num_epochs == 2 else 250)
        assert axes.get_ylim()[1] > 382
        assert axes.get_xlabel() == "epoch"
    else:
        assert axes.get_ylim()[1] < 300
        assert axes.get_xlabel() == "epoch\nabove: epoch 1, to 382"
    assert figure.axes[1].get_xlabel() == "epoch"  # the KL is constant


@pytest.mark.parametrize("first", [400.0, 1e9])
def test_the_first_epoch_does_not_rule_the_range(tmp_path, first):
    values = [first, 260.0, 255.0, *np.linspace(250, 245, 17).tolist()]
    write_history(write_run(tmp_path), values)
    figure, _ = drawn(tmp_path)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert 244 < low < 245
    assert 250 < high < 270  # the default of matplotlib would be above ``first``


def test_one_run_that_explodes_late_does_not_rule_it_either(tmp_path):
    for seed in range(5):
        values = np.linspace(260, 245, 20)
        values[15] = 1e6 if seed == 3 else values[15]
        write_history(write_run(tmp_path, seed=seed), values.tolist())
    figure, _ = drawn(tmp_path)
    assert figure is not None
    assert figure.axes[0].get_ylim()[1] < 300


def test_files_that_are_damaged_or_too_many_stop_nothing(tmp_path):
    assert drawn_none(write_run(tmp_path / "none"))
    run = write_run(tmp_path / "damaged")
    for text in ("", "{", "[1]\n", '{"epoch": "x"}\n', '{"epoch": 1, "val/neg_elbo": NaN, "val/kl": 1}'):
        (run / "metrics.jsonl").write_text(text)
        assert drawn_none(run), text
    (run / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert drawn_none(run)
    (run / "metrics.jsonl").write_text('{\n{"epoch": 1, "val/neg_elbo": 2.5, "val/kl": 1}\n')  # one line is good
    (found,) = collect([run.parent])
    history = read_history(found)
    assert history is not None
    assert history.values["val/neg_elbo"].tolist() == [2.5]


def drawn_none(run: Path) -> bool:
    return drawn(run.parent)[0] is None


def test_at_most_so_many_runs_are_drawn_and_the_caption_says_it(tmp_path):
    run = write_run(tmp_path)
    write_history(run, [3.0, 2.0])
    (one,) = collect([tmp_path])
    many = [Run(one.directory, f"{i}", "complete", "", {**one.config, "seed": i}) for i in range(MAX_RUNS + 9)]
    figure = learning_curves(many, settings_of(many), lambda run: (run.name, ""), [])
    assert figure is not None
    assert f"{MAX_RUNS} of {MAX_RUNS + 9} runs." in figure.get_supxlabel()


def chart() -> tuple[Figure, list[Mark]]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    points = [(1.0, 10.0), (10.0, 20.0), (100.0, 15.0)]
    axes.plot(*zip(*points, strict=True), marker="o", linestyle="")
    axes.set_xscale("log")
    return figure, [Mark(axes, x, y, f'<b>"{x:g}"&\n', "../r'un/") for x, y in points]


def test_a_mark_lies_on_the_point_that_is_drawn():
    """The places of matplotlib's own markers in the file are the reference."""
    figure, marks = chart()
    text = svg(figure, marks, "A chart")
    markers = [
        (float(x), float(y)) for x, y in re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', text)
    ]
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert len(places) == 3
    for point in places:
        assert min(abs(point[0] - x) + abs(point[1] - y) for x, y in markers) < 0.2
    moved = place(figure, marks[0]._replace(x=2.0))  # the control
    assert min(abs(moved[0] - x) + abs(moved[1] - y) for x, y in markers) > 5


def test_all_charts_have_texts_of_one_size_on_the_page_however_wide_they_are():
    """A point of the figure is 4/3 CSS pixels where there is room, as the size of the element allows at most."""
    scales = []
    for width in (4.0, 6.1, 11.4):
        figure = Figure(figsize=(width, 4))
        opened = svg(figure, [], "A chart").partition(">")[0]
        box = re.search(r'viewBox="0 0 ([\d.]+) ', opened)
        most = re.search(r"max-width: (\d+)px", opened)
        assert box
        assert most
        scales.append(float(most[1]) / float(box[1]))
    assert scales == pytest.approx([4 / 3] * 3, rel=2e-3)
    # the control: all as wide as a page, as they once were, is a size of its own for each
    assert 1056 / (4.0 * 72) > 2 * 1056 / (11.4 * 72)


def test_a_chart_repeats_byte_for_byte_and_its_texts_are_escaped():
    texts = {svg(*chart(), "A <chart>") for _ in range(2)}
    (text,) = texts
    assert "<b>" not in text
    assert "<chart>" not in text
    assert "&lt;b&gt;&quot;1&quot;&amp;" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert not re.search(r"<(style|metadata|script|image)", text)


def test_marks_are_limited():
    figure, marks = chart()
    assert svg(figure, marks[:1] * (3 * MAX_MARKS), "many").count("<circle") == MAX_MARKS
