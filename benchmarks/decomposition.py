"""Time the parts of the KL (MI, TC, dimension-wise KL), relative to a plain evaluation with torch.distributions.

    python -m benchmarks.decomposition [--draws 2000] [--images 54000] [--latent-dim 10] [--rounds 3]

The sides are processes of their own: ours; ours with torch's number of threads instead of one; and the plain
evaluation, which computes the densities of ten draws under all posteriors at a time. Prints and records times, and
how much each side's largest memory exceeds that before its work.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext

import torch
from torch import Tensor
from torch.distributions import Normal

from benchmarks.sides import Side, print_times, ratio, record
from fmvae.evaluation import decomposition

SIDES = ("ours", "ours, all threads", "plain")
PLAIN_DRAWS = 10


def plain(mu: Tensor, logvar: Tensor, images: Tensor, z: Tensor, log_prior: Tensor) -> dict[str, float]:
    posteriors = Normal(mu.double(), (0.5 * logvar.double()).exp())
    parts = []
    for block, index, prior in zip(*(part.split(PLAIN_DRAWS) for part in (z, images, log_prior)), strict=True):
        logs = posteriors.log_prob(block[:, None])  # (PLAIN_DRAWS, N, latent_dim)
        each = logs.sum(2)
        own = each[torch.arange(len(block)), index]
        joint = each.logsumexp(1) - math.log(len(mu))
        product = (logs.logsumexp(1) - math.log(len(mu))).sum(1)
        parts.append(torch.stack([own - joint, joint - product, product - prior]))
    means = torch.cat(parts, 1).mean(1).tolist()
    return dict(zip(("mi", "tc", "dimension_wise"), means, strict=True))


def build(side: str, num_draws: int, num_images: int, dim: int) -> Callable[[], None]:
    draw = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, num_images, dim, generator=draw)
    images = torch.randperm(num_images, generator=draw)[:num_draws]
    noise = torch.randn(num_draws, dim, generator=draw, dtype=torch.float64)
    z = mu[images] + noise * (0.5 * logvar[images].double()).exp()
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(1)
    if side == "ours, all threads":
        decomposition.one_thread = nullcontext  # in a process of its own
    decompose = plain if side == "plain" else decomposition.decompose_kl
    few = (mu[images[:50]], logvar[images[:50]], torch.arange(len(z[:50])), z[:50], log_prior[:50])
    ours, theirs = decomposition.decompose_kl(*few), plain(*few)
    assert all(math.isclose(ours[name], value, abs_tol=1e-9) for name, value in theirs.items())

    def work() -> None:
        decompose(mu, logvar, images, z, log_prior)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--images", type=int, default=54_000)
    parser.add_argument("--latent-dim", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    size = (given.draws, given.images, given.latent_dim)
    with ExitStack() as stack:
        # processes that only hold the inputs, to know what memory they take
        sides = {name: stack.enter_context(Side(build, name, *size)) for name in SIDES}
        idle = stack.enter_context(Side(build, "ours", 2, *size[1:])).work().peak
        used = [{name: side.work() for name, side in sides.items()} for _ in range(given.rounds)]
    times = {name: [row[name].seconds for row in used] for name in SIDES}
    case = f"{size[0]:,} draws x {size[1]:,} posteriors x {size[2]} dimensions"
    print_times(case, times)
    peaks = {f"peak MB {name}": max(row[name].peak for row in used) / 1e6 for name in SIDES}
    ratios = {f"{name} / ours": ratio(times, name, "ours") for name in SIDES[1:]}
    for name in SIDES:
        over = peaks[f"peak MB {name}"] - idle / 1e6
        print(f"  {name}: largest memory {peaks[f'peak MB {name}']:.0f} MB, {over:.0f} more than of two draws")
    print("  ".join(f"{name}: {value:.1f}" for name, value in ratios.items()))
    record("decomposition", {"cases": {case: {"times": times, "ratios": ratios, "counts": peaks}}})


if __name__ == "__main__":
    main()
