"""Precision, recall, density and coverage of generated images, by nearest neighbours in feature space.

Precision and recall: Kynkäänniemi et al. 2019; density and coverage: Naeem et al. 2020. Precision and density
measure fidelity, recall and coverage measure diversity; a Fréchet distance mixes the two.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fmvae.errors import ConfigError

CHUNK = 1024  # rows of distances held at a time: 40 MB for 10,000 columns


def neighbour_measures(real: ArrayLike, generated: ArrayLike, num_neighbours: int = 5) -> dict[str, float]:
    """Compute precision, recall, density and coverage of generated features (M, D) against real ones (N, D).

    The ball of a point is closed; its radius is the distance to the k-th nearest other point of the same set, with
    k = ``num_neighbours`` >= 1.

    - ``precision``: the share of generated points inside the ball of any real one, in [0, 1].
    - ``recall``: the share of real points inside the ball of any generated one, in [0, 1].
    - ``density``: the mean number of real balls that contain a generated point, over k; >= 0, and above 1 where
      many overlap.
    - ``coverage``: the share of real points whose ball contains any generated point, in [0, 1].

    The results depend on N, M and k: compare only results with equal ones. Distances are computed in single
    precision after subtraction of the real mean, so those below about 1e-3 of a point's distance from that mean
    are not resolved.

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


def copying_measures(
    test: ArrayLike, train: ArrayLike, generated: ArrayLike, real: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Compare how near generated images are to training images and to test images, in features (N, D) each.

    Training and test images are equally new to a model that does not copy, so its images are as near to the ones
    as to the others, if there are equally many; a model that copies training images is nearer to those.

    - ``nearest_train``, ``nearest_test``: the median distance of a generated image to its nearest training image,
      and to its nearest test image.
    - ``real_nearest_train``, ``real_nearest_test``: the same of a test image, to its nearest training image and to
      its nearest other test image. They depend on the numbers of images only.
    - ``nearest_ratio``: nearest_train / nearest_test, over the same ratio of test images, all without exact twins:
      test images that are also training images or twice among the test images, and generated images that equal
      both a training and a test image. It is near 1 without copies, and 0 if at least half of the images are
      copies.
    - ``num_twins``: how many test images have such twins; left out if none has.
    - ``nearer_train``: the share of generated images that are nearer to a training image than to any test image,
      among as many training images as test images; ties count half. It is near 0.5 without copies, and notices
      copies of a few images, too (Meehan et al. 2020 test for copying by the same comparison).
    - ``real_nearer_train``: the same share of test images, each compared with the other test images. It differs
      from 0.5 if the features tell training from test images, as those of a network trained on the former.

    Args:
        test: at least two images.
        train: any number of training images; the first ones, as many as test images, are for ``nearer_train``.
        real: of ``real_copying_measures`` of the same images, if it is known.
    """
    if real is None:
        real = real_copying_measures(test, train)
    real, found = dict(real), _to_both(generated, test, train)
    of_real, twins = real.pop("ratio"), real.pop("num_twins")
    ratio, _ = found.pop("ratio"), found.pop("num_twins")
    told = {"num_twins": int(twins)} if twins else {}
    return {**found, **real, "nearest_ratio": _ratio(ratio, of_real), **told}


def real_copying_measures(test: ArrayLike, train: ArrayLike) -> dict[str, float]:
    """Return the part of ``copying_measures`` that does not depend on generated images.

    That is ``real_*``, ``num_twins``, and as ``ratio`` what ``nearest_ratio`` is divided by.
    """
    found = _to_both(test, test, train, others=True)
    return {name if name in ("ratio", "num_twins") else f"real_{name}": value for name, value in found.items()}


def _to_both(points: ArrayLike, test: ArrayLike, train: ArrayLike, *, others: bool = False) -> dict[str, float]:
    """Return ``nearest_train``, ``nearest_test`` and ``nearer_train`` of points, ``ratio`` and ``num_twins``.

    The ratio is nearest_train / nearest_test, of medians over points without twins: a generated image at distance
    0 of a training image and of a test image cannot say which of them it copies, and a test image at distance 0
    of a training image, or of another test image, is not new.

    Args:
        others: the points are the test images, each of which is compared with the others.
    """
    points, test, train = (np.asarray(part, dtype=np.float64) for part in (points, test, train))
    num = min(len(train), len(test))
    to_train, to_test = nearest_distances(points, train), nearest_distances(points, test, others=others)
    medians = {"nearest_train": float(np.median(to_train)), "nearest_test": float(np.median(to_test))}
    twins = (to_train == 0) | (to_test == 0) if others else (to_train == 0) & (to_test == 0)
    alone = [np.median(distances[~twins]) if not twins.all() else 0.0 for distances in (to_train, to_test)]
    about_twins = {"ratio": float(_ratio(*alone)), "num_twins": int(twins.sum())}
    if len(train) != len(test):  # among equally many
        points = points[:num] if others else points
        to_train = nearest_distances(points, train[:num])
        to_test = nearest_distances(points, test[:num], others=others)
    nearer = (to_train < to_test).mean() + 0.5 * (to_train == to_test).mean()
    return {**medians, "nearer_train": float(nearer), **about_twins}


def _ratio(a: float, b: float) -> float:
    """Return a / b; 1 where b is 0, as nothing tells training images from test images there."""
    return a / b if b else 1.0


def nearest_distances(points: ArrayLike, among: ArrayLike, *, others: bool = False) -> NDArray[np.float64]:
    """Return the Euclidean distance (N,) of each point (N, D) to the nearest one of ``among`` (M, D), in float64.

    The nearest one is found in single precision, and its distance computed in double: 0 for a copy.

    Args:
        others: ``points`` and ``among`` are the same, and a point is not its own neighbour.
    """
    x, y = np.asarray(points, dtype=np.float64), np.asarray(among, dtype=np.float64)
    reference, queries = _centred(y, x)
    found = np.empty(len(x))
    for rows, squared in _squared_distances(queries, reference):
        if others:
            own = torch.arange(rows.start, rows.start + len(squared))
            squared[torch.arange(len(squared)), own] = torch.inf
        nearest = squared.argmin(dim=1).numpy()
        found[rows] = np.linalg.norm(x[rows] - y[nearest], axis=1)
    return found


def _check_enough(num: int, num_neighbours: int) -> None:
    if num <= num_neighbours:
        raise ConfigError(
            "evaluation.fid.num_images",
            f"{num} images cannot have {num_neighbours} neighbours each",
            f"use more than {num_neighbours}, at best 10000",
        )


def _centred(real: ArrayLike, generated: ArrayLike) -> tuple[Tensor, Tensor]:
    """Subtract the real mean from both sets, in float32; a common offset would cancel in |x|² + |y|² − 2 x·y."""
    x, y = np.asarray(real, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    mean = x.mean(axis=0)
    return torch.from_numpy(x - mean).float(), torch.from_numpy(y - mean).float()


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of rows of a (M, D) with their squared distances (chunk, N) to all rows of b (N, D)."""
    norms_a, norms_b = a.square().sum(dim=1), b.square().sum(dim=1)
    for start in range(0, len(a), CHUNK):
        rows = slice(start, start + CHUNK)
        squared = torch.addmm(norms_b, a[rows], b.T, alpha=-2).add_(norms_a[rows, None])
        yield rows, squared.clamp_(min=0)


def _squared_radii(points: Tensor, num_neighbours: int) -> Tensor:
    """Return the squared distance (N,) from each point to its k-th nearest other point."""
    radii = torch.empty(len(points))
    for rows, squared in _squared_distances(points, points):
        # k + 1, as the nearest point is the point itself, at distance 0
        nearest = squared.topk(num_neighbours + 1, dim=1, largest=False, sorted=False).values
        radii[rows] = nearest.amax(dim=1)
    return radii
