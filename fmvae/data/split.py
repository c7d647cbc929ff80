"""One split of the dataset, in memory, and its batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 images in [0, 255] as float32 in [0, 1], divided as torchvision's ``ToTensor`` divides."""
    return images.to(torch.float32).div_(255)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64, both on the training device."""

    name: str
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Float images (B, C, H, W) in [0, 1] with labels (B,); the last batch may be short.

        With a generator (on the CPU) the order is a fresh permutation from it, without one it is as stored.
        """
        if generator is None:
            chunks = zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
            yield from ((to_float(images), labels) for images, labels in chunks)
            return
        yield from map(self.batch, self.order(generator).split(batch_size))

    def order(self, generator: torch.Generator) -> Tensor:
        """A permutation of the indices (N,), drawn from a generator on the CPU."""
        return torch.randperm(len(self), generator=generator).to(self.labels.device)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Float images (B, C, H, W) in [0, 1] with labels (B,), for indices (B,)."""
        return to_float(self.images.index_select(0, index)), self.labels.index_select(0, index)

    def round_robin(self, num: int) -> Tensor:
        """Indices of ``num`` images, or of all if fewer: the first of each class, the second of each, ..."""
        labels = self.labels.cpu()
        rank = torch.empty_like(labels)  # how many of its class come before an image
        for c in labels.unique():
            rank[labels == c] = torch.arange(int((labels == c).sum()))
        order = (rank * (labels.max() + 1) + labels).argsort(stable=True)
        return order[:num].to(self.labels.device)
