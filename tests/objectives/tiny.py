"""Tiny models and batches in float64, and checks that hold for every objective."""

import math
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fmvae.config.building import build
from fmvae.config.project import CONF
from fmvae.models import VAE, BaseVAE, ConditionalVAE, VAEOutput
from fmvae.models.priors import Prior
from fmvae.objectives import Batch, Density, Objective, StandardNormal, Terms
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


def batch_for(objective: Objective, num: int = 6, latent_dim: int = 3, seed: int = 0) -> Batch:
    """A batch with the draws that the objective takes."""
    return batch_of(num, latent_dim, objective.num_draws, seed)


class Fixed(nn.Module):
    """A model that gives the same posteriors and latents for every batch, and an image of zeros."""

    def __init__(self, mu: Tensor, logvar: Tensor | None = None, z: Tensor | None = None, prior: Any = None):
        super().__init__()
        logvar = torch.zeros_like(mu) if logvar is None else logvar
        self.output = VAEOutput(mu.new_zeros(len(mu), *IMAGE), mu, logvar, mu if z is None else z)
        self.prior = prior or StandardNormal(mu.shape[1], mu)

    def forward(self, x: Tensor, labels: Tensor, *, noise: Tensor) -> VAEOutput:
        return self.output

    def prior_density(self) -> Density:
        return self.prior


def called(objective: Objective, model: Any, seed: int = 0) -> Terms:
    """The objective of a model that is ``Fixed``, at the end of training."""
    num, latent_dim = model.output.mu.shape
    return objective(model, batch_for(objective, num, latent_dim, seed), objective.numbers(1.0))


def from_config(option: str, **changes: Any) -> tuple[str, Objective]:
    """The ``_name_`` and the object of an option of the group ``loss``, for three latent dimensions."""
    option_file = OmegaConf.load(Path(CONF, "loss", f"{option}.yaml"))
    config = OmegaConf.merge({"latent_dim": {"value": 3}, "loss": option_file}, {"loss": changes})
    node: Any = OmegaConf.to_container(config, resolve=True)
    return node["loss"]["_name_"], build(node["loss"], "loss", Objective)


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


def assert_vmap_changes_nothing(objective: Objective) -> None:
    """Compare loss, parts and gradients of three models in one batched pass with those of each alone."""
    models = [base(3, seed) for seed in range(3)]
    batches = [batch_for(objective, seed=seed) for seed in range(3)]
    for found, alone in batched_and_alone(models, objective, batches, [1.0, 4.0, 0.5]):
        torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-12)


def assert_slopes_are_gradients(compute: Any, parameters: list[nn.Parameter], trials: int = 5) -> None:
    """Compare a scalar's gradient in float64 with central differences along random directions."""
    gradients = torch.autograd.grad(compute(), parameters)
    generator = torch.Generator().manual_seed(1)
    for _ in range(trials):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(step * d)
                ends.append(compute().detach())
                for p, d in zip(parameters, direction, strict=True):
                    p.sub_(step * d)
        slope = torch.stack([(g * d).sum() for g, d in zip(gradients, direction, strict=True)]).sum()
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6, atol=1e-6)
