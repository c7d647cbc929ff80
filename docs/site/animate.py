"""Film the explorer while two sliders move: python docs/site/animate.py explorer.html docs/images/explorer.gif

It needs Chromium and Playwright, as the tests of pages do. The film is the explorer of trained runs, frame by
frame, in few colours, so that the README stays small.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.browser import launched

SIZE = (1180, 640)  # of the browser's window
WIDTH = 840  # of the film, in pixels
START = 1  # which of the test images to start from
FRAMES = 24  # of each slider's way there and back
MILLISECONDS = 90  # between frames
COLOURS = 48
MOVE = """([id, share]) => {
  const slider = document.getElementById(id);
  slider.focus({ preventScroll: true });
  const [low, high] = [Number(slider.min), Number(slider.max)];
  slider.value = low + (high - low) * share;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def film(page_file: Path, sliders: tuple[str, ...] = ("dimension-0", "dimension-1")) -> list[Image.Image]:
    """Return frames of the sliders moving from the middle to both ends and back, one slider after the other."""
    frames = []
    with launched() as browser:
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.evaluate("() => { document.getElementById('starts').open = true; }")
        page.locator("#starts button").nth(START).click()
        page.evaluate("() => { document.getElementById('starts').open = false; scrollTo(0, 0); }")
        for slider in sliders:
            for i in range(FRAMES):
                page.evaluate(MOVE, [slider, 0.5 + 0.4 * math.sin(2 * math.pi * i / FRAMES)])
                shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                frames.append(shot.resize((WIDTH, WIDTH * SIZE[1] // SIZE[0]), Image.Resampling.LANCZOS))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description="Film the explorer while two sliders move.")
    parser.add_argument("explorer", type=Path)
    parser.add_argument("gif", type=Path)
    given = parser.parse_args()
    frames = film(given.explorer)
    palette = frames[0].quantize(COLOURS)  # one for all, so that what stands still is stored once
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first.save(given.gif, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{given.gif}: {len(frames)} frames, {given.gif.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
