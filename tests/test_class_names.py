"""Class names of any text: what people see of them is short, different, in one line, and has glyphs."""

import itertools
import json
import logging
import re
import unicodedata
import warnings
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import font_manager
from matplotlib.figure import Figure

from fmvae.common.class_names import LONGEST, drawable, readable
from fmvae.config import compose
from fmvae.data import CIFAR10, CLASS_NAMES, ImageData
from fmvae.data.named import EMNIST, KMNIST, MNIST, QMNIST
from fmvae.data.split import Split
from fmvae.models import BaseVAE, ConditionalVAE
from fmvae.objectives import Bernoulli
from fmvae.visualization import VAEVisualizer, measure_figures, result_figures
from fmvae.visualization.projector import projector_data, write_projector
from fmvae.visualization.walk import sample_walk
from tests.visualization.helpers import seeded
from tests.visualization.test_titles import HISTORY, cut_off

LONG = "a very long name of a class of garments that nobody would ever read to its end, sleeves"
NASTY = (
    LONG,
    LONG + " and all",  # equal once it is short
    "two\nlines\tand\r\nmore",
    "\x1b[31mred\x07\x00",
    "👕👖",
    "シャツ",
    "\u202eedirrevo\u202c and \u2066isolated\u2069",
    "",
    r"$\frac{1}$ and $x^2$",
    "_hidden \ud800 e\u0301t\u00e9",
)
HEBREW, FAMILY = "חולצה", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
X = "x" * LONGEST
TEXTS = ("", " ", "0", "1", "a", "a (1)", "?", "…", X, X + "x", X + "xy", "\n", "👕", "👖👕", "$", *NASTY)


def in_one_line(text: str) -> bool:
    return all(unicodedata.category(one) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for one in text)


def test_usual_names_are_left_as_they_are():
    for names in (CLASS_NAMES, tuple("abc"), ("x" * LONGEST, "été", HEBREW)):
        assert readable(names) == drawable(names) == names


@pytest.mark.parametrize("blank", ["\u3164", "\u115f\u2800", " \uffa0\u1160 "])
def test_a_name_of_blanks_alone_is_its_index(blank):
    assert readable((blank, f"a{blank}b")) == ("0", "a b")


@pytest.mark.parametrize("dataset", [MNIST, KMNIST, QMNIST, CIFAR10, EMNIST])
def test_names_of_published_datasets_are_left_too(dataset):
    unread = object.__new__(dataset)  # its files need not be there
    for split in EMNIST.classes:
        unread.split = split
        assert readable(unread.names()) == drawable(unread.names()) == unread.names()


def test_each_kind_of_text_is_made_fit_to_be_shown():
    shown = readable(NASTY)
    assert shown[:2] == ("a very long name of… (0)", "a very long name of… (1)")
    assert shown[2:] == (
        "two lines and more",
        "?[31mred??",
        "👕👖",
        "シャツ",
        "edirrevo and isolated",
        "7",
        r"$\frac{1}$ and $x^2$",
        "_hidden ? été",
    )
    drawn = drawable(NASTY)
    assert drawn[4:6] == ("4", "5")  # no glyph at all: the index, as "??" would tell nothing
    assert drawn[8] == r"\$\frac{1}\$ and \$x^2\$"
    assert drawable(NASTY, escaped=False)[8] == NASTY[8]
    assert drawable(["T恤 shirt", "b"]) == ("T? shirt", "b")
    assert readable([FAMILY, "b"]) == (FAMILY, "b")  # the joiners within it are kept


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_given_is_shown_short_different_and_in_one_line(seed):
    generator = np.random.default_rng(seed)
    chosen = [str(one) for one in generator.permutation(np.array(TEXTS, dtype=object))[:12]]
    names = [*chosen, *("".join(map(chr, generator.integers(1, 0x11000, 30))) for _ in range(4))]
    for shown in (readable(names), drawable(names, escaped=False)):
        assert len(set(shown)) == len(names)
        assert all(shown)
        assert max(map(len, shown)) <= LONGEST
        assert all(map(in_one_line, shown))
    # control: the names themselves are none of it
    assert max(map(len, names)) > LONGEST or not all(map(in_one_line, names)) or not all(names)


# figures that show class names
OF_CLASSES = (
    *("reconstructions", "class_samples", "style_transfer", "latent_scatter", "interpolations", "samples"),
    *("latent_manifold_class_0", "traversal_class_1", "traversal_posterior", "confusion_matrix", "class_accuracy"),
)


class Drawn(NamedTuple):
    figures: dict[str, Figure]
    said: list[str]


def of_names(names: tuple[str, ...], kind: str, latent_dim: int, settings: list[str]) -> Drawn:
    """Draw all figures of a small run and of its data, and return them with all warnings."""
    generator = torch.Generator().manual_seed(0)

    def split(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randint(256, (num, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return images, torch.arange(num) % len(names)

    data = ImageData(train=split(60), val=split(30), test=split(40), class_names=names, batch_size=30)
    sizes = (latent_dim, len(names)) if kind == "conditional" else (latent_dim,)
    model_class = ConditionalVAE if kind == "conditional" else BaseVAE
    model = seeded(model_class, *sizes, hidden_dim=8, image_shape=(1, 8, 8))
    shows = VAEVisualizer(model, Bernoulli(), class_names=names)
    only = list(OF_CLASSES) if kind == "conditional" else None
    chosen = compose(["figures=all", *settings])["figures"] | {"manifold_side": 2, "only": only}
    figures: dict[str, Figure] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, figure in result_figures(shows, data, HISTORY, chosen, None, {}):
            figures[name] = figure
        side = {"confusion": np.eye(len(names), dtype=int).tolist(), "num_images": 40}
        block = {"generated": side, "real": side, "settings": {"extractor_sha256": "f" * 64}}
        figures |= dict(measure_figures(shows, {"accuracy": block}, chosen))
        figures["sanity"] = data.sanity_check()
        figures |= data.perform_eda()
        figures = {name: figure for name, figure in figures.items() if isinstance(figure, Figure)}
        for figure in figures.values():
            figure.draw_without_rendering()
    return Drawn(figures, [str(one.message) for one in caught])


def overlapping(figure: Figure) -> list[str]:
    """Return names of columns, drawn without turning them, that run into the next one."""
    found = []
    for axes in figure.axes:
        texts = [one for one in axes.get_xticklabels() if one.get_text() and not one.get_rotation()]
        boxes = [(one.get_window_extent(), one.get_text()) for one in texts]
        found += [
            f"{a[1]} | {b[1]}"
            for a, b in itertools.pairwise(sorted(boxes, key=lambda box: box[0].x0))
            if a[0].x1 > b[0].x0 + 1 and not re.fullmatch(r"[-−.\d%σ]+", a[1])
        ]
    return found


@pytest.mark.parametrize(
    ("kind", "latent_dim"), [("conditional", 2), pytest.param("base", 1, marks=pytest.mark.slow)]
)
def test_figures_of_any_names_warn_of_nothing_and_show_all(kind, latent_dim, caplog):
    with caplog.at_level(logging.WARNING):
        drawn = of_names(NASTY, kind, latent_dim, [])
    assert not [line for line in drawn.said if "lyph" in line or "font" in line or "label" in line]
    assert "matplotlib" not in {record.name.partition(".")[0] for record in caplog.records}
    assert len(drawn.figures) > 8
    for name, figure in drawn.figures.items():
        assert cut_off(figure) == 0, name
        assert not overlapping(figure), name
    legend = drawn.figures["latent_scatter"].axes[0].get_legend()
    if latent_dim == 2:
        assert legend is not None
        assert {one.get_text() for one in legend.get_texts()} >= set(drawable(NASTY))


def test_the_control_names_as_they_are_warn_and_fail(monkeypatch):
    for module in ("visualization.model_view", "visualization.classes", "data.eda", "data.images"):
        monkeypatch.setattr(f"fmvae.{module}.drawable", tuple)
    names = ("シャツ", "a" * 60, "b" * 60)
    drawn = of_names(names, "conditional", 2, [])
    assert any("lyph" in line for line in drawn.said)
    with pytest.raises(ValueError, match="frac"):
        of_names((r"$\frac{1}$", "b"), "conditional", 2, [])


def test_the_font_of_figures_decides_what_can_be_drawn():
    lacking = "cmr10"
    assert not font_manager.get_font(font_manager.findfont(lacking)).get_char_index(ord(HEBREW[0]))
    assert drawable([HEBREW, "b"]) == (HEBREW, "b")
    with matplotlib.rc_context({"font.family": [lacking]}):
        assert drawable([HEBREW, "b"]) == ("0", "b")
    with matplotlib.rc_context({"font.family": [lacking, "DejaVu Sans"]}):
        assert drawable([HEBREW, "b"]) == (HEBREW, "b")


def test_animations_and_the_projector_take_any_names(tmp_path):
    model = seeded(ConditionalVAE, 2, len(NASTY), hidden_dim=8, image_shape=(1, 8, 8))
    shows = VAEVisualizer(model, Bernoulli(), class_names=NASTY)
    assert sample_walk(shows, draws=2, steps=1)[:3] == b"GIF"
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    found = projector_data(shows, Split("test", images, torch.arange(20) % 10))
    write_projector(tmp_path, found)
    lines = next(tmp_path.rglob("metadata.tsv")).read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line]
    assert rows[0] == ["class", "index"]
    assert len(rows) == 21  # control: NASTY has a line break and a tab
    assert [row[0] for row in rows[1:11]] == list(readable(NASTY))
    assert all(len(row) == 2 for row in rows)
    assert json.dumps(found.metadata)
