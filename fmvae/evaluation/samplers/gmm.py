"""A mixture of Gaussians with full covariances, fitted to draws of the training posteriors (Ghosh et al. 2020)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.phases import phase
from fmvae.common.threads import one_thread
from fmvae.errors import ConfigError, RunError
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.base import (
    START,
    TRAIN_DRAWS,
    Latents,
    Sampler,
    Scale,
    standard_normal,
    validation_draws,
)
from fmvae.objectives.densities import BLOCK, LOG_2PI, Density, in_blocks

KEY = "evaluation.gmm.num_components"
REGULARISATION = (
    1e-6  # added to variances of standardised latents, so that a component of few points has a density
)
TOLERANCE = 3e-3  # nats per draw; 1e-3 takes 1.7 times as long for 0.01 nats (100 components, wide_latent)
ITERATIONS = 200  # at most; the defaults take about 30
log = logging.getLogger("fmvae")


class FullGaussians(Density):
    """A mixture of K Gaussians with full covariances L Lᵀ, in float64.

    Args:
        weights: (K,), adding up to 1.
        means: (K, D).
        factors: the lower triangular L, (K, D, D).

    Raises:
        ValueError: the shapes do not fit.
    """

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor):
        num, dim = means.shape
        if weights.shape != (num,) or factors.shape != (num, dim, dim):
            raise ValueError(f"weights {[*weights.shape]}, means {[*means.shape]}, factors {[*factors.shape]}")
        super().__init__(dim, means)
        self.weights, self.means, self.factors = weights, means, factors

    def log_prob(self, z: Tensor) -> Tensor:
        weights, means, factors = (part.to(z) for part in (self.weights, self.means, self.factors))
        identity = torch.eye(self.latent_dim, dtype=z.dtype, device=z.device)
        inverse = torch.linalg.solve_triangular(factors, identity, upper=False)
        heights = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        log_peaks = weights.log() - heights - 0.5 * self.latent_dim * LOG_2PI

        def of_rows(rows: Tensor) -> Tensor:
            whitened = (rows - means[:, None]) @ inverse.mT  # (K, N, D)
            return (log_peaks[:, None] - 0.5 * whitened.square().sum(2)).logsumexp(0)

        return in_blocks(of_rows, z, 2 * means.numel())

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        device = generator.device if generator else self.device
        like = {"generator": generator, "device": device, "dtype": self.dtype}
        return self.of_noise(torch.rand(num, **like), torch.randn((num, self.latent_dim), **like))

    def of_noise(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """Return draws (N, D): uniform (N,) in [0, 1) chooses the components, noise (N, D) is standard normal."""
        totals = self.weights.cumsum(0).to(uniform)
        chosen = torch.searchsorted(totals / totals[-1], uniform, right=True)
        means, factors = self.means.to(noise), self.factors.to(noise)
        drawn = [
            means[some] + (factors[some] @ part[..., None])[..., 0]
            for some, part in zip(
                *(t.split(max(1, BLOCK // self.latent_dim**2)) for t in (chosen, noise)), strict=True
            )
        ]
        return torch.cat(drawn)


class GaussianMixtureSampler(Sampler):
    """Mixtures of Gaussians, one for each class of a conditional model, by expectation maximisation.

    One component is the mean and covariance of the mixture of all training posteriors, in closed form. More are
    fitted by scikit-learn to one draw of each posterior, in units of each dimension's standard deviation. There,
    1e-6 is added to all variances. Of several numbers of components, the one with the highest mean log-likelihood
    of draws of the validation posteriors is taken; numbers that exceed the images of the smallest class, or
    cannot be fitted, are passed over.

    Args:
        num_components: a number, or several to choose from.
    """

    name = "gmm"
    density = True

    def __init__(self, num_classes: int = 0, *, num_components: int | Sequence[int]):
        super().__init__(num_classes)
        several = not isinstance(num_components, int)
        self.num_components = sorted(set(num_components)) if several else num_components
        self._candidates: list[int] = self.num_components if several else [num_components]  # type: ignore[assignment, list-item]
        self._densities: list[FullGaussians] = []
        self._meta: dict[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_components": self.num_components}

    def check(self, num_train: int) -> None:
        if min(self._candidates) > num_train:
            of = "training images of the smallest class" if self.num_classes else "training images"
            problem = f"{min(self._candidates)} components, but there are {num_train} {of}"
            raise ConfigError(
                KEY, problem, f"give a number of at most {num_train}" if num_train else "leave gmm out"
            )

    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        parts = [train.of_class(label) for label in self.classes()]
        smallest = min((len(part.mu) for part in parts if len(part.mu)), default=0)
        self.check(smallest)
        held_out = validation_draws(val, seed)
        draws = train.draw(rng.stream(seed, "samplers", TRAIN_DRAWS))
        best, values, failed = -math.inf, [], None
        numbers = [number for number in self._candidates if number <= smallest]
        with phase("gmm", len(numbers) * len(parts), counted=True, minor=True) as current:
            for number in numbers:
                fitted, notes = [], []
                try:
                    for label, part in zip(self.classes(), parts, strict=True):
                        of_class = "" if label is None else f", class {label}"
                        current.now(f"{number} components{of_class}")
                        points = draws if label is None else draws[train.labels == label]
                        density, note = self._of_class(part, points, number, seed)
                        current.advance()
                        fitted.append(density)
                        notes.append(note)
                    value = self._log_prob(fitted, held_out, val.labels).mean().item()
                    if not math.isfinite(value):
                        raise self._singular(number, f"the log-likelihood of validation posteriors is {value}")
                except RunError as error:
                    failed = error
                    values.append({"num_components": number, "problem": error.problem})
                    continue
                values.append({"num_components": number, "held_out": value, "fits": notes})
                if value > best:
                    best, self._densities = value, fitted
                    self._meta = {"num_components": number, "held_out": value}
        if failed and not self._densities:
            raise failed
        self._meta["candidates"] = values

    def _of_class(
        self, part: Latents, points: Tensor, number: int, seed: int
    ) -> tuple[FullGaussians, dict[str, Any]]:
        """Return the mixture of one class, and how its fit went."""
        if not len(part.mu):
            identity = torch.eye(part.mu.shape[1], dtype=torch.float64)
            return FullGaussians(identity.new_ones(1), identity.new_zeros(1, len(identity)), identity[None]), {}
        return self._one(part) if number == 1 else self._several(part, points, number, seed)

    def _one(self, part: Latents) -> tuple[FullGaussians, dict[str, Any]]:
        with one_thread():
            scale = Scale.of(part, self.name)
            mean, covariance = part.moments()
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if failed:  # as scikit-learn does with several components
                factor, failed = torch.linalg.cholesky_ex(covariance + (REGULARISATION * scale.std**2).diag())
        if failed:
            raise self._singular(1, "the covariance of the training posteriors is singular")
        return FullGaussians(torch.ones(1, dtype=mean.dtype), mean[None], factor[None]), {}

    def _several(
        self, part: Latents, points: Tensor, number: int, seed: int
    ) -> tuple[FullGaussians, dict[str, Any]]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture  # takes a second to import
        from threadpoolctl import threadpool_limits

        with one_thread():
            scale = Scale.of(part, self.name)
        mixture = GaussianMixture(
            number,
            covariance_type="full",
            reg_covar=REGULARISATION,
            tol=TOLERANCE,
            max_iter=ITERATIONS,
            random_state=rng.stream_seed(seed, "samplers", START),
        )
        # k-means adds up its threads' sums in the order in which they end
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # noted below
            try:
                mixture.fit(scale.apply(points).numpy())
            except ValueError as error:
                raise self._singular(number, str(error)) from None
        covariances = torch.from_numpy(mixture.covariances_) * scale.std[:, None] * scale.std
        weights, means = torch.from_numpy(mixture.weights_), scale.undo(torch.from_numpy(mixture.means_))
        with one_thread():
            factors, failed = torch.linalg.cholesky_ex(covariances)
        if failed.any():
            raise self._singular(number, "a covariance is singular")
        note = {"iterations": int(mixture.n_iter_), "converged": bool(mixture.converged_)}
        return FullGaussians(weights, means, factors), note

    def _singular(self, number: int, detail: str) -> RunError:
        problem = f"{number} components cannot be fitted ({detail.splitlines()[0]})"
        fewer = f"give fewer, as {KEY}=1, or " if number > 1 else ""
        return RunError("sampler gmm", problem, f"{fewer}leave gmm out of evaluation.samplers")

    def told(self) -> dict[str, Any]:
        return {"num_components": self._meta["num_components"]}

    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(num, generator=generator, dtype=torch.float64, device=generator.device)
        noise = standard_normal(num, self._densities[0].latent_dim, generator)
        given = self.given(labels, uniform.shape)
        if given is None:
            return self._densities[0].of_noise(uniform, noise)
        drawn, given = torch.empty_like(noise), given.to(noise.device)
        for label, density in enumerate(self._densities):
            if (rows := given == label).any():
                drawn[rows] = density.of_noise(uniform[rows], noise[rows])
        return drawn

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._log_prob(self._densities, z.double(), labels)

    def _log_prob(self, densities: Sequence[FullGaussians], z: Tensor, labels: Tensor | None) -> Tensor:
        given = self.given(labels, z.shape[:-1])
        if given is None:
            return densities[0].log_prob(z)
        found = z.new_empty(z.shape[:-1])
        for label, density in enumerate(densities):
            if (rows := given.to(z.device) == label).any():
                found[rows] = density.log_prob(z[rows])
        return found

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        parts = ("weights", "means", "factors")
        fitted = enumerate(self._densities)
        return {
            f"{label}.{part}": getattr(density, part) for label, density in fitted for part in parts
        }, self._meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        parts = ("weights", "means", "factors")
        self._densities = [
            FullGaussians(*(tensors[f"{label}.{part}"] for part in parts)) for label in range(len(self.classes()))
        ]
        self._meta = dict(meta)
