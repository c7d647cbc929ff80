"""Training the classifier: one-cycle learning rate, small images first, little time on what is known already."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from fmvae import rng
from fmvae.data import ImageData, Split
from fmvae.data.split import to_float
from fmvae.errors import ConfigError
from fmvae.models import FashionResNet18
from fmvae.training.loop import Trainer
from fmvae.training.precision import check_precision, has_bf16
from fmvae.training.state import TrainerState
from fmvae.training.step import add_up

SMALLEST = 9  # pixels: smaller images end as one, and batch norm can say nothing of a last batch of one image
EVALUATION_BATCH = 250  # keeps the widest layer's activations (50 MB) in reach of the caches
BLUR = (0.5, 2.0)  # pixels: standard deviations that blurred training images are drawn from
FULL_SHARE = 1 / 8  # of training at its end, which passes over every image again (Qin et al. 2024, sec. 3.3)


def one_cycle(progress: float, warmup: float) -> float:
    """The share of the peak learning rate: up to 1 at ``warmup``, and down to 0 at 1 (Smith & Topin 2018)."""
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


class ClassifierTrainer(Trainer):
    """Trains a classifier by cross-entropy; see ``Trainer`` for the other arguments.

    Args:
        label_smoothing: in [0, 1), for training only.
        warmup: share of training until the learning rate is at its peak, in (0, 1).
        shift: training images are moved by up to so many pixels each way.
        flip: training images are mirrored, half of them.
        blur: this share of the training images is blurred. What a VAE generates is smooth, and a network that saw
            sharp images alone takes smoothness for a class: a soft sandal for a sneaker.
        sides: heights that training images are scaled to, each for an equal part of training; the last is the
            images' own. Small images cost little and teach most (Touvron et al. 2019; Howard 2018).
        prune: of the images whose last loss was below the mean, this share is left out of an epoch at random, and
            the others count for more, so that the expected gradient is the same (InfoBatch, Qin et al. 2024).
            0 takes every image in every epoch.
        precision: ``bf16`` computes convolutions in bfloat16, ``fp32`` does not, ``auto`` where it is faster.
    """

    @property
    def terms(self) -> tuple[str, ...]:
        return ("loss", "accuracy")

    def __init__(
        self,
        model: FashionResNet18,
        data: ImageData,
        optimizer: Optimizer,
        *,
        label_smoothing: float,
        warmup: float,
        shift: int,
        flip: bool,
        blur: float,
        sides: Sequence[int],
        prune: float,
        precision: str,
        **settings: Any,
    ):
        super().__init__(model, data, optimizer, **settings)
        check_precision(precision, "classifier", data.device)
        self.model: FashionResNet18 = model
        height = data.image_shape[1]
        possible = all(type(side) is int and SMALLEST <= side <= height for side in sides)
        if not sides or not possible or sides[-1] != height:
            raise ConfigError(
                "trainer.sides",
                f"{list(sides)} for images of {height}",
                f"give {SMALLEST} to {height}, {height} last",
            )
        if self.epochs < len(sides):
            problem = f"{len(sides)} sizes in {self.epochs} epochs"
            raise ConfigError("trainer.sides", problem, "give no more sizes than trainer.epochs")
        self.label_smoothing, self.warmup, self.sides, self.prune = label_smoothing, warmup, list(sides), prune
        self.shift, self.flip, self.blur = shift, flip, blur
        self.bf16 = has_bf16(data.device) if precision == "auto" else precision == "bf16"
        self.peak_lr = [group["lr"] for group in optimizer.param_groups]
        self.last_loss = torch.full((len(data.train),), math.inf)  # of each training image, when last seen
        pixels = to_float(data.train.images)
        model.mean.copy_(pixels.mean())
        model.std.copy_(pixels.std())

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        side = self.sides[(epoch - 1) * len(self.sides) // self.epochs]
        # torchvision's transforms draw from the global generator and take no other
        with rng.seeded(self.seed, "augmentation", epoch):
            done, sums, known = self._begun(torch.default_generator)
            # what is chosen depends on losses that the epoch changes
            index, weights = (known["index"], known["weights"]) if known else self._chosen(epoch)
            num_steps = math.ceil(len(index) / self.data.batch_size)
            for step, (x, labels, weight, chosen) in enumerate(self._batches(index, weights, side, done), done):
                self._set_lr((epoch - 1 + step / num_steps) / self.epochs)
                with self._autocast():
                    logits = self.model(x).logits.float()
                losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
                loss = (weight * losses).mean()
                accuracy = (weight * (logits.argmax(1) == labels)).mean()
                numbers = self._take_step(loss, {"loss": loss, "accuracy": accuracy}, epoch, step + 1)
                self.last_loss[chosen] = losses.detach().cpu()
                add_up(sums, numbers, len(x))
                self._end_step(step + 1, lambda: sums, torch.default_generator, index=index, weights=weights)
        # those that were left out are spoken for by the weights of the others
        num = weights.sum().item()
        means = {f"train/{name}": total / num for name, total in sums.items()}
        means["train/grad_norm"] *= num / len(index)
        lr = self.optimizer.param_groups[0]["lr"]
        return {"epoch": epoch, "lr": lr, "side": side, "images": len(index), **means}

    def _chosen(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The training images of an epoch in their order, and the weight of each."""
        shuffle = rng.stream(self.seed, "shuffle", epoch)
        order = torch.randperm(len(self.last_loss), generator=shuffle)
        weights = torch.ones(len(order))
        seen = self.last_loss[self.last_loss.isfinite()]
        if not len(seen) or epoch > self.epochs * (1 - FULL_SHARE):
            return order, weights
        easy = self.last_loss < seen.mean()
        weights[easy] = 1 / (1 - self.prune)
        kept = ~easy | (torch.rand(len(order), generator=shuffle) >= self.prune)
        order = order[kept[order]]
        return order, weights[order]

    def _batches(
        self, index: Tensor, weights: Tensor, side: int, done: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Augmented images (B, 1, side, side), labels, weights and indices (B,) of each step after ``done``."""
        from torchvision.transforms import v2

        train, size = self.data.train, self.data.image_shape[1:]
        transforms = [
            *([v2.RandomCrop(size, padding=self.shift)] if self.shift else []),
            *([v2.RandomHorizontalFlip()] if self.flip else []),
            *([v2.RandomApply([v2.GaussianBlur(9, BLUR)], self.blur)] if self.blur else []),
        ]
        augment = v2.Compose(transforms) if transforms else None
        scaled = [side, round(side * size[1] / size[0])]
        batches = zip(index.split(self.data.batch_size), weights.split(self.data.batch_size), strict=True)
        for chosen, weight in islice(batches, done, None):
            here = chosen.to(self.data.device)
            x = to_float(train.images[here])
            if augment:
                x = torch.stack([augment(image) for image in x])  # each its own draw
            if side != size[0]:
                x = v2.functional.resize(x, scaled, antialias=True)
            yield x, train.labels[here], weight.to(self.data.device), chosen

    def _set_lr(self, progress: float) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peak_lr, strict=True):
            group["lr"] = peak * one_cycle(progress, self.warmup)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.data.device.type, torch.bfloat16, enabled=self.bf16)

    def evaluate(self, split: Split | None = None) -> dict[str, float]:
        """Mean cross-entropy (nats per image) and accuracy of a split, the test split by default."""
        split = self.data.test if split is None else split
        with self._autocast():
            logits = classify(self.model, split)
        loss = F.cross_entropy(logits.double(), split.labels)
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == split.labels).double().mean().item()}

    def state(self) -> TrainerState:
        tensors, meta = super().state()
        return TrainerState(tensors | {"trainer.last_loss": self.last_loss}, meta)

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        super().load_state(tensors, meta)
        self.last_loss = tensors["trainer.last_loss"].clone()


@torch.inference_mode()
def classify(model: FashionResNet18, split: Split) -> Tensor:
    """The logits (N, num_classes), float32, of a split's images."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(x).logits.float() for x, _ in split.batches(EVALUATION_BATCH)])
    model.train(was_training)
    return logits
