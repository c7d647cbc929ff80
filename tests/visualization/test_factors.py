"""Matrices of latents and factors show the block's numbers, and frame the largest of each factor."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy.stats import entropy

from fmvae.visualization.factors import entropies_of, factor_matrix, wanted_factor_figures

MATRIX = [[0.1, 0.9], [0.7, 0.2], [0.0, 0.05]]


def test_a_matrix_shows_its_numbers_and_frames_the_largest_of_each_factor():
    axes = factor_matrix(MATRIX, ["x", "size"], "title").axes[0]
    assert np.allclose(np.array(axes.images[0].get_array()), MATRIX)
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.90", "0.70", "0.20", "0.00", "0.05"]
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert frames == [(-0.5, 0.5), (0.5, -0.5)]  # negative control: not the diagonal
    with pytest.raises(ValueError, match=r"matrix \(3, 2\) for 3 factors"):
        factor_matrix(MATRIX, ["x", "y", "size"], "title")


def test_colours_are_shares_of_each_factors_entropy_and_the_words_say_so():
    factors = np.stack([np.arange(1000) % 100, np.arange(1000) % 2, np.zeros(1000, int)], 1)
    whole = entropies_of(factors)
    assert whole == pytest.approx([entropy(np.unique(column, return_counts=True)[1]) for column in factors.T])
    assert whole == pytest.approx([np.log(100), np.log(2), 0])
    matrix = [[0.9, 0.1, 0.0], [0.2, 0.6, 0.0]]
    block = {"mutual_information": matrix, "importance": matrix, "factors": ["garment", "x", "y"]}
    shown = dict(wanted_factor_figures(block, "m", None, factors))
    axes, bar = shown["factor_information"].axes
    drawn = np.array(axes.images[0].get_array())
    assert np.allclose(drawn[:, :2], np.array(matrix)[:, :2] / [np.log(100), np.log(2)])
    assert drawn.argmax() == 4 != np.argmax(matrix)  # x is followed more than garment, which has more nats
    assert drawn[:, 2].tolist() == [0, 0]
    assert [text.get_text() for text in axes.texts][:2] == ["0.90", "0.10"]
    white = [text.get_text() for text in axes.texts if text.get_color() == "white"]
    assert white == ["0.60"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("factor", "latent")
    assert bar.get_ylabel() == "share of the factor's entropy"
    assert "the latent that follows a factor most is framed" in title_of(shown["factor_information"])
    # controls: importances keep their numbers, and without the factors the colour is in nats
    other, beside = shown["factor_importance"].axes
    assert np.allclose(np.array(other.images[0].get_array()), matrix)
    assert beside.get_ylabel() == "share of the factor's importances"
    plain = dict(wanted_factor_figures(block, "m", None))["factor_information"]
    assert plain.axes[1].get_ylabel() == "nats"
    assert "entropy" not in title_of(plain)
    with pytest.raises(ValueError, match=r"entropies \(2,\) for 3 factors"):
        factor_matrix(matrix, block["factors"], "title", "nats", [1.0, 2.0])


def title_of(figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def test_only_those_that_are_wanted_are_drawn():
    block = {"mutual_information": MATRIX, "importance": MATRIX, "factors": ["x", "size"]}
    assert [name for name, _ in wanted_factor_figures(block, "m", None)] == [
        "factor_information",
        "factor_importance",
    ]
    assert [name for name, _ in wanted_factor_figures(block, "m", ["factor_importance"])] == ["factor_importance"]
    assert not list(wanted_factor_figures(block, "m", []))
