"""The grid of all combinations of factor values, and splits of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fmvae import rng
from fmvae.data.split import TEST
from fmvae.errors import ConfigError, DataError


@dataclass(frozen=True)
class Grid:
    """Names and sizes of K factors, whose N combinations are in lexicographic order: the last factor runs fastest.

    Factor k has the values 0, ..., sizes[k] - 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return prod(self.sizes)

    def factors(self, index: Tensor) -> Tensor:
        """Return the factors (N, K) int64 of combinations, given by their indices (N,)."""
        return torch.stack(torch.unravel_index(index, self.sizes), dim=1)

    def index(self, factors: Tensor) -> Tensor:
        """Return the indices (N,) int64 of combinations, given by their factors (N, K).

        Raises:
            DataError: the factors are no whole numbers (N, K) in range.
        """
        check_factors("factors", factors, self.names, self.sizes)
        return self.flat(factors.to(torch.int64), range(len(self.sizes)))

    def flat(self, factors: Tensor, chosen: Sequence[int]) -> Tensor:
        """Return the index (N,) of each combination of the chosen factors only, in their own grid."""
        index = torch.zeros(len(factors), dtype=torch.int64, device=factors.device)
        for k in chosen:
            index = index * self.sizes[k] + factors[:, k]
        return index

    def split(
        self, apart: Sequence[str] | None, *, num_train: int | None, val_size: int, num_test: int | None, seed: int
    ) -> dict[str, Tensor]:
        """Return the indices of each split's combinations in a random order, by the split's name.

        The test images are the same for all seeds, so that runs are compared on the same images.

        Args:
            apart: factors whose combinations are kept apart: none of them occurs in two splits. None keeps only
                images apart, so that each value (and nearly each pair of values) occurs in all splits.
            num_train: how many combinations to train on; None takes all that val and test leave.
            val_size, num_test: how many are held out.
            seed: the run's seed.

        Raises:
            ConfigError: a factor is unknown or named twice, or the sizes exceed what there is.
        """
        chosen = self._chosen(apart)
        num_groups = prod(self.sizes[k] for k in chosen)
        each = len(self) // num_groups  # images per group, the same for all groups
        if num_test is None:
            raise ConfigError(
                "data.num_test", "null, but images are held out by number", "give a whole number >= 1"
            )
        test, val = (-(-num // each) for num in (num_test, val_size))  # groups, rounded up
        if test + val >= num_groups:
            problem = f"{num_test} test and {val_size} validation images leave none of {len(self)} to train on"
            if apart:
                kept = f"{num_groups} combinations of {', '.join(apart)}"
                problem = f"{test} and {val} of the {kept} for test and validation leave none to train on"
            raise ConfigError("data.num_test", problem, "lower data.num_test or data.val_size")

        test_draws, draws = rng.stream(0, "split", TEST), rng.stream(seed, "split")
        groups = torch.randperm(num_groups, generator=test_draws)
        rest = groups[test:].sort().values
        rest = rest[torch.randperm(len(rest), generator=draws)]
        group = self.flat(self.factors(torch.arange(len(self))), chosen)

        def drawn(groups: Tensor, num: int | None, generator: torch.Generator) -> Tensor:
            among = torch.isin(group, groups).nonzero().flatten()
            return among[torch.randperm(len(among), generator=generator)][:num]

        train = drawn(rest[val:], num_train, draws)
        if num_train and len(train) < num_train:
            problem = f"{num_train} images, but val and test leave {len(train)}"
            raise ConfigError("data.num_train", problem, "lower it, or give null for all of them")
        return {
            "train": train,
            "val": drawn(rest[:val], val_size, draws),
            "test": drawn(groups[:test], num_test, test_draws),
        }

    def _chosen(self, apart: Sequence[str] | None) -> list[int]:
        """Return the positions of the named factors; of all factors for None."""
        if not apart:
            return list(range(len(self.sizes)))
        for name in apart:
            if name not in self.names:
                raise ConfigError(
                    "data.apart", f"there is no factor {name!r}", f"give some of {', '.join(self.names)}"
                )
        if len({*apart}) < len(apart):
            raise ConfigError("data.apart", f"[{', '.join(apart)}] names a factor twice", "give each once")
        return sorted(self.names.index(name) for name in apart)


def check_factors(subject: str, factors: Tensor, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Raise a DataError unless ``factors`` are whole numbers (N, K), each in the range of its factor."""
    kind = f"{str(factors.dtype).removeprefix('torch.')} {tuple(factors.shape)}"
    if factors.is_floating_point() or factors.is_complex() or factors.dtype == torch.bool:
        raise DataError(subject, f"{kind} are no whole numbers", "give the index of each factor's value as int64")
    if factors.ndim != 2 or factors.shape[1] != len(sizes):
        raise DataError(
            subject, f"{kind} is not (N, {len(sizes)})", f"give a column for each of {', '.join(names)}"
        )
    for k, (name, size) in enumerate(zip(names, sizes, strict=True)):
        column = factors[:, k]
        wrong = column[(column < 0) | (column >= size)]
        if len(wrong):
            raise DataError(subject, f"{name} = {int(wrong[0])}", f"give 0 to {size - 1}")
