"""Training VAEs. They draw from named streams only, and what watches them cannot change a trained bit."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmvae import rng
from fmvae.data import ImageData, Split
from fmvae.errors import ConfigError
from fmvae.evaluation.likelihood import measure_elbo
from fmvae.models import VAE, VAEOutput
from fmvae.objectives import Objective
from fmvae.training import written_out
from fmvae.training.loop import Trainer, add_up
from fmvae.training.precision import check_precision, forward_in, step_in

if TYPE_CHECKING:
    from fmvae.training.engines.cuda_graph import Resident


class Batch(NamedTuple):
    """What one step is taken on.

    Attributes:
        x: images (B, C, H, W), in [0, 1].
        labels: (B,).
        noise: standard normal (B, latent_dim), for the posterior draw.
        epoch, step: which of its epoch it is, both from 1.
        progress: the share of the whole training that is behind it, in [0, 1).
    """

    x: Tensor
    labels: Tensor
    noise: Tensor
    epoch: int
    step: int
    progress: float


class VAETrainer(Trainer):
    """Trains a VAE by its objective; see ``Trainer`` for the other arguments.

    Args:
        objective: likelihood and beta schedule.
        precision: of the passes through the model: ``fp32``, ``bf16``, or, on a GPU, ``tf32``.

    Attributes:
        resident: what takes the epochs on a GPU; None takes them here, step by step.
    """

    terms = ("objective", "recon", "kl")

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        data: ImageData,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        *,
        precision: str = "fp32",
        **settings: Any,
    ):
        self._check_model(model)
        check_precision(precision, "VAE", data.device)
        super().__init__(model, data, optimizer, scheduler, **settings)
        self.model: VAE = model
        self.objective, self.precision = objective, precision
        self.resident: Resident | None = None

    def _check_model(self, model: VAE) -> None:
        if model.conditional:
            raise ConfigError(
                "model", f"{type(model).__name__} needs labels", "train it with ConditionalVAETrainer"
            )

    def _forward(self, batch: Batch) -> VAEOutput:
        return self.model(batch.x, noise=batch.noise)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        if self.resident:
            return self.resident.train_epoch(epoch)
        steps, numbers = self.steps(epoch), None
        while True:
            try:
                batch = steps.send(numbers)
            except StopIteration as end:
                return end.value
            numbers = self._step(batch)

    def steps(self, epoch: int) -> Generator[Batch, Mapping[str, float] | None, dict[str, float]]:
        """One pass over the training split: yields each batch, is sent its numbers, returns the epoch's row.

        The numbers, means over the batch, are sent when the optimizer has stepped on it.
        """
        self.model.train()
        shuffle = rng.stream(self.seed, "shuffle", epoch)
        generator = rng.stream(self.seed, "noise", epoch, self.data.device)
        done, sums, _ = self._begun(generator)
        batches = islice(self.data.train.batches(self.data.batch_size, shuffle), done, None)
        for step, (x, labels) in enumerate(batches, done):
            noise = self.noise(x, generator)
            numbers = yield Batch(x, labels, noise, epoch, step + 1, self.progress(epoch, step))
            assert numbers is not None
            add_up(sums, numbers, len(x))
            self._end_step(step + 1, lambda: sums, generator)
        return self.row(epoch, sums)

    def progress(self, epoch: int, step: int) -> float:
        """The share of the whole training that is behind the ``step``-th step of an epoch, from 0, in [0, 1)."""
        return ((epoch - 1) * self.num_steps + step) / (self.epochs * self.num_steps)

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Of the posterior draws of images x (B, ...): standard normal (B, latent_dim)."""
        return torch.randn(len(x), self.model.latent_dim, generator=generator, device=x.device, dtype=x.dtype)

    def row(self, epoch: int, sums: Mapping[str, float]) -> dict[str, float]:
        """The epoch's, from its steps' numbers, each summed over the images."""
        beta = self.objective.beta.weight(self.progress(epoch, self.num_steps - 1))
        lr = self.optimizer.param_groups[0]["lr"]
        means = {f"train/{name}": total / len(self.data.train) for name, total in sums.items()}
        return {"epoch": epoch, "beta": beta, "lr": float(lr), **means}

    def _step(self, batch: Batch) -> dict[str, float]:
        """Forward, the two terms and what is optimised of them, backward, and the optimizer's step."""
        with step_in(self.precision):
            recon, kl = self.mean_terms(batch)
            loss = self.objective(recon, kl, batch.progress)
            numbers = {"recon": recon, "kl": kl, "objective": loss}
            return self._optimizer_step(loss, numbers, batch.epoch, batch.step)

    def mean_terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The two terms, their means over the batch."""
        if type(self) is VAETrainer and "_forward" not in vars(self) and self.precision == "fp32":
            model = written_out.base_as_built(self.model, self.objective, batch.x)
            if model is not None:
                return written_out.mean_terms(model, batch.x, batch.noise)
        with forward_in(self.precision, batch.x.device):
            output = self._forward(batch)
        logits, mu, logvar = (part.to(batch.x.dtype) for part in (output.logits, output.mu, output.logvar))
        terms = self.objective.terms(logits, batch.x, mu, logvar)
        return terms.recon.mean(), terms.kl.mean()

    def evaluate(self, split: Split | None = None, *, at_mean: bool = False) -> dict[str, float]:
        """The mean terms over a split (the test split by default), in nats per image; see ``measure_elbo``.

        The posterior draws are the same at every call, so epochs differ by their weights alone.
        """
        noise = rng.stream(self.seed, "evaluation", device=self.data.device)
        split = self.data.test if split is None else split  # an empty split is falsy
        return measure_elbo(self.model, self.objective, split, noise, at_mean=at_mean)


class ConditionalVAETrainer(VAETrainer):
    """Trains a conditional VAE: the labels go with the images."""

    def _check_model(self, model: VAE) -> None:
        if not model.conditional:
            raise ConfigError("model", f"{type(model).__name__} takes no labels", "train it with VAETrainer")

    def _forward(self, batch: Batch) -> VAEOutput:
        return self.model(batch.x, batch.labels, noise=batch.noise)
