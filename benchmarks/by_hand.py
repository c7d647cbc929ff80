"""Compare a baseline epoch with a hand-written version, to see how much faster its training on a CPU could be.

    python -m benchmarks.by_hand [--batch 128] [--images 10000] [--rounds 9]

The hand-written version has no autograd, modules or optimizer object: large products reuse their output buffers,
the gradients are explicit formulas, and Adam's kernel is called with lists made once. Terms and gradient norm are
read at each step, as in ``ours``, but there are no checks, schedules, stop signals or other features of a
framework. ``benchmarks.training`` describes the other sides.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.sides import Side, print_times, ratio, record, take_turns
from benchmarks.training import Work, best_workers, limit, ours, pythae, torchvision_root, trainer_of, usual
from fmvae.objectives import Batch
from fmvae.training.vae import Step


class ByHand:
    """Take hand-written training steps on batches of one size."""

    def __init__(self, trainer: Any):
        model, self.batch, self.trainer = trainer.model, trainer.data.batch_size, trainer
        layers = (model.encoder[1], model.mu, model.logvar, model.decoder[0], model.decoder[2])
        self.parameters = [p.detach() for layer in layers for p in (layer.weight, layer.bias)]
        self.gradients, self.first, self.second = (list(map(torch.zeros_like, self.parameters)) for _ in range(3))
        self.steps = [torch.tensor(0.0) for _ in self.parameters]
        hidden, pixels = model.encoder[1].out_features, model.encoder[1].in_features
        self.h, self.g, self.d_h, self.d_g = (torch.empty(self.batch, hidden) for _ in range(4))
        self.logits, self.d_logits = torch.empty(self.batch, pixels), torch.empty(self.batch, pixels)
        self.z = torch.empty(self.batch, model.latent_dim)

    def numbers(self, x: Tensor, noise: Tensor) -> list[float]:
        """Return the mean terms, their sum and the gradient norm; write the gradients to ``gradients``."""
        w_h, b_h, w_mu, b_mu, w_logvar, b_logvar, w_g, b_g, w_x, b_x = self.parameters
        gradients, h, g, z, d_logits = self.gradients, self.h, self.g, self.z, self.d_logits
        torch.addmm(b_h, x, w_h.t(), out=h).relu_()
        mu, logvar = torch.addmm(b_mu, h, w_mu.t()), torch.addmm(b_logvar, h, w_logvar.t())
        drawn = (0.5 * logvar).exp_().mul_(noise)
        torch.add(mu, drawn, out=z)
        torch.addmm(b_g, z, w_g.t(), out=g).relu_()
        torch.addmm(b_x, g, w_x.t(), out=self.logits)
        recon = F.binary_cross_entropy_with_logits(self.logits, x, reduction="none").sum(1).mean()
        excess = logvar.expm1()
        kl = mu.square().add_(excess).sub_(logvar).mul_(0.5).sum(1).mean()
        torch.sigmoid(self.logits, out=d_logits).sub_(x).mul_(1 / len(x))
        self._of_layer(d_logits, g, gradients[8:])
        d_g = torch.mm(d_logits, w_x, out=self.d_g).mul_(g > 0)
        self._of_layer(d_g, z, gradients[6:8])
        d_z = d_g.mm(w_g)
        d_mu = d_z.add(mu, alpha=1 / len(x))
        d_logvar = d_z.mul_(drawn).mul_(0.5).add_(excess, alpha=0.5 / len(x))
        self._of_layer(d_mu, h, gradients[2:4])
        self._of_layer(d_logvar, h, gradients[4:6])
        d_h = torch.mm(d_mu, w_mu, out=self.d_h).addmm_(d_logvar, w_logvar).mul_(h > 0)
        self._of_layer(d_h, x, gradients[:2])
        return torch.stack([recon, kl, recon + kl, torch.nn.utils.get_total_norm(gradients)]).tolist()

    @staticmethod
    def _of_layer(d: Tensor, inputs: Tensor, gradients: list[Tensor]) -> None:
        """Compute the gradients of a layer's weight and bias from the gradient of its outputs."""
        torch.mm(d.t(), inputs, out=gradients[0])
        torch.sum(d, 0, out=gradients[1])

    def step(self) -> None:
        state = (self.gradients, self.first, self.second, [], self.steps)
        rates = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        torch.ops.aten._foreach_add_(self.steps, 1)
        torch.ops.aten._fused_adam_(self.parameters, *state, **rates, amsgrad=False, maximize=False)

    def check(self, x: Tensor, noise: Tensor) -> None:
        """Take one step, and the same step with the trainer; raise AssertionError if they differ."""
        batch = Batch(x, torch.zeros(len(x), dtype=torch.long), noise, num_train=len(x))
        before = [p.clone() for p in self.parameters]
        wanted = self.trainer._step(Step(batch, {"beta": 1.0}, epoch=1, number=1))
        stepped = [p.clone() for p in self.parameters]
        for parameter, value in zip(self.parameters, before, strict=True):
            parameter.copy_(value)
        torch.testing.assert_close(self.numbers(x.flatten(1), noise), list(wanted.values()))
        self.step()
        torch.testing.assert_close(self.parameters, stepped)


def by_hand(batch: int, images: int) -> Work:
    trainer = trainer_of("base", batch, images)
    work, generator = ByHand(trainer), torch.Generator()
    train = trainer.data.train

    def epoch() -> None:
        with torch.no_grad():
            for x, _ in train.batches(batch, generator):
                if len(x) == batch:
                    work.numbers(x.flatten(1), torch.randn(batch, trainer.model.latent_dim, generator=generator))
                    work.step()

    x, _ = next(iter(train.batches(batch, generator)))
    work.check(x, torch.randn(batch, trainer.model.latent_dim))
    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=10_000, help="per epoch, rounded down to whole batches")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    batch, images = given.batch, given.images // given.batch * given.batch

    with tempfile.TemporaryDirectory() as folder:
        root = torchvision_root(Path(folder))
        workers = best_workers("base", batch, images, root)
        sides = {
            "ours": partial(Side, ours, "base", batch, images),
            "by hand": partial(Side, by_hand, batch, images),
            "limit": partial(Side, limit, "base", batch, images),
            "usual": partial(Side, usual, "base", batch, images, root, workers),
        }
        if importlib.util.find_spec("pythae"):
            sides["pythae"] = partial(Side, pythae, batch, images)
        times = take_turns(sides, given.rounds)
    print_times(f"an epoch of base, batch {batch}, {images} images", times)
    ratios = {
        f"{side} / by hand": ratio(times, side, "by hand") for side in sides if side not in ("by hand", "limit")
    }
    ratios["by hand / limit"] = ratio(times, "by hand", "limit")
    print(", ".join(f"{pair} {value:.2f}" for pair, value in ratios.items()))
    case = {"times": times, "num_workers": workers, "ratios": ratios}
    record("by_hand", {"cases": {f"base, batch {batch}, {images} images": case}})


if __name__ == "__main__":
    main()
