"""Matrices of latents and factors show the block's numbers, and frame the largest of each factor."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from fmvae.visualization.factors import factor_matrix, wanted_factor_figures

MATRIX = [[0.1, 0.9], [0.7, 0.2], [0.0, 0.05]]


def test_a_matrix_shows_its_numbers_and_frames_the_largest_of_each_factor():
    axes = factor_matrix(MATRIX, ["x", "size"], "title").axes[0]
    assert np.allclose(np.array(axes.images[0].get_array()), MATRIX)
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.90", "0.70", "0.20", "0.00", "0.05"]
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert frames == [(-0.5, 0.5), (0.5, -0.5)]  # negative control: not the diagonal
    with pytest.raises(ValueError, match=r"matrix \(3, 2\) for 3 factors"):
        factor_matrix(MATRIX, ["x", "y", "size"], "title")


def test_only_those_that_are_wanted_are_drawn():
    block = {"mutual_information": MATRIX, "importance": MATRIX, "factors": ["x", "size"]}
    assert [name for name, _ in wanted_factor_figures(block, "m", None)] == [
        "factor_information",
        "factor_importance",
    ]
    assert [name for name, _ in wanted_factor_figures(block, "m", ["factor_importance"])] == ["factor_importance"]
    assert not list(wanted_factor_figures(block, "m", []))
