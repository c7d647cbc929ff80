"""The documentation site: it builds, its links and anchors lead somewhere, and its pages ask no other server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import Tab, opened_tab

pytest.importorskip("material", reason="mkdocs-material is not installed")
ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "docs",
    "fmvae",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CITATION.cff",
    "notebooks",
)
pytestmark = pytest.mark.slow


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "-f", "docs/site/mkdocs.yml", "-d", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr  # strict: a link or anchor that is gone ends it
    return folder


class Named(HTMLParser):
    """What a page leads to, what it loads, and what may be led to in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [given["src"]] if "src" in given else []
        self.loads += [given["href"]] if tag == "link" and "href" in given else []


def dead(site: Path) -> list[str]:
    """Links of all pages to files or anchors that are not there, and whatever they load from elsewhere."""
    pages = {path: Named(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for url in [*page.links, *page.loads]:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https", "mailto") and url in page.links:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name == "404.html":  # its links are those of a server's root
                continue
            anchor = unquote(parts.fragment)
            there = target.is_file() and (not anchor or target not in pages or anchor in pages[target].anchors)
            found += [] if there and not parts.scheme else [f"{path.relative_to(site)}: {url}"]
    return found


def test_all_links_and_anchors_of_all_pages_lead_somewhere(site):
    assert (site / "index.html").is_file()
    pages = list(site.rglob("*.html"))
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB")
    assert len(pages) > 35
    assert dead(site) == []


def test_reference_comes_from_docstrings(site):
    text = (site / "reference" / "models.html").read_text(encoding="utf-8")
    assert 'id="fmvae.models.conv.ConvVAE"' in text
    assert {path.parent.name for path in ROOT.glob("fmvae/*/__init__.py")} == {
        path.stem for path in (site / "reference").glob("*.html")
    }


def test_negative_control_links_that_lead_nowhere_are_found_in_the_site(site, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here"></a><a href="b.html#gone"></a><a href="c.html"></a>')
    (tmp_path / "b.html").write_text(
        '<p id="here"></p><a href="https://x.org"></a><img src="https://x.org/y.png">'
    )
    assert sorted(dead(tmp_path)) == ["a.html: b.html#gone", "a.html: c.html", "b.html: https://x.org/y.png"]


def test_negative_control_broken_links_fail_the_build(tmp_path):
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    broken = ("gone.md", "faq.md#gone", "../conf/gone.yaml", "images/gone.png")
    page = tmp_path / "docs" / "scale.md"
    links = " ".join(f"[it]({link})" for link in broken)
    page.write_text(f"{page.read_text(encoding='utf-8')}\n{links}\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode != 0
    assert [link for link in broken if f"'{link}'" in done.stderr] == list(broken), done.stderr
    assert done.stderr.count("WARNING") == len(broken), done.stderr  # and nothing else is wrong


@pytest.mark.parametrize("name", ["index.html", "results.html", "reference/objectives.html"])
def test_a_page_opens_from_disk_and_asks_no_other_server(site, tab: Tab, name: str):
    page = tab.open(site / name)
    page.wait_for_load_state("networkidle")
    assert not [url for url in tab.requests if not url.startswith("file:")]
    assert page.locator("h1").first.is_visible()


def test_search_works_from_disk(site, tab: Tab):
    page = tab.open(site / "index.html")
    field = page.locator("[data-md-component=search-query]")
    field.press_sequentially("importance-weighted", delay=20)
    page.locator(".md-search-result__item a").first.wait_for(timeout=60_000)
    assert not [url for url in tab.requests if not url.startswith("file:")]
    field.fill("")  # the control
    field.press_sequentially("qqqqqq", delay=20)
    page.get_by_text("No matching documents").first.wait_for(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "results.html", "explorer.html", "reference/objectives.html"])
def test_anyone_can_read_it(site, chromium, scheme, name: str):
    with opened_tab(chromium, color_scheme=scheme, reduced_motion="reduce") as tab:
        page = tab.open(site / name)
        assert page.locator("[role=dialog]").get_attribute("aria-label") == "Search"
        assert tab.violations() == []
        if name == "index.html":  # control
            page.evaluate("() => document.querySelector('[role=dialog]').removeAttribute('aria-label')")
            assert any("aria-dialog-name" in found for found in tab.violations())
            page.evaluate("() => { document.querySelector('h1').style.color = 'rgba(128, 128, 128, 0.3)'; }")
            assert any("color-contrast" in found for found in tab.violations())
