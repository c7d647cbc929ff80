"""fmvae.data.eda: numbers as numpy gives them, and figures that show these numbers and say what they show."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fmvae.data import Split
from fmvae.data.eda import eda_figures, labelled_batch, split_stats

NAMES = ("shirt", "shoe", "bag")
FIGURES = ["class_distribution", "pixel_intensity", "mean_intensity", "class_means"]


def split(name: str = "train", num: int = 60, seed: int = 0, num_classes: int = 3) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num, 1, 5, 4), generator=generator, dtype=torch.uint8)
    images[:, :, : 1 + seed] = 0  # another share of black in each split
    return Split(name, images, torch.randint(0, num_classes, (num,), generator=generator))


def splits() -> tuple[Split, Split, Split]:
    return split("train", 60, 0), split("val", 12, 1), split("test", 20, 2)


def figures() -> dict[str, Figure]:
    return eda_figures(splits(), NAMES)


# --- numbers --------------------------------------------------------------------------------------------------


@given(pixels=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_stats_are_those_of_numpy(pixels):
    images = torch.tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    stats = split_stats(Split("train", images, torch.zeros(len(pixels), dtype=torch.long)), 2)
    values = np.array(pixels, np.float64) / 255
    assert stats["num_images"] == len(pixels)
    assert stats["images_per_class"] == [len(pixels), 0]
    assert stats["pixel_mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert stats["pixel_std"] == pytest.approx(values.std(), abs=1e-7)
    assert stats["pixel_min"] == values.min()
    assert stats["pixel_max"] == values.max()


def test_stats_of_a_larger_split_are_those_of_numpy():
    it = split(num=500)
    stats = split_stats(it, 3)
    values = it.images.numpy().astype(np.float64) / 255
    assert stats["pixel_mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert stats["pixel_std"] == pytest.approx(values.std(), rel=1e-12)
    assert stats["images_per_class"] == [int((it.labels == c).sum()) for c in range(3)]


def test_stats_are_plain_numbers_for_json():
    for value in split_stats(split(), 3).values():
        assert type(value) in (int, float, list)


# --- what every figure says -----------------------------------------------------------------------------------


def test_the_four_figures_come_in_order():
    assert list(figures()) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_and_every_axis_a_label(name):
    figure = figures()[name]
    assert figure.get_suptitle() or any(axes.get_title() for axes in figure.axes)
    assert figure.axes
    for axes in figure.axes:
        assert axes.get_title() or not (axes.axison or axes.images)  # the last cell of a grid may be empty
        if axes.axison:  # pictures have their axes off
            assert axes.get_xlabel()
            names = [tick.get_text() for tick in axes.get_yticklabels()]
            assert axes.get_ylabel() or names == list(NAMES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_drawn(name):
    file = io.BytesIO()
    figures()[name].savefig(file, format="png", dpi=30)
    assert file.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("num_classes", [1, 10])
def test_classes_without_images_do_not_stop_the_figures(num_classes):
    """A small subset may lack some."""
    lone = [Split(name, torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2).long()) for name in "abc"]
    for figure in eda_figures(lone, [f"class {c}" for c in range(num_classes)]).values():
        figure.savefig(io.BytesIO(), format="png", dpi=20)


# --- what each shows ------------------------------------------------------------------------------------------


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_class_distribution_has_a_bar_per_class_as_long_as_its_count():
    figure = figures()["class_distribution"]
    assert [axes.get_title() for axes in figure.axes] == [
        "train (60 images)",
        "val (12 images)",
        "test (20 images)",
    ]
    for axes, it in zip(figure.axes, splits(), strict=True):
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(NAMES)
        bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in rectangles(axes)}
        assert bars == {c: int((it.labels == c).sum()) for c in range(3)}
        assert [text.get_text() for text in axes.texts] == [str(bars[c]) for c in range(3)]


def test_pixel_intensity_has_a_line_per_split_with_the_share_of_each_level():
    (axes,) = figures()["pixel_intensity"].axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "val", "test"]
    for line, it in zip(axes.lines, splits(), strict=True):
        expected = np.bincount(it.images.numpy().ravel(), minlength=256) / it.images.numel()
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), np.arange(256) / 255)
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)
    zero = (splits()[0].images.numpy() == 0).mean()
    assert f"{zero:.0%} of training pixels are exactly 0" in axes.get_title()


def test_mean_intensity_is_that_of_each_image_overall_and_by_class():
    figure = figures()["mean_intensity"]
    overall, per_class = figure.axes
    train = splits()[0]
    means = train.images.numpy().reshape(60, -1).mean(1) / 255
    counts, edges = np.histogram(means, bins=60)
    assert [bar.get_height() for bar in rectangles(overall)] == counts.tolist()
    np.testing.assert_allclose([bar.get_x() for bar in rectangles(overall)], edges[:-1])
    assert [tick.get_text() for tick in per_class.get_yticklabels()] == list(NAMES)
    medians = [line for line in per_class.lines if len(set(np.asarray(line.get_xdata()).tolist())) == 1]
    drawn = {float(np.asarray(line.get_xdata())[0]) for line in medians}
    for c in range(3):
        median = np.median(means[train.labels.numpy() == c])
        assert min(abs(median - x) for x in drawn) < 1e-12


def test_class_means_are_the_mean_images_in_grey_from_0_to_1():
    figure = figures()["class_means"]
    train = splits()[0]
    pictures = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in pictures] == list(NAMES)
    for c, axes in enumerate(pictures):
        (picture,) = axes.images
        expected = train.images.numpy()[train.labels.numpy() == c, 0].mean(0) / 255
        np.testing.assert_allclose(np.asarray(picture.get_array()), expected, rtol=1e-12)
        assert picture.get_clim() == (0, 1)


@pytest.mark.parametrize("num", [1, 2, 4, 8, 9, 25])
def test_labelled_batch_is_a_square_of_pictures_each_under_its_name(num):
    images = torch.rand(num, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    figure = labelled_batch(images, [f"class {i}" for i in range(num)])
    assert len(figure.axes) == math.isqrt(num) ** 2
    assert str(len(figure.axes)) in figure.get_suptitle()
    for i, axes in enumerate(figure.axes):
        (picture,) = axes.images
        assert axes.get_title() == f"class {i}"
        assert np.array_equal(np.asarray(picture.get_array()), images[i, 0].numpy())
        assert picture.get_clim() == (0, 1)
