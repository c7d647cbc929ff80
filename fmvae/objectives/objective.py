"""The base class of training objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from fmvae.objectives.likelihoods import Bernoulli, Likelihood
from fmvae.objectives.schedules import BetaSchedule, Constant
from fmvae.objectives.terms import Batch, Model, Terms


class Objective(nn.Module, ABC):
    """The quantity that training minimises. Subclasses compute it from a model and a batch (docs/extending.md).

    Args:
        likelihood: of the images; Bernoulli if None.
        beta: the schedule of the KL weight; constant 1 if None.

    Attributes:
        network: a network of its own, trained by ``Terms.network_loss`` with ``network_optimizer``; None by
            default. Other parameters of the objective, such as those of the likelihood, are trained with the
            model. All are saved in checkpoints.
    """

    # an instance may set these two
    num_draws: int = 1  # posterior draws for each image, >= 1; sets the shape of ``Batch.noise``
    # whether it works under ``torch.vmap``; if not, the runs of a stack take their steps one after another
    vmap: bool = True
    # True if a latent dimension changes nothing when its posterior is N(0, 1) for every image and the decoder
    # ignores it. A stack pads narrower models with such dimensions; if False, it needs runs of equal latent_dim.
    ignores_unused_latents: ClassVar[bool] = False
    any_prior: ClassVar[bool] = False  # whether it uses ``model.prior_density()``, or only knows the prior N(0, 1)
    any_schedule: ClassVar[bool] = True  # whether it uses ``beta.penalty``, or only a weight
    smallest_batch: ClassVar[int] = 1  # images that it needs in every batch
    network: nn.Module | None

    def __init_subclass__(cls, **options: Any) -> None:
        """Do not inherit what a parent class states about its formula if this class has another formula."""
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            for name in ("of_means", "ignores_unused_latents", "any_prior"):
                if name not in vars(cls):
                    setattr(cls, name, vars(Objective)[name])

    def __init__(self, likelihood: Likelihood | None = None, beta: BetaSchedule | None = None):
        super().__init__()
        self.likelihood = likelihood or Bernoulli()
        self.beta = beta or Constant(1.0)
        self.network = None

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        """Compute the loss and its parts on a batch.

        The result must depend on the arguments only; ``batch.noise`` provides random numbers. To work in a CUDA
        graph, it must not read values from the device: no ``item()``, no branch on a tensor's value.

        Args:
            model: call it as ``model(batch.x, batch.labels, noise=batch.noise)``, or call its methods.
            numbers: the result of the method ``numbers`` for this step, as floats or as scalar tensors on the
                batch's device.
        """

    def network_optimizer(self) -> Optimizer:
        """Return the optimizer of the parameters of ``network``; called if there is one."""
        raise NotImplementedError(f"{type(self).__name__} has a network and no network_optimizer")

    @contextmanager
    def stacked(self) -> Iterator[None]:
        """Inside, the objective uses the likelihood that gives the same bits under ``torch.vmap``."""
        alone, self.likelihood = self.likelihood, self.likelihood.stacked()
        try:
            yield
        finally:
            self.likelihood = alone

    def numbers(self, progress: float) -> dict[str, float]:
        """Return the schedules' values at ``progress`` in [0, 1], by name; the names never change."""
        return self.beta.numbers(progress)

    def of_means(self, recon: float, kl: float) -> float | None:
        """Compute the loss with the final schedule values, in nats per image, from a split's mean terms.

        Return None, the default, if the loss is not a function of these two; it is then averaged over batches.
        """
        return None
