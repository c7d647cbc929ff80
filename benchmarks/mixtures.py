"""Time fits of the sampler gmm, densities of a mixture in blocks, and a training step of the residual model.

    python -m benchmarks.mixtures [--images 54000] [--latent-dim 32] [--rounds 3]

The sides of each case take turns. "Posteriors" are the first principal components of Fashion-MNIST's training
images, in units of their standard deviations, with a tenth of them as standard deviation: no model is trained for
this. 9 of 10 are fitted, and the others give the held-out log-likelihood. The cases:

- fit: 100 components as ``evaluation.gmm`` fits them, 200 components, and 100 with a tolerance of 1e-3;
- density: log p(z) of 2,000 draws under 500 components in 40 dimensions, in small blocks, which stay in a CPU's
  cache, and in large ones; and in float64, by products of matrices and by differences;
- epoch: training of ``model=residual`` and ``model=conv`` at their default sizes.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import Work, ours
from fmvae.data.sources import load_dataset
from fmvae.evaluation.samplers import gmm
from fmvae.evaluation.samplers.base import Latents
from fmvae.objectives import Mixture, densities

FITS = {
    "100 components": (100, gmm.TOLERANCE),
    "200 components": (200, gmm.TOLERANCE),
    "100, tolerance 1e-3": (100, 1e-3),
}
SPREAD = 0.1  # standard deviation of a posterior, in those of its dimension
EPOCH = ("batch 128", 128, 6000)


def posteriors(images: int, dim: int) -> Latents:
    raw = load_dataset()
    x = torch.from_numpy(raw.train_images[:images]).flatten(1).float()
    x = x - x.mean(0)
    _, _, directions = torch.pca_lowrank(x, dim, center=False)
    z = x @ directions
    z = z / z.std(0)
    return Latents(z, 2 * torch.full_like(z, SPREAD).log(), torch.from_numpy(raw.train_labels[:images]))


def fit(side: str, images: int, dim: int) -> Work:
    number, gmm.TOLERANCE = FITS[side]
    torch.manual_seed(0)
    every = posteriors(images, dim)
    held_out = torch.arange(len(every.mu)) % 10 == 0
    train, val = (Latents(*(part[rows] for part in every)) for rows in (~held_out, held_out))

    def work() -> dict[str, Any]:
        sampler = gmm.GaussianMixtureSampler(num_components=number)
        sampler.fit(train, val, seed=0)
        return sampler.state()[1]

    return work


def density(dtype: torch.dtype, block: int, as_product: bool = False) -> Work:
    densities.CACHED_BLOCK = block
    if not as_product:
        densities.ROUNDING = -1.0  # no estimate is below it
    draw = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 500, 40, generator=draw)
    mixture = Mixture(mu, logvar, torch.full((500,), 1 / 500).log())
    z = torch.randn(2000, 40, generator=draw).to(dtype)

    def work() -> None:
        with torch.no_grad():
            mixture.log_prob(z)

    return work


def compare(cases: dict[str, Any], case: str, sides: dict[str, partial[Side]], rounds: int) -> None:
    times = take_turns(sides, rounds)
    first, *others = times
    ratios = {f"{name} / {first}": ratio(times, name, first) for name in others}
    cases[case] = {"times": times, "ratios": ratios}
    record("mixtures", {"cases": cases})  # now, as the fits that come last take long
    print_times(case, times)
    print("  ".join(f"{name}: {value:.2f}" for name, value in ratios.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=54_000)
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cases: dict[str, Any] = {}
    blocks = {"small blocks": densities.CACHED_BLOCK, "large blocks": densities.BLOCK}
    name, batch, images = EPOCH
    models = {model: partial(Side, ours, model, batch, images) for model in ("conv", "residual")}
    compare(cases, f"an epoch of {images:,}, {name}", models, given.rounds)
    of_blocks = {side: partial(Side, density, torch.float32, block) for side, block in blocks.items()}
    compare(cases, "log p of 2,000 draws, 500 components, 40 dimensions", of_blocks, given.rounds)
    double = partial(Side, density, torch.float64, densities.CACHED_BLOCK)
    of_forms = {"by products": partial(double, True), "by differences": double}
    compare(cases, "the same in float64", of_forms, given.rounds)
    size = (given.images, given.latent_dim)
    case = f"fit to {size[0]:,} x {size[1]}"
    compare(cases, case, {side: partial(Side, fit, side, *size) for side in FITS}, given.rounds)
    nats = {side: fit(side, *size)()["candidates"][0]["held_out"] for side in FITS}
    cases[case]["checks"] = {f"held-out nats, {side}": f"{value:.3f}" for side, value in nats.items()}
    print("  held-out nats a draw", cases[case]["checks"])
    record("mixtures", {"cases": cases})


if __name__ == "__main__":
    main()
