"""The tests' browser sees what it is there to see: requests, complaints, and pages that are hard to use."""

import pytest

from tests import browser
from tests.browser import Tab

PAGE = '<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1>{}</main></html>'


def test_without_chromium_a_test_is_skipped_by_name(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="chromium is not installed"), browser.launched():
        raise AssertionError("it ran")


@pytest.mark.slow
def test_a_quiet_page_is_quiet(tab: Tab, tmp_path):
    (tmp_path / "page.html").write_text(PAGE.format("<p>Text</p>"), encoding="utf-8")
    tab.open(tmp_path / "page.html")
    assert (tab.requests, tab.errors, tab.violations()) == ([], [], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "requests", "errors"),
    [
        ("<script>fetch('http://127.0.0.1:9/x').catch(() => 0)</script>", ["http://127.0.0.1:9/x"], 1),
        ("<img alt='' src='http://127.0.0.1:9/y.png'>", ["http://127.0.0.1:9/y.png"], 1),
        ("<script>missing()</script>", [], 1),
        ("<script>console.warn('w')</script>", [], 1),
    ],
)
def test_what_a_page_asks_for_and_complains_of_is_seen(tab: Tab, tmp_path, content: str, requests, errors: int):
    (tmp_path / "page.html").write_text(PAGE.format(content), encoding="utf-8")
    tab.open(tmp_path / "page.html").wait_for_timeout(200)
    assert tab.requests == requests
    assert len(tab.errors) >= errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("<input>", "label"),
        ('<p style="color: #bbb; background: #fff">Grey</p>', "color-contrast"),
        ("<button></button>", "button-name"),
    ],
)
def test_what_is_hard_to_use_is_seen(tab: Tab, tmp_path, content: str, rule: str):
    (tmp_path / "page.html").write_text(PAGE.format(content), encoding="utf-8")
    tab.open(tmp_path / "page.html")
    assert any(found.startswith(f"{rule}:") for found in tab.violations())
