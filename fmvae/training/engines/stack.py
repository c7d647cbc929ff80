"""Several VAEs trained at once: their weights stacked, one batched pass for all, an optimizer for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fmvae.errors import NumericsError
from fmvae.models import VAE, LatentAxis
from fmvae.objectives import kl_divergence
from fmvae.runs.observer import Observer
from fmvae.training.loop import not_finite, total_norm
from fmvae.training.precision import forward_in, step_in
from fmvae.training.vae import Batch, VAETrainer

Numbers = dict[str, float]
TERMS = ("recon", "kl", "objective")


def widen(tensor: Tensor, axis: LatentAxis | None, z: int, width: int) -> Tensor:
    """A tensor of a model with ``z`` latents as one of ``width``, with zeros behind each block of its latents."""
    if axis is None or z == width:
        return tensor
    *blocks, rest = _blocks(tensor, axis, z)
    shape = list(tensor.shape)
    shape[axis.dim] = width - z
    zeros = tensor.new_zeros(shape)
    return torch.cat([part for block in blocks for part in (block, zeros)] + [rest], axis.dim)


def narrow(tensor: Tensor, axis: LatentAxis | None, z: int, width: int) -> Tensor:
    """The inverse of ``widen``: from ``width`` latents to ``z``."""
    if axis is None or z == width:
        return tensor
    *blocks, rest = _blocks(tensor, axis, width)
    return torch.cat([*(block.narrow(axis.dim, 0, z) for block in blocks), rest], axis.dim)


def _blocks(tensor: Tensor, axis: LatentAxis, latents: int) -> list[Tensor]:
    """The parts of a tensor along its axis: each block of latents, and what follows them."""
    rest = tensor.shape[axis.dim] - axis.blocks * latents
    return list(tensor.split([latents] * axis.blocks + [rest], axis.dim))


def can_widen(make: Callable[[int], VAE], z: int) -> bool:
    """Whether ``latent_axes`` is correct: a model with one more latent differs in these axes only.

    Args:
        make: gives the model of so many latents; none of its weights are computed.
    """
    with torch.device("meta"):
        narrower, wider = make(z), make(z + 1)
    axes = narrower.latent_axes()
    if axes is None:
        return False
    own, wide = _tensors(narrower), _tensors(wider)
    expected = {name: list(tensor.shape) for name, tensor in own.items()}
    for name, axis in axes.items():
        if name not in expected or axis.dim >= len(expected[name]) or expected[name][axis.dim] < axis.blocks * z:
            return False
        expected[name][axis.dim] += axis.blocks
    return expected == {name: list(tensor.shape) for name, tensor in wide.items()}


class Stack(Observer):
    """The models of trainers that differ in weights, latent dimensions, objective, optimizer and data, as one.

    Models with fewer latent dimensions than the widest are widened by dimensions that are zero everywhere
    (``VAE.latent_axes`` says where): their posterior is the prior, the decoder does not see them, and every
    gradient of theirs is exactly zero.

    Between ``load`` and ``unload`` the weights and the optimizers' states are here, and the trainers' are out of
    date; a run that is stopped in between is told its own before it is saved.

    Args:
        trainers: of models of one class and structure, on one device, with likelihoods of one setting
            and one precision.
        batched: whether one pass goes through all models; if not, one goes through each, in turn. None chooses:
            on a processor, stacked convolutions are slower than one after another, and autocast does not reach
            into a batched pass.
    """

    def __init__(self, trainers: Sequence[VAETrainer], batched: bool | None = None):
        self.trainers = list(trainers)
        self.latent_dims = [trainer.model.latent_dim for trainer in trainers]
        self.width = max(self.latent_dims)
        widest = self.trainers[self.latent_dims.index(self.width)].model
        self.template: VAE = deepcopy(widest)
        self.axes = widest.latent_axes() or {}
        if not self.axes and len(set(self.latent_dims)) > 1:
            raise ValueError(f"{type(widest).__name__} has no latent_axes: its runs need one latent_dim")
        convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in widest.modules())
        on_cpu = self.trainers[0].data.device.type == "cpu"
        self.precision = self.trainers[0].precision
        in_turn = (convolutional and on_cpu) or self.precision == "bf16"
        self.batched = not in_turn if batched is None else batched
        # filled by `load`; what it leaves as it is, pads, and stays zero
        room = {name: tensor.new_zeros(len(trainers), *tensor.shape) for name, tensor in _tensors(widest).items()}
        self.params = {name: room[name].requires_grad_() for name, _ in widest.named_parameters()}
        self.buffers = {name: room[name] for name, _ in widest.named_buffers()}
        # each trainer's own slices, which its optimizer steps on: they share memory with the stack
        self.slices = [
            {name: stacked.detach()[i] for name, stacked in self.params.items()} for i in range(len(trainers))
        ]
        self.optimizers: list[torch.optim.Optimizer] = []
        for trainer in self.trainers:  # the first to be told of a stop
            trainer.observers = [self, *(o for o in trainer.observers if not isinstance(o, Stack))]

    @torch.no_grad()
    def load(self) -> None:
        """Take weights and optimizers' states from the trainers."""
        self.template.train()
        self.optimizers = []
        for i, trainer in enumerate(self.trainers):
            z = self.latent_dims[i]
            for name, own in _tensors(trainer.model).items():
                place = self.params[name] if name in self.params else self.buffers[name]
                place[i].copy_(widen(own, self.axes.get(name), z, self.width))
            names: dict[Any, str] = {own: name for name, own in trainer.model.named_parameters()}
            slice_of: dict[Any, Any] = {own: self.slices[i][name] for own, name in names.items()}
            kind: Any = type(trainer.optimizer)
            optimizer = kind(
                [
                    {**group, "params": [slice_of[p] for p in group["params"]]}
                    for group in trainer.optimizer.param_groups
                ]
            )
            for own, state in trainer.optimizer.state.items():
                optimizer.state[slice_of[own]] = self._reshaped(state, own.shape, names[own], z, widen)
            self.optimizers.append(optimizer)

    @torch.no_grad()
    def unload(self) -> None:
        """Give weights and optimizers' states back to the trainers."""
        for i, trainer in enumerate(self.trainers):
            z = self.latent_dims[i]
            for name, own in _tensors(trainer.model).items():
                place = self.params[name] if name in self.params else self.buffers[name]
                own.copy_(narrow(place[i], self.axes.get(name), z, self.width))
            # or its scheduler takes it for one that never stepped
            setattr(trainer.optimizer, "_opt_called", True)  # noqa: B010
            for name, own in trainer.model.named_parameters():
                wide: Any = self.slices[i][name]
                if state := self.optimizers[i].state.get(wide):
                    trainer.optimizer.state[own] = self._reshaped(state, wide.shape, name, z, narrow)

    def _reshaped(
        self, state: Mapping[str, Any], shape: torch.Size, name: str, z: int, how: Any
    ) -> dict[str, Any]:
        """An optimizer's state of one parameter, with what has that parameter's shape widened or narrowed."""
        return {
            key: how(value, self.axes.get(name), z, self.width).clone()
            if isinstance(value, Tensor) and value.shape == shape
            else deepcopy(value)
            for key, value in state.items()
        }

    def on_stop(self, trainer: Any, step: int) -> None:
        self.unload()

    def step(self, batches: Sequence[Batch]) -> list[Numbers | NumericsError]:
        """One step of each trainer on its batch, all of one size.

        Returns:
            What each trainer's numbers are, or what is wrong with them: its weights then have not changed.
        """
        with step_in(self.precision):
            terms, grads = self._batched(batches) if self.batched else self._in_turn(batches)
        norms = [total_norm(own) for own in grads]
        names = (*TERMS, "grad_norm")
        rows = torch.cat([terms, torch.stack(norms)[:, None]], 1).tolist()  # one read from the device
        return [
            self._finish(i, dict(zip(names, row, strict=True)), batches[i], grads[i]) for i, row in enumerate(rows)
        ]

    def _batched(self, batches: Sequence[Batch]) -> tuple[Tensor, list[list[Tensor]]]:
        """The mean terms (N, 3) and the gradients of each trainer, from one pass through all models."""
        x = torch.stack([batch.x for batch in batches])  # (N, B, C, H, W)
        labels = torch.stack([batch.labels for batch in batches])
        noise = torch.stack([self._widened(batch.noise) for batch in batches])
        logits, mu, logvar = torch.vmap(self._forward)(self.params, self.buffers, x, labels, noise)
        likelihood = self.trainers[0].objective.likelihood
        recon = likelihood.nll(logits.flatten(0, 1), x.flatten(0, 1)).view(x.shape[:2]).mean(1)
        kl = kl_divergence(mu, logvar).sum(2).mean(1)
        losses = [
            trainer.objective(recon[i], kl[i], batch.progress)
            for i, (trainer, batch) in enumerate(zip(self.trainers, batches, strict=True))
        ]
        total = torch.stack(losses)
        # contiguous as the weights: a fused optimizer on a CPU takes no heed of strides
        grads = [g.contiguous() for g in torch.autograd.grad(total.sum(), list(self.params.values()))]
        return torch.stack([recon, kl, total], 1).detach(), [list(own) for own in zip(*grads, strict=True)]

    def _in_turn(self, batches: Sequence[Batch]) -> tuple[Tensor, list[list[Tensor]]]:
        """The same, from a pass through each."""
        terms, grads = [], []
        for i, (trainer, batch) in enumerate(zip(self.trainers, batches, strict=True)):
            own = {name: tensor.detach().requires_grad_() for name, tensor in self.slices[i].items()}
            buffers = {name: stacked[i] for name, stacked in self.buffers.items()}
            noise = self._widened(batch.noise)
            with forward_in(self.precision, batch.x.device):
                output = self._forward(own, buffers, batch.x, batch.labels, noise)
            logits, mu, logvar = (part.to(batch.x.dtype) for part in output)
            of_images = trainer.objective.terms(logits, batch.x, mu, logvar)
            recon, kl = of_images.recon.mean(), of_images.kl.mean()
            loss = trainer.objective(recon, kl, batch.progress)
            grads.append([g.contiguous() for g in torch.autograd.grad(loss, list(own.values()))])
            terms.append(torch.stack([recon, kl, loss]).detach())
        return torch.stack(terms), grads

    def _widened(self, noise: Tensor) -> Tensor:
        return widen(noise, LatentAxis(1), noise.shape[1], self.width)

    def _forward(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, labels: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        output = functional_call(self.template, (params, buffers), (x, labels), {"noise": noise})
        return output.logits, output.mu, output.logvar

    def _finish(self, i: int, numbers: Numbers, batch: Batch, grads: Sequence[Tensor]) -> Numbers | NumericsError:
        """Check the numbers of one trainer, and have its optimizer step on its slices."""
        trainer, slices = self.trainers[i], self.slices[i]
        if not all(map(math.isfinite, numbers.values())):
            return not_finite(numbers, dict(zip(slices, grads, strict=True)), batch.epoch, batch.step)
        for own, grad in zip(slices.values(), grads, strict=True):
            own.grad = grad
        if trainer.max_grad_norm is not None:
            norm = batch.x.new_tensor(numbers["grad_norm"])
            torch.nn.utils.clip_grads_with_norm_(list(slices.values()), trainer.max_grad_norm, norm)
        self.optimizers[i].step()
        return numbers


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
