"""Formats, font and width of figures: files of every kind, the same bytes each time, and no trace in a name."""

import json

import pytest
from matplotlib.font_manager import FontProperties, findfont

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.config.project import own_keys
from fmvae.errors import ConfigError
from fmvae.runs.recorder import Album, pixels, render
from fmvae.visualization import Appearance, appearing, training_curves
from fmvae.visualization.appearance import size
from tests.visualization.test_curves import history

BEGINS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
NEW = ("format", "font", "font_size", "width", "dpi")


def test_the_defaults_are_those_of_the_config():
    assert Appearance.of(own_keys("train")["figures"]) == Appearance() == Appearance.of({})


@pytest.mark.parametrize("kind", BEGINS)
def test_a_figure_is_saved_in_each_format_with_the_same_bytes(kind, tmp_path):
    look = Appearance(formats=(kind,), font="DejaVu Serif", width=6)
    made = []
    for _ in range(2):
        with appearing(look):
            album = Album(tmp_path)
            album.figure("curves", training_curves(history(3)), look.formats, look.dpi)
        made.append((tmp_path / f"curves.{kind}").read_bytes())
        assert list(album.files) == [f"curves.{kind}"]
    assert made[0].startswith(BEGINS[kind])
    assert made[0] == made[1]
    if kind == "svg":  # the control: without the salt, ids differ
        first, second = (render(training_curves(history(3)), "svg") for _ in range(2))
        assert first != second
    if kind == "pdf":
        assert b"/Type3" not in made[0]


def test_width_font_and_resolution_are_those_asked_for():
    with appearing(Appearance(width=6.5, font="DejaVu Serif", font_size=8)):
        figure = training_curves(history(3))
        assert figure.get_figwidth() == 6.5
        label = figure.axes[0].xaxis.label
        assert label.get_fontsize() == 8
        assert findfont(label.get_fontproperties()) == findfont(FontProperties(family="DejaVu Serif"))
        assert pixels(render(figure, dpi=100)).shape[1] == 650
    plain = training_curves(history(3))
    assert (plain.get_figwidth(), plain.axes[0].xaxis.label.get_fontsize()) == (13, 10)


def test_a_default_appearance_changes_no_byte():
    before = render(training_curves(history(3)))
    with appearing(Appearance()):
        assert render(training_curves(history(3))) == before
    with appearing(Appearance(font_size=9)):
        assert render(training_curves(history(3))) != before  # the control


def test_a_narrow_figure_stays_high_enough_for_its_text():
    with appearing(Appearance(width=3)):
        assert size(12, 6) == (3, 2.4)
        assert size(6, 8) == (3, 4)
        assert size(12, 2) == (3, 2)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("figures.format=gif", "figures.format"),
        ("figures.format=[png,jpg]", "figures.format"),
        ("figures.format=[]", "figures.format"),
        ("figures.width=1", "figures.width"),
        ("figures.width=wide", "figures.width"),
        ("figures.font_size=200", "figures.font_size"),
        ("figures.dpi=0", "figures.dpi"),
        ("figures.font=[a]", "figures.font"),
    ],
)
def test_wrong_values_are_refused_in_one_line(override, key):
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert str(caught.value).startswith(key)
    assert "\n" not in str(caught.value)


def test_a_font_that_is_not_installed_is_refused_with_similar_ones():
    with pytest.raises(ConfigError, match=r"figures.font: 'DejaVu Serf' is not installed.*DejaVu Serif"):
        Appearance.of({"font": "DejaVu Serf"})


def test_no_key_of_them_is_in_a_name():
    plain = RunIdentity.of(compose([]))
    asked = ["figures.format=[pdf,svg]", "figures.font=DejaVu Serif", "figures.width=5", "figures.dpi=300"]
    assert RunIdentity.of(compose([*asked, "figures.font_size=8"])) == plain
    assert RunIdentity.of(compose(["trainer.epochs=31"])) != plain  # the control
    assert not set(NEW) & json.loads(json.dumps(plain.semantic)).get("figures", {}).keys()
