"""Whether draws are of a density: its masses in cells by quadrature, and Pearson's chi-squared test."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

COARSE = 24  # cells of an axis


def cells(
    log_prob: Callable[[Tensor], Tensor], dim: int, end: float = 12, fine: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (25,) of an axis of cells in [-end, end], and the masses of all cells; tails are left out.

    The midpoint rule, with ``fine`` points an axis, a multiple of 24; None: 4,800, or 960 in two dimensions.
    """
    fine = fine or (4800 if dim == 1 else 960)
    edges = np.linspace(-end, end, fine + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    grid = torch.from_numpy(np.stack(np.meshgrid(*[centres] * dim, indexing="ij"), axis=-1))
    with torch.no_grad():
        mass = log_prob(grid).exp().numpy() * (edges[1] - edges[0]) ** dim
    for axis in range(dim):
        mass = np.add.reduceat(mass, np.arange(0, fine, fine // COARSE), axis=axis)
    return edges[:: fine // COARSE], mass


def p_value(draws: Tensor, edges: np.ndarray, mass: np.ndarray) -> float:
    """Pearson's chi-squared test of draws against the masses of cells; cells with few draws are one cell."""
    counts, _ = np.histogramdd(draws.numpy(), bins=[edges] * draws.shape[1])
    expected = mass * len(draws)
    large = expected >= 10
    found = [*counts[large], len(draws) - counts[large].sum()]
    wanted = np.array([*expected[large], len(draws) - expected[large].sum()]).clip(1e-9)
    return float(stats.chisquare(found, wanted, sum_check=False).pvalue)
