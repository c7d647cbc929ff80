"""Explorers in Chromium: pixels against torch, no request, no complaint, and a page for hands and keys alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae.models import BaseVAE, ConvVAE
from fmvae.models.priors import MixturePrior
from tests.browser import Tab, opened_tab
from tests.explore.helpers import MODELS, decoded, shifted, stirred, subject, written

pytestmark = pytest.mark.slow

# numbers of images that the page decodes for z (N, D), one after another
DECODE = """([z, labels, run]) => {
  const one = explorer.runs[run].decoder;
  return z.map((row, i) => Array.from(one.decode(Float32Array.from(row), labels[i])));
}"""
PROMISED = 2e-3


def in_page(page, z: Tensor, labels: Tensor | None = None, run: int = 0) -> Tensor:
    """Return the images of z (N, D) that the page decodes: (N, C * H * W)."""
    asked = [0] * len(z) if labels is None else labels.tolist()
    return torch.tensor(page.evaluate(DECODE, [z.tolist(), asked, run]))


def difference(page, one, num: int = 1000) -> float:
    z = 1.5 * torch.randn(num, one.visualizer.latent_dim)
    labels = torch.randint(3, (num,)) if one.visualizer.conditional else None
    return (in_page(page, z, labels) - decoded(one, z, labels).flatten(1)).abs().max().item()


@pytest.mark.parametrize("name", MODELS)
def test_pixels_are_torchs(tab: Tab, tmp_path, name: str):
    one = subject(stirred(MODELS[name]()))
    page = tab.open(written(tmp_path, one))
    assert difference(page, one) < PROMISED
    assert (tab.requests, tab.errors) == ([], [])
    # control: one weight that is wrong by a tenth is seen
    page.evaluate("() => { for (const one of explorer.runs[0].decoder.constants.at(-1)) one[0] += 0.1; }")
    assert difference(page, one, 50) > PROMISED


@pytest.mark.parametrize("model", [BaseVAE(2), ConvVAE(10)], ids=["base", "conv"])
def test_pages_of_the_usual_models_are_small_and_quick(tab: Tab, tmp_path, model):
    one = subject(stirred(model), sources={"gmm": lambda: shifted(model.latent_dim)})
    file = written(tmp_path, one)
    assert file.stat().st_size < 3e6
    page = tab.open(file)
    assert difference(page, one, 200) < PROMISED
    times = page.evaluate("""() => Array.from({ length: 60 }, () => {
      const begun = performance.now();
      explorer.runs[0].decoder.decode(explorer.runs[0].z, 0);
      return performance.now() - begun;
    })""")
    print(f"{type(model).__name__}: {file.stat().st_size / 1e6:.2f} MB, {np.median(times):.2f} ms an image")
    assert np.median(times) < 33


def state(page) -> list[float]:
    return page.evaluate("() => Array.from(explorer.runs[0].z)")


def test_the_keyboard_alone_moves_starts_draws_and_resets(tab: Tab, tmp_path):
    one = subject(stirred(MODELS["base"]()), sources={"gmm": lambda: shifted(4)})
    page = tab.open(written(tmp_path, one))
    begun = state(page)
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = "() => document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''"
        reached.append(page.evaluate(focused))
        if reached[-1] == "dimension-3":
            break
    assert {"reset", "draw", "source", "dimension-0"} <= set(reached)
    assert any(name.startswith("Left, test image") for name in reached)
    page.focus("#dimension-0")
    page.keyboard.press("ArrowRight")
    dimension = page.evaluate("() => explorer.runs[0].order[0]")
    changed = [i for i, (old, new) in enumerate(zip(begun, state(page), strict=True)) if new > old]
    assert changed == [dimension]
    page.focus("#reset")
    page.keyboard.press("Enter")
    assert state(page) == begun
    page.select_option("#source", "gmm")
    page.focus("#draw")
    page.keyboard.press("Enter")
    assert min(state(page)) > 4.9  # where this sampler draws
    page.select_option("#source", "prior")
    page.keyboard.press("Tab")
    page.click("#draw")
    assert max(map(abs, state(page))) < 4.9


def test_a_test_image_starts_at_its_posterior_with_image_and_reconstruction(tab: Tab, tmp_path):
    one = subject(stirred(MODELS["base"]()))
    page = tab.open(written(tmp_path, one))
    button = page.locator("#starts button").nth(4)
    number = int((button.get_attribute("aria-label") or "").split()[-1])
    button.click()
    test = one.data.test
    with torch.no_grad():
        mu, _ = one.visualizer.model.eval().encode(test.images[number][None].float() / 255, None)
    np.testing.assert_allclose(state(page), mu[0], atol=1e-6)
    page.wait_for_function("() => !document.querySelector('#beside figure').hidden")
    shown = """(n) => Array.from(document.querySelectorAll('#beside canvas')[n].getContext('2d')
      .getImageData(0, 0, 16, 16).data).filter((_, i) => i % 4 === 0)"""
    drawn = {name: np.array(page.evaluate(shown, n)) for n, name in enumerate(("Reconstruction", "Test image"))}
    np.testing.assert_array_equal(drawn["Test image"], test.images[number].flatten())
    wanted = 255 * decoded(one, mu).flatten()
    np.testing.assert_allclose(drawn["Reconstruction"], wanted, atol=1.1)


def test_classes_are_chosen_and_shown_at_once(tab: Tab, tmp_path):
    one = subject(stirred(MODELS["conditional_conv"]()))
    page = tab.open(written(tmp_path, one))
    names = page.locator("#classes button").all_inner_texts()
    assert names == ["Left", "Right", "Both"]
    page.click("#classes button >> nth=2")
    assert page.evaluate("() => explorer.state.label") == 2
    page.wait_for_function("() => explorer.painted === explorer.version")
    shown = """() => [...document.querySelectorAll('#classes canvas')].map((canvas) => Array.from(
      canvas.getContext('2d').getImageData(0, 0, 16, 16).data).filter((_, i) => i % 4 === 0))"""
    z = torch.tensor(state(page)).expand(3, -1)
    wanted = 255 * decoded(one, z, torch.arange(3)).flatten(1)
    np.testing.assert_allclose(np.array(page.evaluate(shown)), wanted, atol=1.1)


def test_the_map_decodes_under_the_pointer_and_by_keys(tab: Tab, tmp_path):
    page = tab.open(written(tmp_path, subject(stirred(BaseVAE(2, 20, (1, 8, 8))))))
    assert page.locator("#map li").all_inner_texts() == ["Left", "Right", "Both"]
    before = state(page)
    box = page.locator(".plane").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    low, high = np.array(page.evaluate("() => explorer.map.bounds")).T
    wanted = low + (high - low) * [0.25, 0.75]  # z1 points upward
    np.testing.assert_allclose(state(page), wanted, atol=0.02 * (high - low).max())
    page.mouse.move(1, 1)
    assert state(page) == before  # it was only a look
    page.focus(".plane")
    page.keyboard.press("ArrowUp")
    np.testing.assert_allclose(state(page), [before[0], before[1] + 0.05], atol=1e-6)


def test_the_numbers_on_the_map_are_where_their_values_are_decoded(tab: Tab, tmp_path):
    page = tab.open(written(tmp_path, subject(stirred(BaseVAE(2, 20, (1, 8, 8))))))
    page.locator(".hint").scroll_into_view_if_needed()  # below the plane
    bounds = page.evaluate("() => explorer.map.bounds")
    for axis, side in enumerate(("bottom", "left")):
        ticks = page.locator(f".tick.{side}:visible").all()
        assert len(ticks) >= 3
        for tick in ticks:
            place, value = tick.bounding_box(), float(tick.inner_text().replace("−", "-"))
            assert place
            page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
            assert state(page)[axis] == pytest.approx(value, abs=(bounds[axis][1] - bounds[axis][0]) / 200)


def test_several_runs_move_together(tab: Tab, tmp_path):
    wide, narrow = stirred(BaseVAE(4, 20, (1, 8, 8))), stirred(BaseVAE(2, 20, (1, 8, 8)))
    prior = MixturePrior(4, 3)
    wide.latent_prior = prior
    subjects = [subject(wide, "one", "β = 1, z = 4"), subject(narrow, "two", "β = 4, z = 2")]
    page = tab.open(written(tmp_path, *subjects, left_out=[("third", "failed: NaN")]))
    assert page.locator("#figures strong").all_inner_texts() == ["β = 1, z = 4", "β = 4, z = 2"]
    assert "Left out: third (failed: NaN)" in page.inner_text("#notes")
    assert "not moved (z = 2)" in (page.text_content("#panel") or "")  # in the list of collapsed ones
    both = "() => explorer.runs.map((run) => Array.from(run.z))"
    before = page.evaluate(both)
    page.evaluate("() => explorer.state.move(1, 2)")
    after = page.evaluate(both)
    for run, (old, new) in enumerate(zip(before, after, strict=True)):
        dimension, std = page.evaluate("(r) => [explorer.runs[r].order[1], explorer.runs[r].std]", run)
        wanted = np.array(old)
        wanted[dimension] += 2 * std[dimension]  # two of this run's standard deviations
        np.testing.assert_allclose(new, wanted, atol=1e-5)
    middle = page.evaluate(both)
    page.evaluate("() => explorer.state.move(3, 1)")
    assert page.evaluate(both)[1] == middle[1]
    assert page.evaluate(both)[0] != middle[0]
    z = torch.randn(100, 4)
    assert (in_page(page, z) - decoded(subjects[0], z).flatten(1)).abs().max() < PROMISED
    assert (in_page(page, z[:, :2], run=1) - decoded(subjects[1], z[:, :2]).flatten(1)).abs().max() < PROMISED
    assert (tab.requests, tab.errors, tab.violations()) == ([], [], [])


def test_names_cannot_become_markup(tab: Tab, tmp_path):
    bad = "</script><img src=x onerror='window.broken = 1'>"
    page = tab.open(written(tmp_path, subject(stirred(BaseVAE(2, 20, (1, 8, 8))), bad, names=(bad, "b", "c"))))
    assert page.evaluate("() => window.broken") is None
    assert page.locator("img").count() == 0
    assert page.locator(".legend li").first.get_attribute("title") == bad
    assert page.inner_text(".legend bdi >> nth=0").startswith("</script><img src=x")
    # control: the page's policy is what stops markup that got in by another way, and the listener sees it
    page.evaluate("(html) => document.body.insertAdjacentHTML('beforeend', html)", bad)
    page.wait_for_timeout(200)
    assert page.evaluate("() => window.broken") is None
    assert any("Content Security Policy" in error for error in tab.errors)


@pytest.mark.parametrize("name", ["one", "conditional"])
def test_class_names_of_any_text_are_short_and_whole_under_the_pointer(chromium, tmp_path: Path, name: str):
    names = ("a name that goes on and on " * 4, "\u202eTwo\nlines\x07", "")
    model = BaseVAE(2, 20, (1, 8, 8)) if name == "one" else MODELS["conditional"]()
    file = written(tmp_path, subject(stirred(model), names=names))
    place = "#map .legend li" if name == "one" else "#classes button"
    with opened_tab(chromium, viewport={"width": 420, "height": 900}) as tab:
        page = tab.open(file)
        shown = [text.strip() for text in page.locator(f"{place} bdi").all_inner_texts()]
        assert shown == ["a name that goes on and…", "Two lines?", "2"]
        assert [one.get_attribute("title") for one in page.locator(place).all()] == list(names)
        assert "Two lines?, test image" in (page.locator("#starts button >> nth=3").get_attribute("title") or "")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 420
        assert (tab.errors, tab.violations()) == ([], [])
        # control: the whole name, in one word, would leave the page
        page.evaluate(f"() => document.querySelector('{place} bdi').textContent = 'x'.repeat(300)")
        wide = "for (const one of document.querySelectorAll('*')) one.style.overflowWrap = 'normal'"
        page.evaluate(f"() => {{ {wide}; }}")
        assert page.evaluate("() => document.documentElement.scrollWidth") > 420


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one", "conditional"])
def test_anyone_can_use_it_at_any_width(chromium, tmp_path: Path, scheme, name: str):
    model = BaseVAE(2, 20, (1, 8, 8)) if name == "one" else MODELS["conditional"]()
    file = written(tmp_path, subject(stirred(model)))
    for width in (420, 1024, 1600):
        viewport = {"width": width, "height": 900}
        with opened_tab(chromium, viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as tab:
            page = tab.open(file)
            page.click("#starts button >> nth=1")
            page.wait_for_function("() => explorer.painted === explorer.version")
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width
            assert tab.violations() == []
    # control: a control without a name and pale text are seen
    page_text = file.read_text(encoding="utf-8").replace('<label for="source">from</label>', "")
    file.write_text(page_text, encoding="utf-8")
    with opened_tab(chromium) as tab:
        tab.open(file)
        assert any("select-name" in found for found in tab.violations())
