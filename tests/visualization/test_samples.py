"""Figures and animations of samples from other densities than the prior: what is drawn, asked for and named."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fmvae import rng
from fmvae.config import compose
from fmvae.errors import ConfigError
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.visualization import (
    Source,
    check_figures,
    result_animations,
    result_figures,
    sample_walk,
    samplers_drawn,
)
from fmvae.visualization.animation import enlarged
from fmvae.visualization.walk import AT_DRAW, BETWEEN, LEVELS, TILES
from tests.visualization.helpers import means_of, seeded, shown, tile_at, visualizer


def far(num: int, labels: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
    """Latents in float64 that the prior would not give: around 5, and for labels around 5 times the label."""
    z = torch.randn(num, 3, generator=generator, dtype=torch.float64)
    return z + 5 if labels is None else z + 5 * labels[:, None]


SOURCE = Source("a density of this test", far)
SOURCES = {"gmm": lambda: SOURCE}


@pytest.fixture(scope="module")
def data(small_data):
    return small_data()


def settings(**changes) -> dict:
    return compose(["figures=default"])["figures"] | changes


def shows(*, conditional: bool = False):
    return visualizer(seeded(ConditionalVAE if conditional else BaseVAE, 3, hidden_dim=8))


def drawn(view, names: list[str], data, sources) -> dict:
    return dict(result_figures(view, data, [], settings(only=names), None, sources))


def test_each_sampler_has_its_figures_beside_those_of_the_prior(data):
    sources = {**SOURCES, "flow": lambda: SOURCE}
    for conditional, expected in ((False, set()), (True, {"class_samples_gmm", "class_samples_flow"})):
        view = shows(conditional=conditional)
        without = {name for name, _ in result_figures(view, data, HISTORY, settings(traversal=FEW))}
        found = {name for name, _ in result_figures(view, data, HISTORY, settings(traversal=FEW), None, sources)}
        assert found - without == {"samples_gmm", "samples_flow", "neighbours_gmm", "neighbours_flow"} | expected


FEW = {"span": 1.0, "steps": 2, "dimensions": [0], "every_class": False}
HISTORY = [{"epoch": 1, "beta": 1.0, "train/objective": 3.0, "train/recon": 2.0, "train/kl": 1.0}]


@pytest.mark.parametrize("conditional", [False, True])
def test_the_tiles_are_decoded_draws_of_the_source(conditional, data):
    view = shows(conditional=conditional)
    labels = torch.arange(10).repeat_interleave(6) if conditional else None  # 64 samples, whole rows
    num, columns = (60, 6) if conditional else (64, 8)
    figures = drawn(view, ["samples", "samples_gmm"], data, SOURCES)
    z = far(num, labels, rng.stream(0, "sampling")).float()
    expected, array = means_of(view.model, z, labels), shown(figures["samples_gmm"])
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(tile_at(array, *divmod(index, columns)), image)
    # negative control: the prior's tiles are others
    assert np.abs(tile_at(shown(figures["samples"]), 0, 0) - expected[0]).max() > 1e-3


def test_class_samples_have_a_row_for_each_class(data):
    view, labels = shows(conditional=True), torch.arange(10).repeat_interleave(20)
    figure = drawn(view, ["class_samples_gmm"], data, SOURCES)["class_samples_gmm"]
    expected = means_of(view.model, far(200, labels, rng.stream(0, "sampling")).float(), labels)
    np.testing.assert_array_equal(tile_at(shown(figure), 9, 19), expected[-1])
    assert figure.get_suptitle().startswith("20 samples for each class, from a density of this test: ")


def test_titles_say_what_was_drawn_from(data):
    figures = drawn(shows(), ["samples", "samples_gmm"], data, SOURCES)
    assert figures["samples"].get_suptitle().startswith("Samples from the prior: ")
    assert figures["samples_gmm"].get_suptitle().startswith("Samples from a density of this test: ")


def test_nothing_is_fitted_for_figures_that_are_not_asked_for(data):
    fits = []
    sources = {"gmm": lambda: fits.append("gmm") or SOURCE}
    for chosen in (settings(only=["samples"]), settings(only=[]), settings(only=["traversal_prior"], gif=True)):
        list(result_figures(shows(), data, [], chosen, None, sources))
        list(result_animations(shows(), data, chosen, None, sources))
        assert samplers_drawn(chosen, sources) == []
        assert fits == []
    for name in ("samples_gmm", "class_samples_gmm"):
        assert samplers_drawn(settings(only=[name]), ["gmm", "flow"]) == ["gmm"]
    assert samplers_drawn(settings(), ["gmm", "flow"]) == ["gmm", "flow"]
    drawn(shows(), ["samples_gmm"], data, sources)
    assert fits == ["gmm"]  # it would have been seen


def test_figures_of_a_sampler_can_be_asked_for_by_name(data):
    check_figures(shows(), data, settings(only=["samples_gmm"]), ["gmm"])
    check_figures(shows(conditional=True), data, settings(only=["class_samples_gmm"]), ["gmm"])
    with pytest.raises(ConfigError, match=r"samples_flow.*give evaluation.samplers=\[prior,gmm,flow\]"):
        check_figures(shows(), data, settings(only=["samples_flow"]), ["gmm"])
    with pytest.raises(ConfigError, match=r"class_samples_gmm' is not a figure of .* choose from .*samples_gmm"):
        check_figures(shows(), data, settings(only=["class_samples_gmm"]), ["gmm"])
    with pytest.raises(ConfigError, match=r"samples_prior' is not a figure"):
        check_figures(shows(), data, settings(only=["samples_prior"]), ["gmm"])


# --- the animation ------------------------------------------------------------------------------------------


def tiles_of(content: bytes, view, index: int) -> tuple[np.ndarray, int]:
    """The tiles (N, 84, 84) of a frame, found below the headings, and its milliseconds."""
    image = Image.open(io.BytesIO(content))
    image.seek(index)
    grey = np.asarray(image.convert("L"))
    named = 20 if view.conditional else 8
    pitch = 92 if not view.conditional else None
    top = 40 + 8 + named
    if pitch is None:  # as wide as the longest name: find the second tile by the white between
        dark = np.flatnonzero((grey[top : top + 84] < 250).any(0))
        pitch = int(dark[np.flatnonzero(np.diff(dark) > 8)[0] + 1] - dark[0])
    rows = [
        grey[top + row * (84 + named) :, 8 + column * pitch :][:84, :84] for row in range(2) for column in range(5)
    ]
    return np.stack(rows), image.info["duration"]


def expected_tiles(view, z, labels=None) -> np.ndarray:
    return enlarged(torch.from_numpy(means_of(view.model, z, labels)), 3, LEVELS)


def test_the_walk_rests_at_draws_and_goes_straight_between_them():
    view = shows()
    content = sample_walk(view, SOURCE, draws=3, steps=4)
    assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 12
    z = far(3 * TILES, None, rng.stream(0, "sampling")).float().unflatten(0, (TILES, 3))
    for draw in range(3):
        here, after = z[:, draw], z[:, (draw + 1) % 3]  # the last leads back to the first
        tiles, milliseconds = tiles_of(content, view, 4 * draw)
        np.testing.assert_allclose(tiles, expected_tiles(view, here), atol=1)
        assert milliseconds == AT_DRAW
        halfway, milliseconds = tiles_of(content, view, 4 * draw + 2)
        np.testing.assert_allclose(halfway, expected_tiles(view, (here + after) / 2), atol=5)  # a level is 4
        assert milliseconds == BETWEEN
        assert np.abs(halfway - tiles.astype(float)).max() > 20  # control: it moves


def test_a_tile_of_a_conditional_model_keeps_its_class():
    view = shows(conditional=True)
    content = sample_walk(view, SOURCE, draws=2, steps=1)
    labels = torch.arange(10).repeat_interleave(2)
    z = far(20, labels, rng.stream(0, "sampling")).float().unflatten(0, (10, 2))
    for draw in range(2):
        tiles, _ = tiles_of(content, view, draw)
        np.testing.assert_allclose(tiles, expected_tiles(view, z[:, draw], torch.arange(10)), atol=1)


def test_the_prior_can_be_walked_and_too_few_draws_are_refused():
    assert sample_walk(shows(), draws=2, steps=1) != sample_walk(shows(), SOURCE, draws=2, steps=1)
    for wrong in ({"draws": 1}, {"steps": 0}):
        with pytest.raises(ValueError, match="give 2 draws"):
            sample_walk(shows(), SOURCE, **wrong)


def test_the_animation_goes_with_its_figure(data):
    def files(**changes) -> list[str]:
        chosen = settings(traversal=FEW, **changes)
        return [name for name, _ in result_animations(shows(), data, chosen, None, SOURCES)]

    assert files() == ["traversal_prior.gif", "samples_gmm.gif"]
    assert files(only=["samples_gmm"]) == ["samples_gmm.gif"]
    assert files(only=["samples"]) == files(gif=False) == []


def test_fewer_levels_are_evenly_spaced_from_black_to_white():
    values = torch.linspace(0, 1, 1001)[:, None, None, None]
    found = np.unique(enlarged(values, 1, 4))
    assert found.tolist() == [0, 85, 170, 255]
    assert len(np.unique(enlarged(values, 1))) == 256
