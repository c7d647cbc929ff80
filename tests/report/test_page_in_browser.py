"""The report's page in a real browser: tables, charts, keyboard, colours, sizes, and texts that are markup."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from fmvae.report.sweep import write_report
from tests.browser import Tab, opened_tab
from tests.report.fakes import TC, edit_status, write_figure, write_run
from tests.report.test_learning import write_history

pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>&amp;"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "a <b>sweep & more"
    for z in (2, 10):
        for beta in (0.5, 4.0, 16.0):
            for seed in range(2):
                parts = {"mi": 5.0 - beta / 8, "tc": 1.0, "dimension_wise": 2.0}
                loss = TC if beta == 16.0 else None
                fid = None if z == 10 else 8.0 + beta / 7 + seed
                run = write_run(folder, beta=beta, z=z, seed=seed, loss=loss, decomposition=parts, fid=fid)
                write_figure(run, "samples", beta / 20)
                write_history(run, [300.0, 260.0 + beta, 255.0 + beta])
                (run / "overrides.yaml").write_text(f'- "seed={seed}"\n- "data.class_names=[{EVIL[:4]}]"\n')
    edit_status(write_run(folder, beta=9.0, state="failed"), error=EVIL)
    shutil.copy(next(folder.glob("*/config.yaml")), folder / "explorer.html")
    return write_report([folder])


def column(tab: Tab, header: str) -> list[str]:
    """The visible cells of a column of the table of settings, from above."""
    return tab.page.evaluate(
        """header => {
            const table = document.querySelector("table");
            const at = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === header);
            const cells = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at]);
            return cells.filter((cell) => cell.checkVisibility()).map((cell) => cell.textContent);
        }""",
        header,
    )


def test_it_asks_for_nothing_complains_of_nothing_and_texts_are_texts(tab, report):
    page = tab.open(report)
    assert (tab.requests, tab.errors) == ([], [])
    assert page.title() == "a <b>sweep & more"
    assert EVIL in " ".join(page.locator("td").all_text_contents())
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("nav a", has_text="Explorer").count() == 1


def test_the_control_a_page_that_does_not_escape_is_noticed(tab, tmp_path):
    (tmp_path / "page.html").write_text(f"<p>{EVIL}</p>")
    page = tab.open(tmp_path / "page.html")
    page.wait_for_function("document.title === 'taken'")
    assert tab.requests


def test_the_answer_is_seen_first(tab, report):
    page = tab.open(report)
    assert page.locator("main > :first-child h2").text_content() == "Conclusion"
    for width, height in ((1600, 900), (1024, 768), (420, 800)):
        page.set_viewport_size({"width": width, "height": height})
        box = page.locator(".findings li").first.bounding_box()
        assert box
        assert box["y"] + box["height"] < height, width


def test_columns_sort_by_keyboard_numbers_by_value_and_empty_cells_last(tab, report):
    page = tab.open(report)
    before = column(tab, "β")
    button = page.locator("table").first.get_by_role("button", name="β", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert [float(text) for text in column(tab, "β")] == sorted(map(float, before))
    page.keyboard.press("Enter")
    assert [float(text) for text in column(tab, "β")] == sorted(map(float, before), reverse=True)
    page.keyboard.press("Enter")
    assert column(tab, "β") == before
    for _ in range(2):  # both orders
        page.locator("table").first.get_by_role("button", name="FID resnet18").click()
        cells = column(tab, "FID resnet18")
        assert cells[:3] != ["", "", ""]
        assert cells[3:] == ["", "", ""]


def test_rows_are_filtered_and_columns_hidden(tab, report):
    page = tab.open(report)
    tools = page.locator(".tools").first
    tools.get_by_role("searchbox").fill("TC")
    assert column(tab, "loss") == ["tc", "tc"]
    assert tools.get_by_role("status").text_content() == "2 of 6 rows"
    tools.get_by_role("searchbox").fill("")
    assert len(column(tab, "loss")) == 6
    tools.locator("summary").press("Enter")
    tools.get_by_role("checkbox", name="loss").press("Space")
    assert column(tab, "loss") == []
    assert len(column(tab, "β")) == 6


def test_points_tell_what_they_are_under_the_pointer_and_by_keyboard(tab, report):
    page = tab.open(report)
    marks = page.locator(".chart").first.locator(".marks a")
    assert marks.count() == 6
    tip = page.locator(".tip")
    assert not tip.is_visible()
    marks.nth(2).hover()
    assert tip.is_visible()
    text = tip.text_content() or ""
    assert "KL " in text
    assert "recon " in text
    marks.nth(0).focus()
    first = tip.text_content()
    page.keyboard.press("ArrowRight")
    assert tip.text_content() not in (first, None)
    assert tip.text_content() == marks.nth(1).get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert [mark.get_attribute("tabindex") for mark in marks.all()].count("0") == 1


def test_the_tip_stays_within_the_window(tab, report):
    page = tab.open(report)
    page.set_viewport_size({"width": 420, "height": 800})
    for mark in page.locator(".chart .marks a").all()[::5]:
        mark.focus()
        box = page.locator(".tip").bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 420


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 1024, 420])
def test_it_is_accessible_and_nothing_lies_outside(chromium, report, scheme, width):
    with opened_tab(chromium, viewport={"width": width, "height": 900}, color_scheme=scheme) as tab:
        page = tab.open(report)
        page.locator(".tools summary").first.click()
        assert tab.violations() == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_sees_what_is_wrong(tab, report, tmp_path):
    """The control: pale text, a table's region that no key reaches, and a link without a name."""
    text = report.read_text().replace("--dim: #55595f", "--dim: #c9c9c9").replace(' aria-label="PNG"', "")
    text = text.replace('tabindex="0" role="region"', "").replace(">PNG</a>", "></a>")
    (tmp_path / "page.html").write_text(text)
    tab.open(tmp_path / "page.html")
    found = {line.partition(":")[0] for line in tab.violations()}
    assert {"color-contrast", "link-name"} <= found


def test_without_javascript_it_is_a_plain_table_and_every_point_is_a_link(chromium, report):
    with opened_tab(chromium, java_script_enabled=False) as tab:
        page = tab.open(report)
        assert page.locator("table").first.locator("tbody tr").count() == 6
        assert page.locator("button, input").count() == 0
        mark = page.locator(".marks a").first
        assert "KL " in (mark.locator("title").text_content() or "")
        assert page.locator("pre code").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_figure_glares_in_the_dark_and_pictures_are_never_inverted(chromium, report, scheme):
    def shade(tab: Tab, box: Any) -> Any:
        shot = tab.page.screenshot(clip={"x": box["x"], "y": box["y"], "width": 3, "height": 3})
        return Image.open(io.BytesIO(shot)).convert("L").getpixel((1, 1))

    with opened_tab(chromium, viewport={"width": 1024, "height": 900}, color_scheme=scheme) as tab:
        page = tab.open(report)
        for figure in page.locator(".chart > *, .sheet").all():
            figure.scroll_into_view_if_needed()
            corner = shade(tab, figure.bounding_box() or {})
            assert corner < 40 if scheme == "dark" else corner > 240
        last = page.locator(".sheet").first.locator("a").last  # of beta = 16, whose tile has the grey 0.8
        last.scroll_into_view_if_needed()
        box = last.bounding_box()
        assert box
        tile = {"x": box["x"] + box["width"] / 6, "y": box["y"] + box["height"] / 4}
        assert shade(tab, tile) == pytest.approx(0.8 * 255, abs=12)
        # control: with paper of its own, as a picture beside the page has it, a sheet is seen as light
        paper = "document.querySelector('.sheet img').style.cssText = 'background: #fff; filter: none'"
        page.evaluate(f"() => {{ {paper}; }}")
        page.locator(".wide:has(.sheet)").first.evaluate(
            "(wide) => { wide.scrollLeft = 0; wide.scrollIntoView(); }"
        )
        assert shade(tab, page.locator(".sheet").first.bounding_box() or {}) > 240


def test_titles_of_charts_are_in_sight_on_a_phone(chromium, report):
    out_of_sight = """() => [...document.querySelectorAll(".chart svg")].filter((svg) => {
        const shown = svg.closest(".wide").getBoundingClientRect().right;
        const title = svg.closest("figure").querySelector(".title");
        if (title?.checkVisibility()) return false;
        // the largest text, or the first one of it: a figure's title, or that of its first panel
        const texts = [...svg.querySelectorAll("text")].filter((one) => one.textContent.trim());
        const size = (one) => parseFloat(getComputedStyle(one).fontSize);
        const largest = Math.max(...texts.map(size));
        return texts.find((one) => size(one) === largest).getBoundingClientRect().right > shown;
    }).length"""
    with opened_tab(chromium, viewport={"width": 420, "height": 900}) as tab:
        page = tab.open(report)
        assert page.locator(".chart svg").count() > 2
        assert page.evaluate(out_of_sight) == 0
        # control: as wide as a page of 1,600 pixels has them, titles begin where no phone shows them
        widen = "for (const svg of document.querySelectorAll('.chart svg')) svg.style.minWidth = '66rem'"
        page.evaluate(f"() => {{ {widen}; }}")
        assert page.evaluate(out_of_sight) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_scrolls_sideways_has_a_shadow_at_the_edges_beyond_which_there_is_more(chromium, report, scheme):
    def edges(tab: Tab, wide: Any) -> tuple[float, float]:
        """How far the left and right edge differ from the page, in grey values: the median along them."""
        box = wide.bounding_box()
        shot = Image.open(io.BytesIO(tab.page.screenshot(clip=box))).convert("L")
        grey = np.asarray(shot, np.float32)
        back = 255.0 if scheme == "light" else 22.0
        strips = (grey[:, 1:3], grey[:, -3:-1])
        return tuple(float(np.median(np.abs(strip - back))) for strip in strips)  # pyright: ignore

    with opened_tab(chromium, viewport={"width": 420, "height": 900}, color_scheme=scheme) as tab:
        page = tab.open(report)
        seen = 0
        for wide in page.locator(".wide:has(> .chart svg), .wide:has(> .sheet)").all():
            wide.scroll_into_view_if_needed()
            wide.evaluate("wide => { wide.style.outline = 'none'; wide.scrollLeft = 0; }")
            if wide.evaluate("wide => wide.scrollWidth <= wide.clientWidth"):
                continue
            seen += 1
            left, right = edges(tab, wide)
            assert left < 12 < 40 < right
            wide.evaluate("wide => { wide.scrollLeft = (wide.scrollWidth - wide.clientWidth) / 2; }")
            assert min(edges(tab, wide)) > 40
            wide.evaluate("wide => { wide.scrollLeft = wide.scrollWidth; }")
            left, right = edges(tab, wide)
            assert right < 12 < 40 < left
        assert seen >= 3
        table = page.locator(".wide.numbers").first
        table.scroll_into_view_if_needed()
        assert edges(tab, table)[1] > 40
        # the control: without the rule there is no sign of it
        table.evaluate("wide => { wide.style.background = 'none'; }")
        assert edges(tab, table)[1] < 12
        page.set_viewport_size({"width": 1600, "height": 900})
        chart = page.locator(".wide:has(> .chart svg)").first
        chart.scroll_into_view_if_needed()
        assert max(edges(tab, chart)) < 12  # all of it is in sight


def test_texts_of_all_charts_have_one_size(tab, report):
    sizes = """() => [...document.querySelectorAll(".chart svg")].map((svg) =>
        svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""
    page = tab.open(report)
    page.set_viewport_size({"width": 1600, "height": 900})
    found = page.evaluate(sizes)
    assert len(found) > 2
    assert found == pytest.approx([4 / 3] * len(found), rel=0.01)
    # the control: as wide as there is room, each has its own
    page.evaluate(
        "() => { for (const svg of document.querySelectorAll('.chart svg')) svg.style.maxWidth = '66rem'; }"
    )
    wide = page.evaluate(sizes)
    assert max(wide) > 1.2 * min(wide)


def test_links_over_a_sheet_lie_on_its_pictures_and_lead_to_them(tab, report):
    page = tab.open(report)
    sheet = page.locator(".sheet").first
    image = sheet.locator("img").first.bounding_box()
    assert image
    links = sheet.locator("a[style]")
    assert links.count() == 6
    for link in links.all():
        box = link.bounding_box()
        assert box
        assert box["x"] > image["x"]
        assert box["x"] + box["width"] <= image["x"] + image["width"] + 1
        assert box["y"] + box["height"] <= image["y"] + image["height"] + 1
        assert link.locator("img").bounding_box() == pytest.approx(box, abs=0.1)
        target = page.evaluate("link => new URL(link.href).pathname", link.element_handle())
        assert Path(unquote(target)).is_file()
