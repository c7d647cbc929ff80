"""Figures of factors: a row for each, in which it alone varies; and the counts of its values."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from fmvae.data import ImageData, Sprites
from fmvae.data.__main__ import main
from fmvae.data.checks import Array
from fmvae.data.factor_figures import factor_figures, shown_values, varied
from fmvae.errors import DataError
from tests.factor_files import factors_of


@pytest.fixture(scope="module")
def data() -> Sprites:
    return Sprites(num_train=300, val_size=50, num_test=80)


def drawn_of(data: Sprites) -> dict[str, Figure]:
    return factor_figures(data.splits, data.factor_names, data.factor_sizes, data.render)


@pytest.mark.parametrize(("size", "shown"), [(1, [0]), (2, [0, 1]), (10, [*range(10)]), (19, [*range(0, 19, 2)])])
def test_shown_values_are_all_or_evenly_spread(size, shown):
    assert shown_values(size) == shown


def test_only_one_factor_varies_in_a_row():
    rows = varied((3, 6, 20), 1)
    assert rows.tolist() == [[1, value, 10] for value in range(6)]


def test_pictures_are_rendered_from_the_factors_that_the_titles_name(data):
    figure = drawn_of(data)["factors"]
    panels = np.array(figure.axes).reshape(5, 10)
    for k, (name, row) in enumerate(zip(data.factor_names, panels, strict=True)):
        assert name in row[0].get_ylabel()
        drawn = [axes for axes in row if axes.images]
        factors = varied(data.factor_sizes, k)
        assert [axes.get_title() for axes in drawn] == [str(value) for value in factors[:, k].tolist()]
        for axes, image in zip(drawn, data.render(factors), strict=True):
            assert np.array_equal(np.asarray(axes.images[0].get_array()), image[0].numpy() / np.float32(255))
    figure.savefig(io.BytesIO(), format="png", dpi=30)


def test_bars_are_the_shares_of_values(data):
    figure = drawn_of(data)["factor_values"]
    for k, (name, axes) in enumerate(zip(data.factor_names, figure.axes, strict=True)):
        assert name in axes.get_xlabel()
        lines = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        for line, split in zip(lines, data.splits, strict=True):
            counts = np.bincount(factors_of(split)[:, k].numpy(), minlength=data.factor_sizes[k])
            assert np.allclose(line.get_data()[0], counts / len(split))


def test_without_render_only_counts_are_drawn():
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    factors = torch.tensor([[0, 1], [1, 0], [2, 1], [0, 0], [1, 1], [2, 0]])
    parts = dict.fromkeys(("train", "val", "test"), (images, None))
    of_each: dict[str, Array] = dict.fromkeys(parts, factors)
    own = ImageData(**parts, factors=of_each, factor_names=["a", "b"], factor_sizes=[3, 2])
    assert not own.renders
    assert {*own.perform_eda()} == {"factor_values", "mean_intensity", "pixel_intensity"}
    with pytest.raises(
        DataError, match=r"^ImageData: images cannot be made from factors; choose data that can, as"
    ):
        own.render(factors)


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_draws_the_dataset_that_is_named(tmp_path, capsys):
    sizes = ["data.num_train=300", "data.val_size=50", "data.num_test=80"]
    assert main(["eda", "data=sprites", *sizes, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "factor orientation: 20 values" in out
    assert "no labels" in out
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert drawn == {"sanity_check", "pixel_intensity", "mean_intensity", "factors", "factor_values"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["stats", "data=sprites", "data.apart=[hue]"],
            "data.apart: there is no factor 'hue'; give some of shape, ",
        ),
        (
            ["stats", "data=sprites", "--root", "x"],
            "--root: an option for Fashion-MNIST, beside overrides; give data",
        ),
        (
            ["stats", "data=sprites", "--no-download"],
            "--no-download: an option for Fashion-MNIST, beside overrides;",
        ),
        (["stats", "beta=2"], "beta=2: no override of the dataset; give data=<option> or data.<key>=<value>"),
        (["fetch", "beta=2"], "beta=2: no override of the dataset; give data=<option> or data.<key>=<value>"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(arguments, line, capsys):
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


# --- ImageData ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"factor_names": ["a"]},
            DataError,
            r"data \(factors\): factors of train, val, test, 1 names and 2 sizes",
        ),
        ({"factor_names": ["a", "a"]}, DataError, r"data \(factors\): factors of train, val, test, 2 names and 2"),
        (
            {"factors": None},
            DataError,
            r"data \(factors\): factors of no split, 2 names and 2 sizes; give factors",
        ),
        ({"factor_sizes": [3, 1]}, DataError, r"data \(train factors\): b = 1; give 0 to 0"),
        (
            {"factors": dict.fromkeys(("train", "val", "test"), np.zeros((5, 2), int))},
            DataError,
            "5 rows for 6 im",
        ),
        ({"factors": dict.fromkeys(("train", "val", "test"), np.zeros((6, 2)))}, DataError, "no whole numbers"),
    ],
)
def test_factors_that_do_not_fit_are_told_in_one_line(changed, error, message):
    images = np.zeros((6, 1, 4, 4), np.uint8)
    factors = np.array([[0, 1], [1, 0], [2, 1], [0, 0], [1, 1], [2, 0]])
    parts = dict.fromkeys(("train", "val", "test"), (images, None))
    given = {"factors": dict.fromkeys(parts, factors), "factor_names": ["a", "b"], "factor_sizes": [3, 2]}
    assert factors_of(ImageData(**parts, **given).train).tolist() == factors.tolist()
    with pytest.raises(error, match=message):
        ImageData(**parts, **{**given, **changed})


def test_a_traversals_rows_name_the_factor_that_each_dimension_follows_most():
    from fmvae.visualization.factors import LEAST, followed

    block = {"mutual_information": [[0.1, 1.42], [LEAST / 2, 0.0], [0.7, 0.6]], "factors": ["x", "shape"]}
    assert followed(block) == ["shape: 1.42 nats", "no factor", "x: 0.70 nats"]
    assert followed(None) is None
