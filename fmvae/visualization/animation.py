"""Animated GIFs: frames of tiles with names, below a heading."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GIF_COLUMNS, GIF_TEXT, GIF_MARGIN = 5, 14, 8  # tiles per row, font size and margin in pixels


def enlarged(images: Tensor, scale: int, levels: int = 256) -> np.ndarray:
    """Return images (..., C, H, W) in [0, 1] as uint8, enlarged by a factor (nearest neighbour).

    Args:
        levels: different grey values, evenly from 0 to 255; fewer make a smaller file.
    """
    steps = (images.float().cpu().numpy() * (levels - 1)).round()
    shades = (steps * (255 / (levels - 1))).round().astype(np.uint8)
    return shades.repeat(scale, axis=-2).repeat(scale, axis=-1)


def gif(frames: Sequence[Image.Image], milliseconds: Sequence[int]) -> bytes:
    """Return the content of a GIF that repeats forever; each frame's time is a multiple of ten.

    Narrower frames get white on the right.
    """
    width = max(image.width for image in frames)
    whole = [Image.new(image.mode, (width, image.height), "white") for image in frames]
    for canvas, image in zip(whole, frames, strict=True):
        canvas.paste(image, (0, 0))
    file = io.BytesIO()
    whole[0].save(file, "GIF", save_all=True, append_images=whole[1:], duration=list(milliseconds), loop=0)
    return file.getvalue()


def frame(tiles: np.ndarray, names: Sequence[str], headings: Sequence[str]) -> Image.Image:
    """Draw tiles (D, C, H, W), grey or RGB, in a grid on white, each below its name.

    Args:
        names: D, or none.
        headings: the lines above the grid.
    """
    _, channels, height, width = tiles.shape
    num_columns = min(GIF_COLUMNS, len(tiles))
    num_rows = -(-len(tiles) // num_columns)
    line = GIF_TEXT + 6
    named = line if names else GIF_MARGIN
    import matplotlib  # for its font: Pillow's default font has no β

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), GIF_TEXT)
    pitch = max(width, *(round(font.getlength(name)) for name in names), 0) + GIF_MARGIN
    widest = max(round(font.getlength(heading)) for heading in headings)
    needed = max(num_columns * pitch, widest + GIF_MARGIN)
    above = len(headings) * line
    size = (needed + GIF_MARGIN, above + num_rows * (height + named) + 2 * GIF_MARGIN)
    canvas = Image.new("L" if channels == 1 else "RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for index, heading in enumerate(headings):
        draw.text((GIF_MARGIN, GIF_MARGIN // 2 + index * line), heading, fill="black", font=font)
    for index, pixels in enumerate(tiles):
        row, column = divmod(index, num_columns)
        x, y = GIF_MARGIN + column * pitch, above + GIF_MARGIN + row * (height + named)
        if names:
            draw.text((x, y), names[index], fill="black", font=font)
        tile_of = pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)
        canvas.paste(Image.fromarray(tile_of), (x, y + named))
    return canvas
