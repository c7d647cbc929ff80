"""A real browser for tests of pages: Debian's Chromium, without a window, driven by Playwright.

The fixtures ``chromium`` and ``tab`` (tests/conftest.py) skip a test where Chromium or Playwright is missing, and
say which.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium inside; skip the test where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if path is None:
        pytest.skip("chromium is not installed")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom Chromium's sandbox refuses
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


class Tab:
    """A page in a context of its own, with all that it asked for and complained of.

    Attributes:
        page: Playwright's page.
        requests: addresses of all requests but that of the page itself, ``data:`` and ``blob:`` ones left out.
        errors: messages of the console that are errors or warnings, and exceptions that no one caught.
    """

    def __init__(self, page: Page):
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._opened = ""
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, file: Path) -> Page:
        """Open a file from disk, and forget what was asked and said before."""
        self.requests.clear()
        self.errors.clear()
        self._opened = file.resolve().as_uri()
        self.page.goto(self._opened)
        return self.page

    def violations(self) -> list[str]:
        """Return what axe-core finds (WCAG 2 A and AA, and its best practices), a line for each element."""
        module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
        found = module.Axe().run(self.page).response["violations"]
        return [
            f"{rule['id']}: {node['html']} {node['failureSummary']}" for rule in found for node in rule["nodes"]
        ]

    def _asked(self, url: str) -> None:
        if url.partition("#")[0] != self._opened and not url.startswith(("data:", "blob:")):
            self.requests.append(url)

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)


@contextmanager
def opened_tab(browser: Browser, **context: Any) -> Iterator[Tab]:
    """Yield a new tab; arguments are those of Playwright's ``new_context``, as ``color_scheme="dark"``."""
    own = browser.new_context(**context)
    try:
        yield Tab(own.new_page())
    finally:
        own.close()
