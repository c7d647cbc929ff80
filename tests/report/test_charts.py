"""The figures hold the means at their places, on axes that suit the betas."""

import math
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fmvae.report import charts
from fmvae.report.charts import NEAR, against_beta, beta_axis, mi_kl, rate_distortion, tc_recon
from fmvae.report.collect import collect
from fmvae.report.settings import settings_of
from fmvae.report.style import COLOURS, MAX_CURVES, Texts, spread
from tests.report.fakes import FACTOR, INFO, TC, write_run


def read(folder):
    return settings_of(collect([folder]))


def test_rate_and_distortion_are_the_means_along_beta(tmp_path):
    for beta, kl, recon in ((4.0, 3.0, 260.0), (0.5, 9.0, 250.0)):
        for seed in range(2):
            write_run(tmp_path, beta=beta, seed=seed, kl=kl + seed, recon=recon + seed)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    (curve,) = axes.containers
    assert curve[0].get_xydata().tolist() == [[9.5, 250.5], [3.5, 260.5]]  # pyright: ignore
    assert {text.get_text() for text in axes.texts} == {"0.5", "4"}
    assert "KL" in axes.get_xlabel()
    assert "nats per image" in axes.get_xlabel()
    bars = curve[2][0].get_segments()[0]  # pyright: ignore
    assert bars[1][0] - bars[0][0] == pytest.approx(2 * 0.5**0.5)  # sample sd of (9, 10), to both sides


def test_a_curve_per_model_and_z(tmp_path):
    for model in ("base", "conv"):
        for z in (2, 10):
            for beta in (0.5, 1.0):
                write_run(tmp_path, f"model={model}", z=z, beta=beta)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert len(figure.axes[0].containers) == 4
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["z = 2", "z = 10", "base", "conv"]


def test_labels_are_not_written_over_each_other(tmp_path):
    for beta in range(30):
        write_run(tmp_path, beta=float(beta), kl=5.0 + beta / 1e4, recon=250.0 - beta / 1e4)
    write_run(tmp_path, beta=99.0, kl=1.0, recon=300.0)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "99"]


def test_there_is_a_panel_for_each_quantity_that_was_measured(tmp_path):
    for beta in (0.5, 1.0):
        write_run(tmp_path, beta=beta, fid=None)
    figure = against_beta(read(tmp_path))
    assert figure is not None
    assert [axes.get_title().split(",")[0] for axes in figure.axes] == ["−ELBO", "active units"]
    write_run(tmp_path, beta=2.0, fid=9.0)
    figure = against_beta(read(tmp_path))
    assert figure is not None
    assert figure.axes[1].get_title() == "FID resnet18, test set; floor 0.125"
    assert figure.axes[1].containers[0][0].get_xydata().tolist() == [[2.0, 9.0]]  # pyright: ignore


def test_a_single_panel_against_beta_is_as_wide_as_the_other_charts(tmp_path):
    """Put into a column of a paper, both then have letters of one size."""
    for beta in (0.5, 1.0):
        run = write_run(tmp_path, beta=beta, fid=None, blocks={"latent": None})
        assert run.exists()
    figure, other = against_beta(read(tmp_path)), rate_distortion(read(tmp_path))
    assert figure is not None
    assert other is not None
    assert len(figure.axes) == 1
    assert figure.get_figwidth() == other.get_figwidth()
    write_run(tmp_path, beta=2.0)  # the control: more panels need more
    figure = against_beta(read(tmp_path))
    assert figure is not None
    assert figure.get_figwidth() > other.get_figwidth()


def test_one_beta_has_no_figure_against_beta_and_no_runs_have_none(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, z=10)
    assert against_beta(read(tmp_path)) is None
    assert rate_distortion(read(tmp_path)) is not None
    assert against_beta([]) is None
    assert rate_distortion([]) is None


@pytest.mark.parametrize(
    ("betas", "scale"),
    [([0.5, 1], "linear"), ([0.1, 1, 10], "log"), ([0, 0.1, 10], "symlog"), ([0], "linear"), ([0, 1], "linear")],
)
def test_beta_is_on_a_logarithmic_axis_if_it_spans_much_and_zero_has_a_place(betas, scale):
    axes = Figure().subplots()
    axes.plot(betas, betas)
    beta_axis(axes, betas)
    assert axes.get_xscale() == scale
    assert axes.get_xticks().tolist() == betas
    told = {"linear": "β", "log": "β (log scale)", "symlog": "β (log scale, and 0)"}
    assert axes.get_xlabel() == told[scale]
    beta_axis(axes, betas, "gamma")
    assert axes.get_xlabel() == told[scale].replace("β", "gamma")


def test_ticks_that_would_touch_are_left_out():
    axes = Figure().subplots()
    beta_axis(axes, betas := [0.01 * i for i in range(1, 200)])
    ticks = axes.get_xticks().tolist()
    assert 3 < len(ticks) < 14
    assert set(ticks) <= set(betas)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (2.125, "2.125"), (1568, "1568"), (131072, "131072"), (0.693147, "0.693"), (12.3456, "12.3")],
)
def test_only_long_fractions_are_rounded_at_an_axis(value, text):
    assert charts.tick_text(value) == text


def test_labels_of_drawn_values_do_not_overlap(monkeypatch):
    def overlap() -> bool:
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        beta_axis(axes := figure.subplots(), betas)
        axes.plot(betas, betas)
        FigureCanvasAgg(figure).draw()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) > 3
        return any(one.x1 > other.x0 for one, other in pairwise(boxes))

    betas = sorted(np.exp(np.random.default_rng(0).uniform(np.log(0.1), np.log(10), 40)).tolist())
    assert not overlap()
    monkeypatch.setattr(charts, "MAX_TICKS", 20)
    assert overlap()


def test_a_choice_is_even_and_keeps_the_ends():
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread(range(5), 1) == [0]


def test_many_curves_are_thinned_out_and_the_title_says_so(tmp_path):
    for z in range(1, MAX_CURVES + 3):
        write_run(tmp_path, z=z)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert len(figure.axes[0].containers) == MAX_CURVES
    assert f"({MAX_CURVES} of {MAX_CURVES + 2} curves)" in figure.axes[0].get_title()


def look(container):
    line = container[0]
    return to_hex(line.get_color()), line.get_marker(), line.get_linestyle()


def texts_of(figure):
    return {text.get_text() for text in figure.axes[0].texts}


def family(folder, models=("base", "conv"), z=10):
    """Three losses, two strengths each; only two of them along beta."""
    for i, model in enumerate(models):
        for place in range(2):
            for j, (beta, loss) in enumerate(
                (
                    (1.0 + place, None),
                    (1.0 + place, TC),
                    (1.0, FACTOR | {"latent_dim": z, "gamma": 5.0 + 5 * place}),
                )
            ):
                parts = {"mi": 5.0 + j - place, "tc": 2.0 - 0.5 * j - 0.2 * place, "num_images": 54_000}
                recon, kl = 250 + 5.0 * place + j - 2 * i, 9.0 - 2 * place - j / 4
                given: Any = {"loss": loss, "decomposition": parts, "recon": recon, "kl": kl}
                write_run(folder, f"model={model}", z=z, beta=beta, **given)


def test_points_of_a_loss_are_labelled_with_its_own_number(tmp_path):
    for gamma in (5.0, 10.0):
        write_run(tmp_path, loss=FACTOR | {"gamma": gamma}, kl=gamma, recon=250 + gamma)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert texts_of(figure) == {"gamma 5", "gamma 10"}
    assert figure.axes[0].get_title().replace("\n", " ").endswith("at the points: gamma")
    for beta in (1.0, 4.0):
        write_run(tmp_path, beta=beta, kl=7 + beta, recon=240.0)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert texts_of(figure) == {"gamma 5", "gamma 10", "1", "4"}
    assert figure.axes[0].get_title().replace("\n", " ").endswith("at the points: β, or the number that is named")
    assert len(figure.axes[0].containers) == 2


def test_total_correlation_is_against_recon_and_only_where_both_are_measured(tmp_path):
    write_run(tmp_path, beta=1.0)
    assert tc_recon(read(tmp_path)) is None
    assert mi_kl(read(tmp_path)) is None
    for seed, tc in enumerate((0.5, 0.7)):
        write_run(tmp_path, beta=4.0, seed=seed, recon=260.0, decomposition={"tc": tc})
    figure = tc_recon(read(tmp_path))
    assert figure is not None
    (curve,) = figure.axes[0].containers
    assert curve[0].get_xydata().tolist() == [[260.0, 0.6]]  # pyright: ignore
    low, high = curve[2][0].get_segments()[0]  # pyright: ignore
    assert high[1] - low[1] == pytest.approx(2 * 0.02**0.5)  # sample sd of (0.5, 0.7), to both sides
    assert "TC" in figure.axes[0].get_ylabel()
    assert "recon" in figure.axes[0].get_xlabel()
    assert mi_kl(read(tmp_path)) is None  # no MI


@pytest.mark.parametrize("near", [True, False])
def test_information_has_its_limits_the_kl_and_the_logarithm_of_the_images_if_near(tmp_path, near):
    mi = math.log(54_000) * (NEAR + (0.05 if near else -0.05))
    for beta, kl in ((1.0, 14.0), (4.0, 9.0)):
        write_run(tmp_path, beta=beta, kl=kl, decomposition={"mi": mi - beta / 10, "num_images": 54_000})
    figure = mi_kl(read(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    assert set(lines) == ({"MI = KL", "ln 54,000"} if near else {"MI = KL"})
    limit = lines["MI = KL"]
    assert limit.get_slope() == 1  # pyright: ignore
    assert limit.get_xy1() == (9.0, 9.0)  # pyright: ignore
    if near:
        assert lines["ln 54,000"].get_ydata() == pytest.approx([math.log(54_000)] * 2)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-len(lines) :] == list(lines)


def test_with_one_z_colours_are_losses_and_markers_and_lines_are_models(tmp_path):
    family(tmp_path)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    looks = [look(container) for container in figure.axes[0].containers]
    assert len(set(looks)) == len(looks) == 6
    assert {colour for colour, _, _ in looks} == {colour.lower() for colour in COLOURS[:3]}
    assert {(marker, line) for _, marker, line in looks} == {("o", "-"), ("s", "--")}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["elbo", "factor", "tc", "base", "conv"]


def test_one_model_has_a_colour_and_marker_per_family(tmp_path):
    family(tmp_path, models=("base",))
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    looks = {look(container) for container in figure.axes[0].containers}
    assert looks == {(COLOURS[i].lower(), "osD"[i], "-") for i in range(3)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "base, elbo",
        "base, factor",
        "base, tc",
    ]


def test_one_family_and_several_z_have_the_colours_of_z(tmp_path):
    """As all charts had before there were losses to choose."""
    viridis = [to_hex(matplotlib.colormaps["viridis"](share)) for share in (0.0, 0.8)]
    write_run(tmp_path, beta=1.0)
    write_run(tmp_path, beta=4.0)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert [look(container) for container in figure.axes[0].containers] == [(viridis[0], "o", "-")]
    family(tmp_path)  # another z
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    assert {look(container)[0] for container in figure.axes[0].containers} == set(viridis)


def test_against_beta_are_the_curves_along_beta_in_the_colours_of_the_other_charts(tmp_path):
    family(tmp_path)
    figure, other = against_beta(read(tmp_path)), rate_distortion(read(tmp_path))
    assert figure is not None
    assert other is not None
    looks = {look(container) for container in figure.axes[0].containers}
    assert {colour for colour, _, _ in looks} == {COLOURS[0].lower(), COLOURS[2].lower()}  # 1 is the third loss's
    assert looks < {look(container) for container in other.axes[0].containers}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["elbo", "tc", "base", "conv"]
    for gamma in (5.0, 10.0):
        write_run(tmp_path / "none", loss=FACTOR | {"gamma": gamma})
    assert against_beta(read(tmp_path / "none")) is None


def test_named_labels_stay_within_the_axes_and_off_other_labels_and_points(tmp_path):
    for i, lam in enumerate((1.0, 10.0, 100.0, 1000.0, 10_000.0)):
        write_run(tmp_path, loss=INFO | {"lam": lam}, kl=10 + i, recon=250 - i)
        write_run(tmp_path, loss=FACTOR | {"gamma": lam}, kl=10.2 + i, recon=250.2 - i)
        write_run(tmp_path, beta=lam, kl=10.4 + i, recon=249.5 - i)
    figure = rate_distortion(read(tmp_path))
    assert figure is not None
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    named = [name for name in boxes if " " in name]
    assert len(named) >= 6
    assert {"lam 1", "lam 10000", "gamma 1", "gamma 10000"} <= set(named)  # the ends
    points = [xy for container in axes.containers for xy in axes.transData.transform(container[0].get_xydata())]
    for name in named:
        box = boxes[name]
        assert axes.bbox.x0 <= box.x0
        assert box.x1 <= axes.bbox.x1
        assert not any(box.contains(x, y) for x, y in points)
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name)


@pytest.mark.parametrize(
    ("points", "labelled", "corners"),
    [
        ([(0.5, 0.5)], 1, [("left", "baseline")]),
        ([(0.95, 0.5)], 1, [("right", "baseline")]),  # the axes end
        ([(0.5, 0.5), (0.55, 0.52)], 1, [("right", "baseline")]),  # the other point is in the way
        ([(0.5, 0.5), (0.5, 0.49)], 2, [("left", "baseline"), ("right", "baseline")]),  # the first label is
        ([(0.5, 0.5), (0.53, 0.5)], 2, [("left", "baseline"), ("left", "top")]),
        ([(0.5, 0.5)] * 6, 6, [(ha, va) for va in ("baseline", "top") for ha in ("left", "right")]),
    ],
)
def test_a_long_label_takes_the_first_free_corner_and_is_left_out_if_there_is_none(points, labelled, corners):
    axes = Figure().subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    texts = Texts(axes, [[point] for point in points])
    for point in points[:labelled]:
        texts.write_long("gamma 10", point)
    assert [(text.get_horizontalalignment(), text.get_verticalalignment()) for text in axes.texts] == corners


def test_a_long_label_is_off_the_lines_if_a_corner_is_and_on_them_rather_than_left_out():
    def corners(*curves: list[tuple[float, float]]) -> list[tuple[str, str]]:
        axes = Figure().subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        Texts(axes, [[(0.5, 0.5)], *curves]).write_long("gamma 10", (0.5, 0.5))
        return [(text.get_horizontalalignment(), text.get_verticalalignment()) for text in axes.texts]

    right, left = [(0.55, 0.3), (0.55, 0.9)], [(0.45, 0.3), (0.45, 0.9)]
    assert corners() == corners([right[0]], [right[1]]) == [("left", "baseline")]  # the control: no line between
    assert corners(right) == [("right", "baseline")]
    assert corners(right, left) == [("left", "baseline")]


def caption_of(figure):
    return " ".join(figure.get_supxlabel().split())


def test_points_that_all_have_one_strength_have_no_label_and_the_title_says_it(tmp_path):
    for z in (2, 10):
        write_run(tmp_path, z=z, beta=4.0, decomposition={"mi": 2.0, "tc": 1.0})
    for draw in (rate_distortion, tc_recon, mi_kl):
        figure = draw(read(tmp_path))
        assert figure is not None
        assert not texts_of(figure)
        assert figure.axes[0].get_title().endswith("; at all points β = 4")
    write_run(tmp_path, z=2, beta=1.0)  # the control: no TC, so another strength in one chart only
    told, alike = rate_distortion(read(tmp_path)), tc_recon(read(tmp_path))
    assert told is not None
    assert alike is not None
    assert texts_of(told) == {"1", "4"}
    assert told.axes[0].get_title().endswith("; at the points: β")
    assert not texts_of(alike)


def test_the_caption_says_which_curves_are_not_against_beta(tmp_path):
    family(tmp_path)
    figure = against_beta(read(tmp_path))
    assert figure is not None
    assert caption_of(figure) == (
        "Left out, as it is not β but another number that varies: base, factor (gamma); conv, factor (gamma)."
    )
    for beta in (1.0, 4.0):
        write_run(tmp_path / "all", beta=beta)
    figure = against_beta(read(tmp_path / "all"))
    assert figure is not None
    assert caption_of(figure) == ""


@pytest.mark.parametrize("key", ["likelihood=gaussian", "data.binarize=static", "optimizer.lr=0.01"])
def test_charts_say_that_nats_of_different_likelihoods_do_not_compare(tmp_path, key):
    """Each model has one likelihood, so that only the models together differ in it."""
    for beta in (1.0, 4.0):
        write_run(tmp_path, beta=beta, loss=TC)
        write_run(tmp_path, "model=conv", key, beta=beta)
    control = key.startswith("optimizer")
    for figure in (rate_distortion(read(tmp_path)), against_beta(read(tmp_path))):
        assert figure is not None
        assert ("do not compare" in caption_of(figure)) is not control
        legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
        assert any(word in legend for word in ("likelihood Gaussian, sigma 0.1", "binarize static")) is not control


def test_points_of_different_likelihoods_are_not_joined(tmp_path):
    for sigma in (0.1, 0.2):
        write_run(tmp_path, "likelihood=gaussian", f"likelihood.sigma={sigma}")
        write_run(tmp_path / "control", loss=FACTOR | {"gamma": sigma})
    figure, control = rate_distortion(read(tmp_path)), rate_distortion(read(tmp_path / "control"))
    assert figure is not None
    assert control is not None
    assert (len(figure.axes[0].containers), len(control.axes[0].containers)) == (2, 1)
