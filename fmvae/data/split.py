"""A split of the dataset in memory, its batches, and the choice of images for splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.errors import ConfigError


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images in [0, 255] to float32 in [0, 1], with the same bits as torchvision's ``ToTensor``."""
    return images.to(torch.float32).div_(255)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8, labels (N,) int64 and perhaps factors (N, K) int64, on the training device."""

    name: str
    images: Tensor
    labels: Tensor
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Tensor | slice) -> Split:
        """Return the images of these indices (M,), or of a slice, with all that is known of them."""
        chosen = which if isinstance(which, slice) else which.to(self.labels.device)
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: one[chosen] for k, one in known.items() if isinstance(one, Tensor)})

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float images (B, C, H, W) in [0, 1] with labels (B,); the last batch may be smaller.

        With a generator (on the CPU), the order is a permutation drawn from it; without one, the stored order.
        """
        if generator is None:
            chunks = zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
            yield from ((to_float(images), labels) for images, labels in chunks)
            return
        yield from map(self.batch, self.order(generator).split(batch_size))

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw a permutation of the indices (N,) from a generator on the CPU."""
        return torch.randperm(len(self), generator=generator).to(self.labels.device)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return float images (B, C, H, W) in [0, 1] and labels (B,) for indices (B,)."""
        return to_float(self.images.index_select(0, index)), self.labels.index_select(0, index)

    def round_robin(self, num: int) -> Tensor:
        """Return indices of ``num`` images (all if fewer): the first of each class, the second of each, ..."""
        labels = self.labels.cpu()
        rank = torch.empty_like(labels)  # number of earlier images of the same class
        for c in labels.unique():
            rank[labels == c] = torch.arange(int((labels == c).sum()))
        order = (rank * (labels.max() + 1) + labels).argsort(stable=True)
        return order[:num].to(self.labels.device)


def subset(labels: Tensor | np.ndarray, num: int | None, key: str = "data.num_train") -> Tensor:
    """Choose ``num`` images, the same share of each class; return their indices in order. Not random.

    Args:
        labels: (N,).
        num: how many; None takes all.
        key: the config key of ``num``, for the error message.

    Raises:
        ConfigError: ``num`` is not in [1, N].
    """
    everything = torch.arange(len(labels))
    if num is None:
        return everything
    if not 1 <= num <= len(labels):
        raise ConfigError(key, f"{num} images asked of a file of {len(labels)}", f"give 1 to {len(labels)}")
    return _evenly(everything, torch.as_tensor(labels), num).sort().values


TEST = 1  # the part of the stream ``split`` that chooses test images, with seed 0 for all runs


def hold_out(
    labels: Tensor | np.ndarray,
    val_size: int,
    *,
    seed: int,
    stratified: bool = True,
    among: Tensor | None = None,
    key: str = "data.val_size",
    part: int = 0,
) -> tuple[Tensor, Tensor]:
    """Hold out random validation images; return the indices of the training and of the validation images.

    Args:
        labels: (N,), of all images; zeros for images without labels.
        val_size: number of validation images.
        seed: the run's seed, which determines the draw (stream ``split``).
        stratified: whether to hold out the same share of each class.
        among: indices of the images to choose from; None means all.
        key: the config key of ``val_size``, for the error message.
        part: of the stream.

    Raises:
        ConfigError: ``val_size`` would leave one of the two parts empty.
    """
    kept = torch.arange(len(labels)) if among is None else among
    if not 1 <= val_size < len(kept):
        raise ConfigError(
            key,
            f"{val_size} of {len(kept)} training images asked for {'validation' if part != TEST else 'testing'}",
            f"give 1 to {len(kept) - 1}" if len(kept) > 1 else "give more training images: two at least",
        )
    shuffled = kept[torch.randperm(len(kept), generator=rng.stream(seed, "split", part))]
    val = _evenly(shuffled, torch.as_tensor(labels), val_size) if stratified else shuffled[:val_size]
    return kept[~torch.isin(kept, val)], val.sort().values


class Choice(NamedTuple):
    """The indices of each split's images; those of ``test`` count in the test file, if there is one."""

    train: Tensor
    val: Tensor
    test: Tensor


def choose(
    labels: Tensor | np.ndarray,
    test_labels: Tensor | np.ndarray | None,
    *,
    val_size: int,
    num_train: int | None = None,
    num_test: int | None = None,
    stratified: bool = True,
    seed: int,
) -> Choice:
    """Choose the images of the three splits.

    Args:
        labels: (N,), of the training images; zeros for images without labels.
        test_labels: of the test images; None if they are to be held out of the training images, the same for all
            seeds, as runs are compared on them.
        val_size: number of validation images, held out by the run's seed.
        num_train: use only this many of the images for training and validation; None uses all.
        num_test: the same for testing. If test images are held out, it is their number, and None a tenth.
        stratified: whether each class has the same share of the images that are held out.
        seed: the run's seed.

    Raises:
        ConfigError: a number does not fit.
    """
    if test_labels is None:
        num_test = a_tenth(len(labels)) if num_test is None else num_test
        rest, test = hold_out(labels, num_test, seed=0, stratified=stratified, key="data.num_test", part=TEST)
        kept = rest[subset(torch.as_tensor(labels)[rest], num_train, "data.num_train")]
    else:
        kept = subset(labels, num_train, "data.num_train")
        test = subset(test_labels, num_test, "data.num_test")
    train, val = hold_out(labels, val_size, seed=seed, stratified=stratified, among=kept)
    return Choice(train, val, test)


def a_tenth(num: int) -> int:
    """Return how many of ``num`` images are held out where the config names no number: a tenth, at least one."""
    return max(1, num // 10)


def _evenly(order: Tensor, labels: Tensor, num: int) -> Tensor:
    """Choose ``num`` of the indices in ``order``, in proportion to the sizes of the classes.

    The indices are sorted by class and every (len / num)-th is taken: each class gets its share to within one.
    """
    by_class = order[labels[order].argsort(stable=True)]
    return by_class[torch.arange(num) * len(order) // num]
