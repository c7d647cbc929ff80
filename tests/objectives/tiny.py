"""Tiny models and batches in float64, and a prior that depends on the encoder, for tests of objectives."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fmvae.models import VAE, BaseVAE, ConditionalVAE
from fmvae.models.priors import Prior
from fmvae.objectives import Batch, Density, Objective, Terms
from fmvae.rng import seeded_init

IMAGE = (1, 2, 3)
Parameters = dict[str, Tensor]


def _spread(model: Any) -> Any:
    """Move the posteriors of different images apart; those of new weights are nearly equal."""
    with torch.no_grad():
        model.mu.weight.mul_(5)
        model.logvar.weight.mul_(3)
    return model.double()


def base(latent_dim: int = 2, seed: int = 0) -> VAE:
    with seeded_init(seed):
        return _spread(BaseVAE(latent_dim, hidden_dim=4, image_shape=IMAGE))


def conditional(seed: int = 0, prior: Any = "learned") -> VAE:
    """A model with three classes; the parameters of a learned prior are moved away from N(0, 1)."""
    with seeded_init(seed):
        model = _spread(ConditionalVAE(2, num_classes=3, hidden_dim=4, image_shape=IMAGE, prior=prior))
        if model.prior:
            with torch.no_grad():
                model.prior.mean.normal_(0, 0.3)
                model.prior.log_std.normal_(0, 0.3)
    return model


class Pair(Density):
    """A mixture of two Gaussians of standard deviation 0.8, in which the dimensions depend on each other."""

    def __init__(self, means: Tensor):
        self.means = means  # (2, latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        each = -0.5 * (((z[..., None, :] - self.means) / 0.8).square() + math.log(2 * math.pi * 0.64)).sum(-1)
        return each.logsumexp(-1) - math.log(2)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError


class PseudoInputs(Prior):
    """The prior around the encoder's means of two images, which are parameters: it depends on the encoder."""

    encodes = True

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        self.images = nn.Parameter(3 * torch.rand(2, *IMAGE, generator=generator, dtype=torch.float64))

    def density(self, model: Any) -> Density:
        return Pair(model.encode(self.images)[0])


def with_pseudo_inputs(seed: int = 0) -> VAE:
    model = base(seed=seed)
    model.latent_prior = PseudoInputs()
    return model


def batch_of(num: int, latent_dim: int = 2, draws: int = 1, seed: int = 0, num_train: int = 50) -> Batch:
    """Random images with labels 0, 1, 2, 0, …"""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num, *IMAGE, generator=generator, dtype=torch.float64)
    shape = (num, latent_dim) if draws == 1 else (draws, num, latent_dim)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(num) % 3, noise, num_train)


class Loss(nn.Module):
    """An objective's terms as a function of the model's parameters, by ``torch.func.functional_call``."""

    def __init__(self, model: VAE, objective: Objective):
        super().__init__()
        self.model = model
        self._objective = [objective]  # in a list, so that it is no module of this one

    def forward(self, batch: Batch, numbers: dict[str, Any]) -> Terms:
        return self._objective[0](self.model, batch, numbers)

    def terms(self, parameters: Parameters, batch: Batch, numbers: dict[str, Any]) -> Terms:
        """Compute with these parameters in place of the model's."""
        weights = {f"model.{name}": tensor for name, tensor in parameters.items()}
        return torch.func.functional_call(self, weights, (batch, numbers))


def parameters_of(model: VAE) -> Parameters:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in model.named_parameters()}


def gradients(model: VAE, objective: Objective, batch: Batch, beta: float = 1.0) -> Parameters:
    """The gradient of the loss by each parameter of the model."""
    own = dict(model.named_parameters())
    loss = objective(model, batch, {"beta": beta}).loss
    return dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))


def gradients_are_right(model: VAE, objective: Objective, batch: Batch, beta: float, prefix: str = "") -> bool:
    """Whether those of the parameters whose names begin with ``prefix`` agree with finite differences."""
    every = parameters_of(model)
    names = [name for name in every if name.startswith(prefix)]
    loss = Loss(model, objective)

    def of(*changed: Tensor) -> Tensor:
        return loss.terms(every | dict(zip(names, changed, strict=True)), batch, {"beta": beta}).loss

    return torch.autograd.gradcheck(of, [every[name] for name in names], raise_exception=False)


def batched_and_alone(
    models: list[VAE], objective: Objective, batches: list[Batch], betas: list[float]
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """For each model its loss, parts and gradients: from one ``torch.vmap`` of all, and from a pass of its own."""
    loss = Loss(models[0], objective)
    each = [parameters_of(model) for model in models]
    stacked = {name: torch.stack([own[name].detach() for own in each]).requires_grad_() for name in each[0]}
    x, labels, noise = (
        torch.stack(column) for column in zip(*((b.x, b.labels, b.noise) for b in batches), strict=True)
    )

    def one(parameters: Parameters, *tensors: Any) -> tuple[Tensor, Any]:
        x, labels, noise, beta = tensors
        terms = loss.terms(parameters, Batch(x, labels, noise, batches[0].num_train), {"beta": beta})
        return terms.loss, terms.parts

    with objective.stacked():
        losses, parts = torch.vmap(one)(stacked, x, labels, noise, torch.tensor(betas, dtype=torch.float64))
    slopes = torch.autograd.grad(losses.sum(), list(stacked.values()))
    pairs = []
    for i, (own, batch) in enumerate(zip(each, batches, strict=True)):
        alone = loss.terms(own, batch, {"beta": betas[i]})
        assert list(parts) == list(alone.parts)
        found = [losses[i], *(part[i] for part in parts.values()), *(slope[i] for slope in slopes)]
        own_slopes = torch.autograd.grad(alone.loss, list(own.values()))
        pairs.append((found, [alone.loss, *alone.parts.values(), *own_slopes]))
    return pairs
