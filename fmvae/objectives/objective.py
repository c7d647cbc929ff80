"""What every objective offers to the trainers and the evaluator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from fmvae.objectives.likelihoods import Bernoulli, Likelihood
from fmvae.objectives.schedules import BetaSchedule, Constant
from fmvae.objectives.terms import Batch, Terms

if TYPE_CHECKING:
    from torch import nn


class Objective(ABC):
    """What is minimised. A subclass says how it is computed from a model and a batch; see docs/extending.md.

    Args:
        likelihood: of the images; Bernoulli if None.
        beta: the schedule of the KL's weight; constant 1 if None.
    """

    num_draws: ClassVar[int] = 1  # posterior draws for each image, >= 1; sets the shape of ``Batch.noise``
    # whether ``torch.vmap`` can run it; if not, the runs of a stack are stepped one after the other
    vmap: ClassVar[bool] = True
    # whether it is unchanged by a latent dimension whose posterior is N(0, 1) for every image and that the decoder
    # ignores: a stack adds such dimensions to the narrower of its models, or else its runs have one latent_dim
    ignores_unused_latents: ClassVar[bool] = False

    def __init__(self, likelihood: Likelihood | None = None, beta: BetaSchedule | None = None):
        self.likelihood = likelihood or Bernoulli()
        self.beta = beta or Constant(1.0)

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        """The loss and its parts on a batch.

        It must be a function of its arguments alone, with ``batch.noise`` for random numbers. To be captured in a
        CUDA graph it must not read from the device: no ``item()``, no branch on a tensor's value.

        Args:
            model: to be called as ``model(batch.x, batch.labels, noise=batch.noise)``, or by its methods.
            numbers: what ``numbers`` gives for this step: floats, or scalar tensors on the batch's device.
        """

    def numbers(self, progress: float) -> dict[str, float]:
        """What the schedules say at ``progress``, in [0, 1]; the same names at every progress."""
        return self.beta.numbers(progress)

    def of_means(self, recon: float, kl: float) -> float | None:
        """The loss at the end of training, in nats per image, from a split's mean terms.

        None, as here, if it is not a function of these two alone: it is then averaged over batches.
        """
        return None
