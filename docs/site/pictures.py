"""Take the pictures of the docs: explorers, a report and the site, at three widths, in light and in dark.

    python docs/site/pictures.py --one <run> --betas <run> <run> <run> --conditional <run> --sweep <folder>
        [--site site] [--all] [--to docs/images]

Runs are copied to a temporary folder, so nothing is written beside them. It needs Chromium and Playwright, as the
tests of pages do. The docs' own pictures were taken of ``experiment=baseline``, of BetaVAE's runs of
``sweep=family`` at β = 1, 4 and 16 (one seed for the explorer, both for the report), of
``experiment=best_conditional``, and of the site that ``make docs`` writes.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fmvae.explore.__main__ import explore
from fmvae.report.sweep import write_report
from tests.browser import launched, opened_tab

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parents[1] / "images"
HEIGHT = {1600: 1000, 1024: 900, 420: 900}  # of the window, by its width
SCHEMES = ("light", "dark")
COLOURS = 256  # of a picture
START = 21  # which of the test images explorers start from


class Subject(NamedTuple):
    """A page to show, and which of its pictures the docs keep.

    Attributes:
        name: of the pictures, with their folder.
        kept: widths and schemes.
        at: element to scroll to; None stays at the top.
    """

    name: str
    file: Path
    kept: Sequence[tuple[int, str]]
    at: str | None = None


USUAL = ((1600, "light"), (1024, "dark"), (420, "light"), (420, "dark"))


def subjects(given: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """Make the pages, and yield them."""
    for name in ("one", "betas", "conditional"):
        if runs := getattr(given, name):
            page = folder / f"{name}.html"
            copies = [_copy(run, folder / name) for run in runs]
            explore([*map(str, copies), "--to", str(page)])
            kept = ((1600, "dark"), (1024, "light"), (420, "light"), (420, "dark")) if name == "one" else USUAL
            yield Subject(f"explorer/{'one-run' if name == 'one' else name}", page, kept)
    if given.sweep:
        report = write_report([_copy(given.sweep, folder / "report")])
        yield Subject("report/top", report, USUAL)
        yield Subject("report/charts", report, ((1024, "light"), (420, "dark")), "figure")
        yield Subject("report/samples", report, ((420, "dark"),), "figure:has(.sheet)")
    if given.site:
        yield Subject("site/results", given.site / "results.html", USUAL)


def _copy(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder / source.resolve().name))


def prepare(page: Page, subject: Subject) -> None:
    """Bring the page to what its picture shall show."""
    if subject.name.startswith("explorer"):
        buttons = page.locator("#starts button")
        buttons.nth(min(START, buttons.count() - 1)).click()
        page.wait_for_function("() => explorer.painted === explorer.version")
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    if subject.at:
        page.evaluate("(at) => document.querySelector(at).closest('section').scrollIntoView()", subject.at)
    page.wait_for_timeout(400)


def picture(shot: bytes) -> bytes:
    """Return a screenshot in few colours, a third of the size."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the docs.")
    parser.add_argument("--one", type=Path, nargs=1, help="a run with z = 2")
    parser.add_argument("--betas", type=Path, nargs="+", help="runs that differ in beta")
    parser.add_argument("--conditional", type=Path, nargs=1, help="a conditional run")
    parser.add_argument("--sweep", type=Path, help="a folder of runs to report on")
    parser.add_argument("--site", type=Path, help="the folder that `make docs` writes")
    parser.add_argument("--to", type=Path, default=IMAGES)
    parser.add_argument("--all", action="store_true", help="every width in light and dark, to look at")
    given = parser.parse_args()
    with TemporaryDirectory() as folder, launched() as browser:
        for subject in subjects(given, Path(folder)):
            for width, scheme in [(w, s) for w in HEIGHT for s in SCHEMES] if given.all else subject.kept:
                view = {"width": width, "height": HEIGHT[width]}
                with opened_tab(browser, viewport=view, color_scheme=scheme, reduced_motion="reduce") as tab:
                    page = tab.open(subject.file)
                    prepare(page, subject)
                    path = given.to / f"{subject.name}-{width}-{scheme}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(picture(page.screenshot()))
                    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB", *tab.errors)


if __name__ == "__main__":
    main()
