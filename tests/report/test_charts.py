"""The figures hold the means at their places, on axes that suit the betas."""

import pytest
from matplotlib.figure import Figure

from fmvae.report.charts import MAX_CURVES, against_beta, beta_axis, rate_distortion, spread
from fmvae.report.collect import collect
from fmvae.report.settings import settings_of
from tests.report.fakes import write_run


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


def test_ticks_that_would_touch_are_left_out():
    axes = Figure().subplots()
    beta_axis(axes, betas := [0.01 * i for i in range(1, 200)])
    ticks = axes.get_xticks().tolist()
    assert 3 < len(ticks) < 14
    assert set(ticks) <= set(betas)


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
