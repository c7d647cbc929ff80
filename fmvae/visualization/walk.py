"""An animation of samples: a walk through the latent space from draw to draw."""

from __future__ import annotations

import numpy as np
import torch

from fmvae.common.class_names import drawable
from fmvae.visualization.animation import enlarged, frame, gif
from fmvae.visualization.model_view import ModelView, Source
from fmvae.visualization.samples import drawn_from

TILES = 10  # at most
LEVELS = 64  # grey values: half the file of 256, and no difference to the eye
AT_DRAW, BETWEEN = 700, 80  # milliseconds of a frame


def sample_walk(
    view: ModelView, source: Source | None = None, *, draws: int = 4, steps: int = 6, scale: int = 3
) -> bytes:
    """Make an animated GIF in which each tile goes from draw to draw and back to the first.

    It rests at draws. Between them, the latents move on a straight line, slowly at its ends; a point of the line
    is no draw and may lie where the density is low.

    Args:
        source: gives the latents; None draws them from the prior.
        draws: of each tile, >= 2. A tile of a conditional model keeps its class.
        steps: frames from one draw to the next, >= 1.
        scale: factor by which pixels are enlarged.

    Returns:
        The file's content.
    """
    if draws < 2 or steps < 1:
        raise ValueError(f"{draws} draws, {steps} steps: give 2 draws and 1 step or more")
    names = drawable(view.class_names or (), escaped=False)[:TILES] if view.conditional else ()
    num_tiles = len(names) or TILES
    labels = None
    if view.conditional:
        labels = torch.arange(num_tiles, device=view.weight.device).repeat_interleave(draws)
    z = view.sample_latents(num_tiles * draws, labels, source).unflatten(0, (num_tiles, draws))
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(steps) / steps)  # of the way; 0 is the draw itself
    ahead = z.roll(-1, dims=1)
    path = torch.stack([torch.lerp(z, ahead, float(part)) for part in share], dim=2)  # (T, draws, steps, z)
    of_frames = None if labels is None else labels.repeat_interleave(steps)
    means = view.decode_means(path.flatten(0, 2), of_frames).unflatten(0, (num_tiles, draws * steps))
    shades = enlarged(means, scale, LEVELS)
    frames, times = [], []
    for index in range(draws * steps):
        draw, step = divmod(index, steps)
        where = f"draw {draw + 1}" if step == 0 else f"between draws {draw + 1} and {(draw + 1) % draws + 1}"
        headings = [f"Samples from {drawn_from(source)}", f"{view.name}    {where}"]
        frames.append(frame(shades[:, index], names, headings))
        times.append(BETWEEN if step else AT_DRAW)
    return gif(frames, times)
