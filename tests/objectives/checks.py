"""Models that are quick to evaluate, and checks that hold for every objective."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fmvae.config.building import build
from fmvae.config.project import CONF
from fmvae.models import BaseVAE, VAEOutput
from fmvae.objectives import Batch, Density, Objective, StandardNormal, Terms, draw_noise

SHAPE = (1, 3, 4)


def tiny_model(seed: int = 0, latent_dim: int = 3) -> BaseVAE:
    """A model in float64 whose posteriors differ between images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BaseVAE(latent_dim, hidden_dim=8, image_shape=SHAPE).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def tiny_batch(objective: Objective, num: int = 6, latent_dim: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(num, *SHAPE, generator=generator, dtype=torch.float64)
    noise = draw_noise(x, latent_dim, objective.num_draws, generator)
    return Batch(x, torch.zeros(num, dtype=torch.long), noise, num_train=50)


class Fixed(nn.Module):
    """A model that gives the same posteriors and latents for every batch, and an image of zeros."""

    def __init__(self, mu: Tensor, logvar: Tensor | None = None, z: Tensor | None = None, prior: Any = None):
        super().__init__()
        logvar = torch.zeros_like(mu) if logvar is None else logvar
        self.output = VAEOutput(mu.new_zeros(len(mu), *SHAPE), mu, logvar, mu if z is None else z)
        self.prior = prior or StandardNormal(mu.shape[1], mu)

    def forward(self, x: Tensor, labels: Tensor, *, noise: Tensor) -> VAEOutput:
        return self.output

    def prior_density(self) -> Density:
        return self.prior


def called(objective: Objective, model: Any, seed: int = 0) -> Terms:
    """The objective of a model that is ``Fixed``, at the end of training."""
    num, latent_dim = model.output.mu.shape
    return objective(model, tiny_batch(objective, num, latent_dim, seed), objective.numbers(1.0))


def from_config(option: str, **changes: Any) -> tuple[str, Objective]:
    """The ``_name_`` and the object of an option of the group ``loss``, for three latent dimensions."""
    option_file = OmegaConf.load(Path(CONF, "loss", f"{option}.yaml"))
    config = OmegaConf.merge({"latent_dim": {"value": 3}, "loss": option_file}, {"loss": changes})
    node: Any = OmegaConf.to_container(config, resolve=True)
    return node["loss"]["_name_"], build(node["loss"], "loss", Objective)


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


class _Evaluated(nn.Module):
    def __init__(self, model: Any, objective: Objective):
        super().__init__()
        self.model = model
        self._compute = objective.__call__  # the bound method, so that the objective is no submodule

    def forward(self, batch: Batch, numbers: dict[str, float]) -> Terms:
        return self._compute(self.model, batch, numbers)


def assert_vmap_changes_nothing(objective: Objective) -> None:
    """Compare loss, parts and gradients of three models in one batched pass with those of each alone."""
    models: list[Any] = [tiny_model(seed) for seed in range(3)]
    batches = [tiny_batch(objective, seed=seed) for seed in range(3)]
    numbers = objective.numbers(1.0)
    evaluated = _Evaluated(models[0], objective)
    names = [name for name, _ in models[0].named_parameters()]
    weights = {
        name: torch.stack([m.get_parameter(name) for m in models]).detach().requires_grad_() for name in names
    }

    def compute(weights: dict[str, Tensor], x: Tensor, noise: Tensor) -> tuple[Tensor, Any]:
        batch = Batch(x, batches[0].labels, noise, 50)
        own = {f"model.{name}": tensor for name, tensor in weights.items()}
        return torch.func.functional_call(evaluated, own, (batch, numbers))[:2]

    x, noise = torch.stack([b.x for b in batches]), torch.stack([b.noise for b in batches])
    losses, parts = torch.vmap(compute)(weights, x, noise)
    gradients = torch.autograd.grad(losses.sum(), list(weights.values()))
    for i, (model, batch) in enumerate(zip(models, batches, strict=True)):
        alone = objective(model, batch, numbers)
        torch.testing.assert_close(losses[i], alone.loss, rtol=1e-12, atol=1e-12)
        for name, part in alone.parts.items():
            torch.testing.assert_close(parts[name][i], part, rtol=1e-12, atol=1e-12)
        own = torch.autograd.grad(alone.loss, list(model.parameters()))
        for found, expected in zip(gradients, own, strict=True):
            torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-12)
