"""The training loop of samplers that are networks: fresh draws of posteriors, early stopping, exact resuming."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fmvae import rng
from fmvae.common.phases import Phase, phase
from fmvae.common.threads import one_thread
from fmvae.errors import RunError
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.base import (
    FIRST_EPOCH,
    START,
    Latents,
    Sampler,
    Scale,
    validation_draws,
)
from fmvae.runs.optimizers import flatten_optimizer, unflatten_optimizer

RATE, LARGEST_NORM = 2e-3, 10.0
STEPS, LARGEST_BATCH = 50, 512  # an epoch has 50 steps at least: of few images, batches are small
ROWS = 4096  # of a block of held-out draws
HELD_OUT_NOISE = 3  # a part of the stream "samplers"


class NetworkSampler(Sampler):
    """A network that is trained on draws of the posteriors, standardised in each dimension, by Adam in float64.

    Each epoch draws from the posteriors anew. The learning rate falls to 0 along a cosine. Training ends after
    ``epochs``, or if the loss of draws of the validation posteriors has not improved for ``PATIENCE`` epochs; the
    weights of the best epoch are kept. Classes enter as one-hot rows.

    Args:
        epochs: at most.
    """

    PATIENCE: ClassVar[int] = 8

    def __init__(self, num_classes: int = 0, *, epochs: int):
        super().__init__(num_classes)
        self.epochs = epochs

    @abstractmethod
    def build(self, latent_dim: int) -> nn.Module:
        """Return a new network, initialised by torch's global generator."""

    @abstractmethod
    def loss(self, network: Any, z: Tensor, one_hot: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss (B,) in nats of standardised latents z (B, D) with one-hot rows (B, num_classes)."""

    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        epochs = phase(f"sampler {self.name}", self.epochs, minor=True)
        with torch.inference_mode(False), torch.enable_grad(), one_thread(), epochs as current:
            self._fit(train, val, seed, partial or Partial(), current)

    def _fit(self, train: Latents, val: Latents, seed: int, partial: Partial, current: Phase) -> None:
        self.scale = Scale.of(train, self.name)
        with rng.seeded(seed, "samplers", START):
            network = self.build(train.mu.shape[1]).double()
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        history: list[float] = []
        best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        tensors, values = partial.read()
        if tensors:
            network.load_state_dict(_under("network.", tensors))
            optimizer.load_state_dict(unflatten_optimizer(_under("optimizer.", tensors), values["optimizer"]))
            history, best = list(values["history"]), _under("best.", tensors)
        held_out = self.scale.apply(validation_draws(val, seed))
        context, of_val = (
            self.one_hot(train.labels, train.labels.shape),
            self.one_hot(val.labels, val.labels.shape),
        )
        size = min(max(1, len(train.mu) // STEPS), LARGEST_BATCH)
        current.advance(len(history))
        while len(history) < self.epochs and len(history) - _best_epoch(history) < self.PATIENCE:
            epoch = len(history) + 1
            generator = rng.stream(seed, "samplers", FIRST_EPOCH + epoch)
            z = self.scale.apply(train.draw(generator))
            batches = torch.randperm(len(z), generator=generator).split(size)
            for step, batch in enumerate(batches):
                done = (epoch - 1 + step / len(batches)) / self.epochs
                optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * done))
                optimizer.zero_grad()
                self.loss(network, z[batch], context[batch], generator).mean().backward()
                nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
                optimizer.step()
            history.append(self._held_out(network, held_out, of_val, seed))
            current.advance()
            if not math.isfinite(history[-1]):
                problem = f"its loss is {history[-1]} after epoch {epoch}"
                raise RunError(f"sampler {self.name}", problem, "leave it out of evaluation.samplers")
            if _best_epoch(history) == epoch:
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            if partial.is_due:
                flat, of_optimizer = flatten_optimizer(optimizer.state_dict())
                tensors = {
                    **{f"network.{name}": tensor for name, tensor in network.state_dict().items()},
                    **{f"best.{name}": tensor for name, tensor in best.items()},
                    **{f"optimizer.{name}": tensor for name, tensor in flat.items()},
                }
                partial.keep(tensors, {"history": history, "optimizer": of_optimizer})
        network.load_state_dict(best)
        self._keep(network)
        self._meta = {"history": history, "best_epoch": _best_epoch(history)}

    def _keep(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def _held_out(self, network: nn.Module, z: Tensor, one_hot: Tensor, seed: int) -> float:
        """Return the mean loss of validation draws, with the same noise at every epoch."""
        generator = rng.stream(seed, "samplers", HELD_OUT_NOISE)
        blocks = zip(z.split(ROWS), one_hot.split(ROWS), strict=True)
        loss = torch.cat([self.loss(network, *block, generator) for block in blocks]).mean()
        return (loss + self.scale.std.log().sum()).item()  # of latents that are not standardised

    def on(self, device: torch.device) -> Any:
        """Return the network, moved to a device."""
        return self.network.to(device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        return {**tensors, "scale.mean": self.scale.mean, "scale.std": self.scale.std}, self._meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.scale = Scale(tensors["scale.mean"], tensors["scale.std"])
        with torch.random.fork_rng(devices=[]):
            network = self.build(len(self.scale.mean)).double()
        network.load_state_dict(_under("network.", tensors))
        self._keep(network)
        self._meta = dict(meta)


def _best_epoch(history: list[float]) -> int:
    """Return the epoch (from 1) with the lowest value, the first of equal ones; 0 if there is none."""
    return min(range(len(history)), key=history.__getitem__) + 1 if history else 0


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
