"""A density of two latents in a figure: on a grid, and as contours."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fmvae.objectives import Density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.95, 0.8, 0.5)  # of the mass within each contour
STYLES = ("dashed", "solid", "solid")
GRID, DRAWS = 200, 20_000  # points along each side; draws that the contours are found with
OUTSIDE = 0.005  # share of the draws that may lie beyond each edge
MARGIN = 0.05  # around everything, of its width


class Plane(NamedTuple):
    """p(z) (GRID, GRID) in the plane of two latents at z0 (GRID,) and z1 (GRID,), with p at each contour."""

    z0: np.ndarray
    z1: np.ndarray
    p: np.ndarray
    levels: list[float]


@torch.no_grad()
def on_plane(prior: Density, points: np.ndarray) -> Plane:
    """Evaluate a density of two latents where it has its mass, and where points (N, 2) are.

    Each contour is the border of the smallest region that holds its share of the mass; p there is a quantile of p
    at the density's own draws, which are the same each time.
    """
    draws = prior.sample(DRAWS, torch.Generator(device=prior.device).manual_seed(0)).double()
    levels = prior.log_prob(draws).cpu().quantile(1 - torch.tensor(SHARES, dtype=torch.float64)).exp()
    mass = draws.cpu().quantile(torch.tensor([OUTSIDE, 1 - OUTSIDE], dtype=torch.float64), dim=0).numpy()
    seen = np.concatenate([points, mass])
    low, high = seen.min(0), seen.max(0)
    z0, z1 = np.linspace(low - MARGIN * (high - low), high + MARGIN * (high - low), GRID).T
    grid = torch.from_numpy(np.stack(np.meshgrid(z0, z1), axis=-1)).to(draws)  # (GRID, GRID, 2): rows are z1
    return Plane(z0, z1, prior.log_prob(grid).exp().cpu().numpy(), levels.tolist())


def draw_contours(axes: Axes, plane: Plane, colour: str) -> None:
    """Draw the contours; that of the largest share is dashed."""
    rising = dict(zip(plane.levels, STYLES, strict=True))  # levels of a flat density can be equal
    levels = sorted(rising)
    axes.contour(
        plane.z0, plane.z1, plane.p, levels, colors=colour, linestyles=[rising[x] for x in levels], linewidths=1
    )


def contour_names() -> str:
    """Return for example ``50, 80 and 95 %``."""
    *others, largest = (f"{share:.0%}".rstrip("%") for share in reversed(SHARES))
    return f"{', '.join(others)} and {largest}%"
