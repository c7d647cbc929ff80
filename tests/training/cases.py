"""What the training tests train: small, quick, and as varied as the configs are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from fmvae.data import FashionMNISTManager
from fmvae.models import VAE, BaseVAE, BetaVAE, ConditionalVAE, ConvVAE, ResidualVAE
from fmvae.objectives import ELBO, Bernoulli, BetaSchedule, Capacity, Constant, Warmup
from fmvae.rng import seeded_init
from fmvae.training import ConditionalVAETrainer, VAETrainer

NUM_TRAIN, BATCH = 100, 32  # three whole batches and one of four
NUM_STEPS = 4


def data_of(small_data: Callable[..., FashionMNISTManager], **arguments: Any) -> FashionMNISTManager:
    """100 training, 20 validation and 40 test images, in batches of 32."""
    sizes = {"num_train": NUM_TRAIN + 20, "val_size": 20, "num_test": 40, "batch_size": BATCH}
    return small_data(**sizes | arguments)


@dataclass(frozen=True)
class Case:
    """How to make a trainer; every call of ``trainer`` gives new objects."""

    model: Callable[[], VAE]
    optimizer: Callable[[Any], Optimizer]
    beta: Callable[[], BetaSchedule] = Constant
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def trainer(self, data: FashionMNISTManager, *, init_seed: int = 0, **settings: Any) -> VAETrainer:
        with seeded_init(init_seed):
            model = self.model()
        optimizer = self.optimizer(model.parameters())
        scheduler = self.scheduler(optimizer) if self.scheduler else None
        kind = ConditionalVAETrainer if model.conditional else VAETrainer
        objective = ELBO(Bernoulli(), self.beta())
        arguments = {"epochs": 3, **self.settings, **settings}
        return kind(model, objective, data, optimizer, scheduler, **arguments)


CASES = {
    "base_adam": Case(
        lambda: BaseVAE(2, hidden_dim=16),
        lambda parameters: Adam(parameters, lr=1e-2, fused=True),
    ),
    "conv_momentum": Case(
        lambda: ConvVAE(2),
        lambda parameters: SGD(parameters, lr=1e-4, momentum=0.9),
        settings={"max_grad_norm": 50.0},
    ),
    "batch_norm_adamw_cosine_warmup": Case(
        lambda: BetaVAE(3),
        lambda parameters: AdamW(parameters, lr=1e-3),
        lambda: Warmup(4.0, fraction=0.5),
        lambda optimizer: CosineAnnealingLR(optimizer, 3),
    ),
    "residual_adam": Case(
        lambda: ResidualVAE(2, width=8),
        lambda parameters: Adam(parameters, lr=1e-3, fused=True),
    ),
    "conditional_plateau": Case(
        lambda: ConditionalVAE(2, hidden_dim=16),
        lambda parameters: Adam(parameters, lr=3e-2),
        # a threshold that nothing meets: the second validation already lowers the learning rate
        scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.99),
        settings={"validate_every": 2, "epochs": 5},
    ),
    "capacity_milestones": Case(
        lambda: BaseVAE(2, hidden_dim=16),
        lambda parameters: SGD(parameters, lr=1e-4),
        lambda: Capacity(10.0, 5.0),
        lambda optimizer: MultiStepLR(optimizer, [1, 2], gamma=0.3),
    ),
}
BASE = CASES["base_adam"]


def snapshot(trainer: VAETrainer) -> dict[str, torch.Tensor]:
    """A copy of every tensor of a trainer, model and optimizer."""
    return {name: tensor.detach().clone() for name, tensor in trainer.state().tensors.items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two snapshots are the same to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
