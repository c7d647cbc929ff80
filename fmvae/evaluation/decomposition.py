"""What the KL is made of: mutual information, total correlation and dimension-wise KL, over all posteriors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmvae.common.phases import phase
from fmvae.common.threads import one_thread
from fmvae.objectives.densities import LOG_2PI, log_normal

# (draws, images) of a tile, by type of device; on a CPU, its two buffers of 0.5 MB stay in the caches
TILES = {"cpu": (32, 2048), "cuda": (256, 16_384)}


@torch.no_grad()
def decompose_kl(
    mu: Tensor,
    logvar: Tensor,
    images: Tensor,
    z: Tensor,
    log_prior: Tensor,
    *,
    tile: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Divide the mean KL(q(z|x) || p(z)) into three parts (Hoffman & Johnson 2016; Chen et al. 2018, eq. 2).

    q(z) is the mixture of all N posteriors, evaluated exactly, in float64 on the device of the posteriors. Each
    part is a mean over S draws; draw by draw, the three add up to log q(z|x) - log p(z).

    Args:
        mu, logvar: (N, latent_dim), the posteriors of all images.
        images: (S,), the index of the posterior from which each z was drawn; S >= 2, for standard errors.
        z: (S, latent_dim), in float64.
        log_prior: (S,), log p(z).
        tile: numbers of draws and images that are computed at once; the result depends on it up to rounding.

    Returns:
        In nats: ``mi``, E[log q(z|x) - log q(z)], at most log N; ``tc``, E[log q(z) - sum_j log q(z_j)], exactly 0
        for one latent dimension; ``dimension_wise``, E[sum_j log q(z_j) - log p(z)]; ``kl``, their sum; and the
        standard error over draws of each, as ``mi_se``. Expectations are >= 0, except of ``dimension_wise`` if
        the prior is not a product over dimensions; estimates can be negative.
    """
    mu, logvar, log_prior = mu.double(), logvar.double(), log_prior.double()
    joint, marginals = log_aggregate(mu, logvar, z, tile=tile)
    own, product = log_normal(z, mu[images], logvar[images]).sum(1), marginals.sum(1)
    parts = {"mi": own - joint, "tc": joint - product, "dimension_wise": product - log_prior}
    measured: dict[str, float] = {}
    for name, draws in {**parts, "kl": own - log_prior}.items():
        measured[name] = draws.mean().item()
        measured[f"{name}_se"] = draws.std().item() / math.sqrt(len(draws))
    return measured


@torch.no_grad()
def log_aggregate(
    mu: Tensor, logvar: Tensor, z: Tensor, *, tile: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return log q(z) (S,) and log q(z_j) (S, latent_dim) of the mixture of N Gaussians, in nats.

    Args:
        mu, logvar: (N, latent_dim), in float64.
        z: (S, latent_dim), in float64.
        tile: as for ``decompose_kl``.
    """
    (num_draws, dim), num_images = z.shape, len(mu)
    rows, columns = tile or TILES.get(z.device.type, TILES["cpu"])
    # by dimension, so that the images of a tile are contiguous
    means, scales = mu.T.contiguous(), (-0.5 * logvar).exp().T.contiguous() * math.sqrt(0.5)
    offsets = -0.5 * (logvar + LOG_2PI).T.contiguous()
    totals = z.new_full((dim + 1, num_draws), -math.inf)  # log sums: of each dimension, then of the joint density
    # an operation that allocates its result takes several times as long
    logs, joint = z.new_empty(rows * columns), z.new_empty(rows * columns)

    def add(total: Tensor, terms: Tensor) -> None:
        """Add exp(terms) (rows, columns) to exp(total) (rows,), without overflow; ``terms`` is overwritten."""
        top = terms.amax(1, keepdim=True)
        torch.logaddexp(total, terms.sub_(top).exp_().sum(1).log_().add_(top[:, 0]), out=total)

    # operations on tiles are short: two threads take about two thirds of the time on quiet cores, but many times
    # as long where other processes use the cores (``python -m benchmarks.decomposition``)
    with one_thread(), phase("parts of the KL", num_draws, detail=f", {num_draws:,} draws", minor=True) as current:
        for first in range(0, num_draws, rows):
            points = z[first : first + rows].T.contiguous()
            total = totals[:, first : first + rows]
            for start in range(0, num_images, columns):
                some = slice(start, min(start + columns, num_images))
                shape = points.shape[1], some.stop - some.start
                terms, summed = (buffer[: math.prod(shape)].view(shape) for buffer in (logs, joint))
                summed.zero_()
                for j in range(dim):
                    torch.sub(points[j, :, None], means[j, None, some], out=terms).mul_(scales[j, None, some])
                    torch.addcmul(offsets[j, None, some], terms, terms, value=-1, out=terms)
                    summed.add_(terms)
                    add(total[j], terms)
                add(total[dim], summed)
            current.advance(points.shape[1])
    totals -= math.log(num_images)
    return totals[dim], totals[:dim].T
