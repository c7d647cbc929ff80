"""matplotlib that cannot be imported is said in one line, after the numbers are safe."""

import sys

import pytest

from fmvae.errors import ConfigError
from fmvae.visualization.tiles import new_figure


def test_without_matplotlib_no_figure(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"^figures: matplotlib cannot be imported"):
        new_figure(1, 1)
    monkeypatch.undo()
    assert new_figure(1, 2).get_size_inches().tolist() == [1, 2]
