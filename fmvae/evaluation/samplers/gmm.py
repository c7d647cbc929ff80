"""A mixture of Gaussians with full covariances, fitted to draws of the training posteriors (Ghosh et al. 2020)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.threads import one_thread
from fmvae.config.schema import RULES
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
from fmvae.evaluation.samplers.candidates import Finished, Progress, as_tensors, from_tensors
from fmvae.evaluation.samplers.gaussians import FullGaussians

KEY = "evaluation.gmm.num_components"
TEMPERATURE = "evaluation.gmm.temperature"
REGULARISATION = 1e-6  # of variances of standardised latents: a component of few points has a density
TOLERANCE = 3e-3  # nats per draw; 1e-3 takes 1.7 times as long for 0.01 nats (100 components, wide_latent)
ITERATIONS = 200  # at most; the defaults take about 30


class GaussianMixtureSampler(Sampler):
    """Mixtures of Gaussians, one for each class of a conditional model, by expectation maximisation.

    One component is the mean and covariance of the mixture of all training posteriors, in closed form. More are
    fitted by scikit-learn to one draw of each posterior, in units of each dimension's standard deviation, with
    ``REGULARISATION`` added to all variances. Of several numbers of components, the one with the highest mean
    log-likelihood of draws of the validation posteriors is taken; numbers that exceed the images of the smallest
    class, or cannot be fitted, are passed over.

    A temperature T multiplies the covariances of the components by T², also that of a class without training
    images. Below 1, images are more typical and less diverse; above 1, it is the other way round. The result is
    still a density. Neither the fit nor the choice of the number of components depends on T.

    Args:
        num_components: a number, or several to choose from.
        temperature: in [0.01, 2]. Values above 1 are allowed so that a search can find that 1 is best.

    Raises:
        ConfigError: the temperature is out of range.
    """

    name = "gmm"

    def __init__(self, num_classes: int = 0, *, num_components: int | Sequence[int], temperature: float = 1.0):
        super().__init__(num_classes)
        try:
            self.temperature: float = RULES[TEMPERATURE].accept(temperature)
        except ValueError:
            problem = f"{temperature!r} is not {RULES[TEMPERATURE]}"
            raise ConfigError(TEMPERATURE, problem, "give 1 for the mixture as it was fitted") from None
        several = not isinstance(num_components, int)
        self.num_components = sorted(set(num_components)) if several else num_components
        self._candidates: list[int] = self.num_components if several else [num_components]  # type: ignore[assignment, list-item]
        self._fitted: list[FullGaussians] = []  # of each class
        self._densities: list[FullGaussians] = []  # the same at the temperature
        self._meta: dict[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_components": self.num_components}

    @property
    def drawing(self) -> dict[str, Any]:
        return {} if self.temperature == 1 else {"temperature": self.temperature}

    def check(self, num_train: int) -> None:
        if min(self._candidates) > num_train:
            of = "training images of the smallest class" if self.num_classes else "training images"
            problem = f"{min(self._candidates)} components, but there are {num_train} {of}"
            raise ConfigError(
                KEY, problem, f"give a number of at most {num_train}" if num_train else "leave gmm out"
            )

    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        with one_thread():  # the held-out log-likelihoods, too: of 100 components, three threads give other bits
            self._fit(train, val, seed, partial or Partial())

    def _fit(self, train: Latents, val: Latents, seed: int, partial: Partial) -> None:
        parts = [train.of_class(label) for label in self.classes()]
        smallest = min((len(part.mu) for part in parts if len(part.mu)), default=0)
        self.check(smallest)
        held_out = validation_draws(val, seed)
        draws = train.draw(rng.stream(seed, "samplers", TRAIN_DRAWS))
        numbers = [number for number in self._candidates if number <= smallest]
        done = Finished(partial)
        progress = Progress(self.classes(), numbers, done)
        with progress.phase as current:
            for number in numbers[len(done.rows) :]:
                try:
                    for label, part in list(zip(self.classes(), parts, strict=True))[len(done.densities) :]:
                        progress.tell(current, number, label)
                        points = draws if label is None else draws[train.labels == label]
                        done.add(*self._of_class(part, points, number, seed))
                        current.advance()
                        done.keep_if_due(partial)
                    value = self._log_prob(done.densities, held_out, val.labels).mean().item()
                    if not math.isfinite(value):
                        raise self._singular(number, f"the log-likelihood of validation posteriors is {value}")
                    done.compare(number, value)
                except RunError as error:
                    done.fail(number, error)
        if done.failed and not done.best:
            raise done.failed
        self._meta = {**done.chosen, "candidates": done.rows}
        self._keep(done.best)

    def _keep(self, fitted: list[FullGaussians]) -> None:
        self._fitted, self._densities = fitted, [density.at(self.temperature) for density in fitted]

    def _of_class(
        self, part: Latents, points: Tensor, number: int, seed: int
    ) -> tuple[FullGaussians, dict[str, Any]]:
        """Return the mixture of one class, and how its fit went."""
        if not len(part.mu):
            identity = torch.eye(part.mu.shape[1], dtype=torch.float64)
            return FullGaussians(identity.new_ones(1), identity.new_zeros(1, len(identity)), identity[None]), {}
        return self._one(part) if number == 1 else self._several(part, points, number, seed)

    def _one(self, part: Latents) -> tuple[FullGaussians, dict[str, Any]]:
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
        return {"num_components": self._meta["num_components"], **self.drawing}

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
        return as_tensors(self._fitted), self._meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self._keep(from_tensors(tensors, len(self.classes())))
        self._meta = dict(meta)
