"""The base class of samplers: what latents are drawn from when a trained model generates images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fmvae import rng
from fmvae.errors import RunError
from fmvae.evaluation.columns import HAS_DENSITY
from fmvae.evaluation.partial import Partial
from fmvae.objectives.densities import in_blocks

# parts of the stream "samplers"
TRAIN_DRAWS, VAL_DRAWS, START, FIRST_EPOCH = 0, 1, 2, 100


class Latents(NamedTuple):
    """The posteriors N(mu, exp(logvar)) of a split's images: mu and logvar (N, latent_dim), labels (N,)."""

    mu: Tensor
    logvar: Tensor
    labels: Tensor

    def of_class(self, label: int | None) -> Latents:
        """Return the posteriors of the images of one class; all of them for None."""
        if label is None:
            return self
        chosen = self.labels == label
        return Latents(self.mu[chosen], self.logvar[chosen], self.labels[chosen])

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw from each posterior: (N, latent_dim), float64."""
        noise = torch.randn(self.mu.shape, generator=generator, dtype=torch.float64)
        return self.mu.double() + noise * (0.5 * self.logvar.double()).exp()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean (D,) and covariance (D, D) of the mixture of all posteriors, exactly, in float64.

        The covariance is that of the means plus the mean of the variances.
        """
        mu = self.mu.double()
        mean = mu.mean(0)
        centred = mu - mean
        return mean, centred.T @ centred / len(mu) + self.logvar.double().exp().mean(0).diag()


class Scale(NamedTuple):
    """Mean and standard deviation (D,) of each latent dimension, by which latents are standardised for a fit."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, latents: Latents, name: str) -> Scale:
        """Return those of the mixture of all posteriors.

        Args:
            name: of the sampler, for the error.

        Raises:
            RunError: a posterior is not finite.
        """
        mean, covariance = latents.moments()
        std = covariance.diagonal().sqrt()
        std = torch.where(std == 0, 1.0, std)  # a dimension that never varies stays as it is
        bad = (~(std.isfinite() & mean.isfinite())).nonzero().flatten().tolist()
        if bad:
            problem = (
                f"latent dimension {bad[0]} of the training posteriors has standard deviation {std[bad[0]]:g}"
            )
            raise RunError(f"sampler {name}", problem, "leave it out of evaluation.samplers")
        return cls(mean, std)

    def apply(self, z: Tensor) -> Tensor:
        """Standardise z (..., D)."""
        return (z - self.mean.to(z)) / self.std.to(z)

    def undo(self, standardised: Tensor) -> Tensor:
        """The inverse of ``apply``."""
        return standardised * self.std.to(standardised) + self.mean.to(standardised)


class Sampler(ABC):
    """A way to draw latents for generation, fitted to the posteriors of a trained model's training images.

    A fit is computed in float64 on the CPU, draws from the streams ``(seed, "samplers", part)``, and gives the
    same bits for any number of threads. For a conditional model, a sampler draws from p(z | class). For a class
    without training images it is N(0, 1), or whatever a network makes of it.

    Args:
        num_classes: of a conditional model; 0 for a model without labels, for which labels are ignored.

    Attributes:
        name: in ``evaluation.samplers``; ``columns.HAS_DENSITY`` lists it.
        stored: whether a fit is worth a file: ``state`` is then enough to draw.
    """

    name: ClassVar[str]
    stored: ClassVar[bool] = True

    def __init__(self, num_classes: int = 0):
        self.num_classes = num_classes

    @property
    def density(self) -> bool:
        """Whether ``log_prob`` is offered."""
        return HAS_DENSITY[self.name]

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values that the fit depends on, besides the posteriors and the seed."""

    @property
    def drawing(self) -> dict[str, Any]:
        """JSON values that draws and densities depend on, but not the fit; {} if all are at their defaults."""
        return {}

    def check(self, num_train: int) -> None:  # noqa: B027, nothing to check is the usual case
        """Check before training whether a fit can work, with so many images (of the smallest class, but for
        classes without any).

        Raises:
            ConfigError: a setting does not fit the data, or a library is missing.
        """

    @abstractmethod
    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        """Fit to the posteriors of the training images; those of the validation images choose between fits.

        Args:
            train, val: on the CPU.
            seed: the run's seed.
            partial: where a long fit keeps its state; None: nowhere.

        Raises:
            RunError, ConfigError: the posteriors cannot be fitted with these settings.
        """

    @abstractmethod
    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        """Draw latents (num, latent_dim), float64, on the generator's device.

        Args:
            labels: (num,), the class of each; needed for conditional models, otherwise ignored.
        """

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the log density (...) in nats of z (..., latent_dim), float64, on the device of z.

        Args:
            labels: of a shape that expands to (...); needed for conditional models, otherwise ignored.

        Raises:
            TypeError: the sampler is not a density.
        """
        raise TypeError(f"the sampler {self.name} is not a density")

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the fit as tensors, and as JSON values that say how it went."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Restore a fit from ``state``. Any exception means that the state is not one of this sampler's."""

    def digest(self) -> str:
        """Return the SHA-256 of the fit: of the names, types, shapes and bytes of its tensors."""
        found = sha256()
        for name, tensor in sorted(self.state()[0].items()):
            found.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def told(self) -> dict[str, Any]:
        """Return what the fit has chosen, as JSON values to show beside numbers."""
        return {}

    # --- conditional models

    def classes(self) -> list[int | None]:
        """The classes with a density of their own: None alone for a model without labels."""
        return list(range(self.num_classes)) or [None]

    def given(self, labels: Tensor | None, shape: torch.Size) -> Tensor | None:
        """Return the labels, expanded to a shape; None for a model without labels.

        Raises:
            ValueError: labels are missing or out of range.
        """
        if not self.num_classes:
            return None
        if labels is None:
            raise ValueError(f"the sampler {self.name} of a conditional model needs labels")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"labels must be in [0, {self.num_classes})")
        return labels.expand(shape)

    def one_hot(self, labels: Tensor | None, shape: torch.Size) -> Tensor:
        """Return labels as one-hot rows (*shape, num_classes) in float64; of no columns without labels."""
        given = self.given(labels, shape)
        if given is None:
            return torch.empty((*shape, 0), dtype=torch.float64)
        return one_hot(given, self.num_classes).double()


def standard_normal(num: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return (num, dim) draws in float64 on the generator's device."""
    return torch.randn((num, dim), generator=generator, dtype=torch.float64, device=generator.device)


def validation_draws(val: Latents, seed: int) -> Tensor:
    """Return the draws by which fits are compared."""
    return val.draw(rng.stream(seed, "samplers", VAL_DRAWS))


def by_rows(function: Callable[[Tensor, Tensor], Tensor], z: Tensor, one_hot: Tensor, per_row: int) -> Tensor:
    """Apply a function of rows z (N, D) and one-hot rows (N, C) block by block, as ``in_blocks`` does."""
    dim = z.shape[-1]
    joined = torch.cat([z, one_hot.to(z)], -1)
    return in_blocks(lambda rows: function(rows[:, :dim], rows[:, dim:]), joined, per_row)
