"""A density of two latents in a figure: on a grid, and as contours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from fmvae.objectives import Density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.95, 0.8, 0.5)  # of the mass within each contour
STYLES = ("dashed", "solid", "solid")
WIDTHS = (1.0, 0.7, 1.8)  # points
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
    draws, levels = _draws_and_levels(prior)
    mass = draws.cpu().quantile(torch.tensor([OUTSIDE, 1 - OUTSIDE], dtype=torch.float64), dim=0).numpy()
    seen = np.concatenate([points, mass])
    low, high = seen.min(0), seen.max(0)
    z0, z1 = np.linspace(low - MARGIN * (high - low), high + MARGIN * (high - low), GRID).T
    grid = torch.from_numpy(np.stack(np.meshgrid(z0, z1), axis=-1)).to(draws)  # (GRID, GRID, 2): rows are z1
    return Plane(z0, z1, prior.log_prob(grid).exp().cpu().numpy(), levels.exp().tolist())


@torch.no_grad()
def within_largest(prior: Density, z: torch.Tensor) -> np.ndarray:
    """Return whether each of z (N, 2) lies within the contour of the largest share, (N,) booleans."""
    _, levels = _draws_and_levels(prior)
    return (prior.log_prob(z.to(prior.device, torch.float64)).cpu() >= levels[0]).numpy()


def _draws_and_levels(prior: Density) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws (DRAWS, 2) of the prior and log p at each contour, in the order of SHARES; both in float64."""
    draws = prior.sample(DRAWS, torch.Generator(device=prior.device).manual_seed(0)).double()
    return draws, prior.log_prob(draws).cpu().quantile(1 - torch.tensor(SHARES, dtype=torch.float64))


def draw_contours(axes: Axes, plane: Plane) -> None:
    """Draw the contours in black; :func:`contour_handles` says which is which."""
    rising = dict(
        zip(plane.levels, zip(STYLES, WIDTHS, strict=True), strict=True)
    )  # those of a flat density can be equal
    levels = sorted(rising)
    styles, widths = zip(*(rising[level] for level in levels), strict=True)
    axes.contour(plane.z0, plane.z1, plane.p, levels, colors="black", linestyles=styles, linewidths=widths)


def contour_handles() -> tuple[list[Any], list[str]]:
    """Return a legend's handles and names of the contours, the innermost first."""
    from matplotlib.lines import Line2D

    kinds = list(zip(SHARES, STYLES, WIDTHS, strict=True))[::-1]
    handles: list[Any] = [Line2D([], [], color="black", linestyle=s, linewidth=w) for _, s, w in kinds]
    return handles, [f"holds {share:.0%} of the prior" for share, _, _ in kinds]
