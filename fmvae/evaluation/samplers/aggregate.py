"""The training posteriors themselves as a sampler: the limit of what a fitted density can reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.base import Latents, Sampler, standard_normal


class AggregateSampler(Sampler):
    """z ~ q(z | x_i), with i uniform over the training images (of the class).

    It is a control: it can only copy, as every draw is a noisy code of one training image. Its density, a mixture
    of all posteriors, is not offered, and it has no file: drawing needs all posteriors.
    """

    name = "aggregate"
    stored = False

    @property
    def settings(self) -> dict[str, Any]:
        return {}

    def fit(self, train: Latents, val: Latents, seed: int, partial: Partial | None = None) -> None:
        self._train = train
        self._of_class = [
            torch.arange(len(train.mu)) if label is None else (train.labels == label).nonzero().flatten()
            for label in self.classes()
        ]

    def sample(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(num, generator=generator, dtype=torch.float64, device=generator.device)
        noise = standard_normal(num, self._train.mu.shape[1], generator).cpu()
        given = self.given(labels, uniform.shape)
        of_class = torch.zeros(num, dtype=torch.long) if given is None else given.cpu()
        images = torch.full((num,), -1)
        for label, those in enumerate(self._of_class):
            rows = of_class == label
            if len(those):
                images[rows] = those[(uniform.cpu()[rows] * len(those)).long()]
        drawn = noise.clone()
        found = images >= 0
        mu, logvar = self._train.mu[images[found]].double(), self._train.logvar[images[found]].double()
        drawn[found] = mu + noise[found] * (0.5 * logvar).exp()
        return drawn.to(generator.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise TypeError("the sampler aggregate has no state: it draws from the posteriors themselves")

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        raise TypeError("the sampler aggregate has no state: it draws from the posteriors themselves")
