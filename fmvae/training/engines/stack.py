"""Train several VAEs at once: stacked weights, one batched pass for all models, one optimizer per model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fmvae.errors import NumericsError
from fmvae.models import VAE, LatentAxis
from fmvae.objectives import Batch, Terms
from fmvae.runs.observer import Observer
from fmvae.training.engines.padding import narrow, tensors_of, widen
from fmvae.training.loop import NETWORK
from fmvae.training.precision import step_in
from fmvae.training.step import Rule, not_finite, numbers_of, set_gradients
from fmvae.training.vae import Step, VAETrainer

Numbers = dict[str, float]
SAME_LOSS = 2e-5  # relative: more than rounding, and less than another beta where the KL is small
log = logging.getLogger("fmvae")


class Stack(Observer):
    """The models of several trainers as one; they may differ in weights, latent_dim, objective, optimizer, data.

    Models with fewer latent dimensions than the widest are padded with dimensions that are zero everywhere
    (``VAE.latent_axes`` gives the axes). Their posterior is the prior, the decoder ignores them, and all their
    gradients are exactly zero.

    Between ``load`` and ``unload``, the current weights and optimizer states are in the stack, and those of the
    trainers are outdated. If a run is stopped in between, ``on_stop`` unloads before its checkpoint is saved.

    Args:
        trainers: their models have one class and structure, one device, equal likelihoods and one precision.
        batched: whether to run one pass for all models, or one pass per model in turn. None chooses: in turn for
            convolutions on a CPU, where stacked ones are slower; for bf16, as autocast does not work inside a
            batched pass; and for objectives that do not support ``torch.vmap``.
    """

    def __init__(self, trainers: Sequence[VAETrainer], batched: bool | None = None):
        self.trainers = list(trainers)
        self.latent_dims = [trainer.model.latent_dim for trainer in trainers]
        self.width = max(self.latent_dims)
        widest = self.trainers[self.latent_dims.index(self.width)].model
        self.template: VAE = deepcopy(widest)
        self.axes = {f"model.{name}": axis for name, axis in (widest.latent_axes() or {}).items()}
        if not self.axes and len(set(self.latent_dims)) > 1:
            raise ValueError(f"{type(widest).__name__} has no latent_axes: its runs need one latent_dim")
        convolutional = any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in widest.modules())
        on_cpu = self.trainers[0].data.device.type == "cpu"
        self.evaluated = [_Evaluated(trainer, self.template) for trainer in self.trainers]
        first = self.trainers[0]
        self.precision, self.num_train = first.precision, len(first.data.train)
        by_vmap = first.objective.vmap and first.objective.network is None and widest.latent_prior.vmap
        in_turn = (convolutional and on_cpu) or self.precision == "bf16" or not by_vmap
        self.batched = not in_turn if batched is None else batched
        # a user's classes are checked at the first step
        parts = (first.objective, first.objective.likelihood, widest, widest.latent_prior)
        self.tried = all(type(part).__module__.startswith("fmvae.") for part in parts)
        if self.batched and len({tuple(trainer.objective.numbers(0.0)) for trainer in trainers}) > 1:
            raise ValueError("a stack needs objectives of one formula, with schedules of one kind")
        if len({len(trainer.data.train) for trainer in trainers}) > 1:
            raise ValueError("a stack needs training splits of one size")
        # filled by `load`; the entries that it does not fill are padding and stay zero
        ours = _tensors(self.trainers[self.latent_dims.index(self.width)])
        room = {name: tensor.new_zeros(len(trainers), *tensor.shape) for name, tensor in ours.items()}
        trained = {name for name, _ in _parameters(self.trainers[0])}
        self.params = {name: tensor.requires_grad_() for name, tensor in room.items() if name in trained}
        self.buffers = {name: room[name] for name in ours if name not in self.params}
        # views into the stack, one set per trainer, which its optimizer updates
        self.slices = [
            {name: stacked.detach()[i] for name, stacked in self.params.items()} for i in range(len(trainers))
        ]
        self.rules: list[list[Rule]] = []  # of each trainer
        for trainer in self.trainers:  # first, so that it unloads before the checkpoint is saved
            trainer.observers = [self, *(o for o in trainer.observers if not isinstance(o, Stack))]

    @torch.no_grad()
    def load(self) -> None:
        """Copy weights and optimizer states from the trainers into the stack."""
        self.template.train()
        self.rules = []
        for i, trainer in enumerate(self.trainers):
            trainer.objective.train()
            z = self.latent_dims[i]
            for name, own in _tensors(trainer).items():
                place = self.params[name] if name in self.params else self.buffers[name]
                place[i].copy_(widen(own, self.axes.get(name), z, self.width))
            names: dict[Any, str] = {own: name for name, own in _parameters(trainer)}
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
            rule = Rule(optimizer, list(self.slices[i].values()), trainer.max_grad_norm)
            self.rules.append([rule, *trainer.rules[1:]])

    @torch.no_grad()
    def unload(self) -> None:
        """Copy weights and optimizer states back to the trainers."""
        for i, trainer in enumerate(self.trainers):
            z = self.latent_dims[i]
            for name, own in _tensors(trainer).items():
                place = self.params[name] if name in self.params else self.buffers[name]
                own.copy_(narrow(place[i], self.axes.get(name), z, self.width))
            # else its scheduler warns that the optimizer never stepped
            setattr(trainer.optimizer, "_opt_called", True)  # noqa: B010
            for name, own in _parameters(trainer):
                wide: Any = self.slices[i][name]
                if state := self.rules[i][0].optimizer.state.get(wide):
                    trainer.optimizer.state[own] = self._reshaped(state, wide.shape, name, z, narrow)

    def _reshaped(
        self, state: Mapping[str, Any], shape: torch.Size, name: str, z: int, how: Any
    ) -> dict[str, Any]:
        """Copy the optimizer state of one parameter; widen or narrow the tensors with that parameter's shape."""
        return {
            key: how(value, self.axes.get(name), z, self.width).clone()
            if isinstance(value, Tensor) and value.shape == shape
            else deepcopy(value)
            for key, value in state.items()
        }

    def _named(self, i: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights of one trainer, as ``Trainer.named_parameters`` names them."""
        yield from ((name.removeprefix("model."), own) for name, own in self.slices[i].items())
        network = f"objective.{NETWORK}."
        yield from ((n, own) for n, own in self.trainers[i].named_parameters() if n.startswith(network))

    def on_stop(self, trainer: Any, step: int) -> None:
        self.unload()

    def step(self, steps: Sequence[Step]) -> list[Numbers | NumericsError]:
        """Take one step of each trainer, on batches of one size.

        Returns:
            For each trainer its numbers, or an error if one is not finite; its weights then have not changed.
        """
        with step_in(self.precision):
            take = self._in_turn if not self.batched else self._batched if self.tried else self._try_batched
            recorded = take(steps)
            rows = [numbers_of(list(t.values()), rules) for rules, t in zip(self.rules, recorded, strict=True)]
            outcomes: list[Numbers | NumericsError] = []
            read = torch.stack(rows).tolist()  # one read from the device
            for i, step in enumerate(steps):
                names = (*recorded[i], *(rule.norm for rule in self.rules[i]))
                numbers: Numbers = dict(zip(names, read[i], strict=True))
                gradients = ((name, own.grad) for name, own in self._named(i))
                problem = not_finite(numbers, gradients, step.epoch, step.number)
                if problem is None:
                    for rule, norm in zip(self.rules[i], rows[i][len(recorded[i]) :], strict=True):
                        rule.apply(norm)
                outcomes.append(problem or numbers)
        return outcomes

    def _batched(self, steps: Sequence[Step]) -> list[dict[str, Tensor]]:
        """Run one pass for all models; set their gradients, and return each trainer's terms to record."""
        batches = [self._widened(step.batch) for step in steps]
        x = torch.stack([batch.x for batch in batches])  # (N, B, C, H, W)
        labels = torch.stack([batch.labels for batch in batches])
        noise = torch.stack([batch.noise for batch in batches])
        numbers = {
            name: torch.tensor([step.numbers[name] for step in steps], dtype=x.dtype, device=x.device)
            for name in steps[0].numbers
        }

        def compute(*tensors: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
            terms = self._compute(self.evaluated[0], *tensors)  # the objectives differ in numbers only
            return terms.loss, terms.parts  # vmap does not return the None beside them

        with self.trainers[0].objective.stacked():
            loss, parts = torch.vmap(compute)(self.params, self.buffers, (x, labels, noise), numbers)
        # contiguous like the weights: a fused optimizer on a CPU ignores strides
        grads = [g.contiguous() for g in torch.autograd.grad(loss.sum(), list(self.params.values()))]
        recorded = []
        for i, trainer in enumerate(self.trainers):
            self._set_gradients(i, [grad[i] for grad in grads])
            own = Terms(loss[i], {name: part[i] for name, part in parts.items()})
            recorded.append(trainer.recorded(own))
        return recorded

    def _try_batched(self, steps: Sequence[Step]) -> list[dict[str, Tensor]]:
        """Run the first pass for all models; if it does not give each run its own loss, step in turn from now on.

        A user's objective may use more than ``numbers`` of its own schedules, or what ``torch.vmap`` cannot run.
        """
        self.tried, buffers = True, {name: stacked.clone() for name, stacked in self.buffers.items()}
        problem = ""
        try:
            recorded = self._batched(steps)
        except (RuntimeError, ValueError, TypeError) as error:
            recorded, problem = [], str(error).strip().partition("\n")[0]
        for i, terms in enumerate(recorded):
            batch = self._widened(steps[i].batch)
            own = {name: stacked[i].clone() for name, stacked in buffers.items()}
            tensors = (batch.x, batch.labels, batch.noise)
            with torch.no_grad():
                alone = self._compute(self.evaluated[i], self.slices[i], own, tensors, steps[i].numbers).loss
            if not torch.allclose(terms["objective"], alone, rtol=SAME_LOSS, equal_nan=True):
                problem = f"a run's loss would be {terms['objective']:.6g}, and is {alone:.6g} alone"
        if not problem:
            return recorded
        kind = type(self.trainers[0].objective).__name__
        way_out = "the runs are stepped in turn; set vmap = False on the class"
        log.warning("%s cannot run as one batch (%s): %s", kind, problem, way_out)
        self.batched = False
        with torch.no_grad():
            for name, stacked in buffers.items():
                self.buffers[name].copy_(stacked)
        return self._in_turn(steps)

    def _in_turn(self, steps: Sequence[Step]) -> list[dict[str, Tensor]]:
        """Do the same as ``_batched`` with one pass per model."""
        recorded = []
        for i, (trainer, step) in enumerate(zip(self.trainers, steps, strict=True)):
            own = {name: tensor.detach().requires_grad_() for name, tensor in self.slices[i].items()}
            buffers = {name: stacked[i] for name, stacked in self.buffers.items()}
            batch = self._widened(step.batch)
            tensors = (batch.x, batch.labels, batch.noise)
            terms = self._compute(self.evaluated[i], own, buffers, tensors, step.numbers)
            recorded.append(trainer.recorded(terms))
            loss, *others = trainer.losses(terms)
            grads = torch.autograd.grad(loss, list(own.values()), retain_graph=bool(others))
            set_gradients(self.rules[i][1:], others)
            self._set_gradients(i, [g.contiguous() for g in grads])
        return recorded

    def _set_gradients(self, i: int, grads: Sequence[Tensor]) -> None:
        for own, grad in zip(self.slices[i].values(), grads, strict=True):
            own.grad = grad

    def _widened(self, batch: Batch) -> Batch:
        noise = batch.noise
        return batch._replace(noise=widen(noise, LatentAxis(noise.dim() - 1), noise.shape[-1], self.width))

    def _compute(
        self,
        evaluated: _Evaluated,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        tensors: tuple[Tensor, Tensor, Tensor],
        numbers: Mapping[str, Any],
    ) -> Terms:
        """Compute an objective on the template model with these weights, for a batch's x, labels and noise."""
        batch = Batch(*tensors, self.num_train)
        return functional_call(evaluated, params | buffers, (batch, numbers))


class _Evaluated(nn.Module):
    """An objective and its model as a module, so that ``functional_call`` can replace their weights."""

    def __init__(self, trainer: VAETrainer, model: VAE):
        super().__init__()
        self.model, self.objective = model, trainer.objective
        self._compute = trainer.compute_with

    def forward(self, batch: Batch, numbers: Mapping[str, Any]) -> Terms:
        return self._compute(self.model, batch, numbers)


def _tensors(trainer: VAETrainer) -> dict[str, Tensor]:
    """Return the tensors that a stack holds: all but the objective's network, which stays with its run."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in trainer.trained.items()
        for name, tensor in tensors_of(module).items()
        if not (prefix == "objective" and name.startswith(f"{NETWORK}."))
    }


def _parameters(trainer: VAETrainer) -> list[tuple[str, nn.Parameter]]:
    return [(name, tensor) for name, tensor in _tensors(trainer).items() if isinstance(tensor, nn.Parameter)]
