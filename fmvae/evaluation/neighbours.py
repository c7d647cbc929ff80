"""Which generated images lie among the real ones, and which real ones are reached, by nearest neighbours.

Precision and recall (Kynkäänniemi et al. 2019) and density and coverage (Naeem et al. 2020): the first and third
speak of fidelity, the second and fourth of diversity, which the one number of a Fréchet distance mixes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fmvae.errors import ConfigError

CHUNK = 1024  # rows of distances held at a time: 40 MB for 10,000 columns


def neighbour_measures(real: ArrayLike, generated: ArrayLike, num_neighbours: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of generated features (M, D) against real ones (N, D).

    A ball around a point is closed and reaches to its k-th nearest neighbour in its own set, itself not counted,
    with k = ``num_neighbours`` >= 1.

    - ``precision``: the share of generated points inside the ball of any real one, in [0, 1].
    - ``recall``: the share of real points inside the ball of any generated one, in [0, 1].
    - ``density``: the real balls around a generated point, over k; >= 0, and above 1 where they crowd.
    - ``coverage``: the share of real points whose ball holds any generated point, in [0, 1].

    The numbers depend on N, M and k: compare only equal ones. Distances are in single precision after the real
    mean is taken off, so those below about 1e-3 of a point's own distance from that mean are not resolved.

    Raises:
        ConfigError: N <= k or M <= k, where a point has no k-th neighbour.
    """
    x, y = _centred(real, generated)
    for num in (len(x), len(y)):
        _check_enough(num, num_neighbours)
    radii, radii_generated = _squared_radii(x, num_neighbours), _squared_radii(y, num_neighbours)

    precise = num_inside = 0
    recalled = torch.zeros(len(x), dtype=torch.bool)
    covered = torch.zeros(len(x), dtype=torch.bool)
    for rows, squared in _squared_distances(y, x):  # (chunk of M, N)
        inside = squared <= radii
        precise += int(inside.any(dim=1).sum())
        num_inside += int(inside.sum())
        covered |= inside.any(dim=0)
        recalled |= (squared <= radii_generated[rows, None]).any(dim=0)
    return {
        "precision": precise / len(y),
        "recall": recalled.double().mean().item(),
        "density": num_inside / (num_neighbours * len(y)),
        "coverage": covered.double().mean().item(),
    }


def _check_enough(num: int, num_neighbours: int) -> None:
    if num <= num_neighbours:
        raise ConfigError(
            "evaluation.fid.num_images",
            f"{num} images cannot have {num_neighbours} neighbours each",
            f"use more than {num_neighbours}, at best 10000",
        )


def _centred(real: ArrayLike, generated: ArrayLike) -> tuple[Tensor, Tensor]:
    """Both sets in float32, less the real mean: else |x|² + |y|² − 2 x·y loses the distance to a common offset."""
    x, y = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    mean = x.mean(axis=0)
    return torch.from_numpy(x - mean).float(), torch.from_numpy(y - mean).float()


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a (M, D) and their squared distances (chunk, N) to all of b (N, D), a chunk at a time."""
    norms_a, norms_b = a.square().sum(dim=1), b.square().sum(dim=1)
    for start in range(0, len(a), CHUNK):
        rows = slice(start, start + CHUNK)
        squared = torch.addmm(norms_b, a[rows], b.T, alpha=-2).add_(norms_a[rows, None])
        yield rows, squared.clamp_(min=0)


def _squared_radii(points: Tensor, num_neighbours: int) -> Tensor:
    """The squared distance (N,) of each point to its k-th nearest other."""
    radii = torch.empty(len(points))
    for rows, squared in _squared_distances(points, points):
        # a point is its own nearest, at a distance of zero: one more is asked for
        nearest = squared.topk(num_neighbours + 1, dim=1, largest=False, sorted=False).values
        radii[rows] = nearest.amax(dim=1)
    return radii
