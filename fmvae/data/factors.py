"""The base class of datasets that hold an image for every combination of their factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmvae.data.images import ImageData
from fmvae.data.tables import Table
from fmvae.errors import ConfigError

Labels = Callable[[Tensor], Tensor]


class FactorData(ImageData):
    """Images of all combinations of factors, split as the config says, and rendered on demand.

    The config names the images by their definition and its version (or by the digest of a published file);
    ``sha256`` holds that of all images as they were made, in the table's order.

    Args:
        table: all images.
        apart, num_train, val_size, num_test, seed: as for ``Grid.split``.
        labels_of: returns the labels (N,) for factors (N, K); None for data without labels.
        class_names: as for ``ImageData``.
        batch_size, device: as for ``ImageData``.
    """

    named_by_config = True

    def __init__(
        self,
        table: Table,
        *,
        apart: Sequence[str] | None,
        num_train: int | None,
        val_size: int,
        num_test: int | None,
        labels_of: Labels | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int,
        seed: int,
        device: torch.device | str,
    ):
        self._table, grid = table, table.grid
        chosen = grid.split(apart, num_train=num_train, val_size=val_size, num_test=num_test, seed=seed)
        factors = {name: grid.factors(index) for name, index in chosen.items()}
        parts = {
            name: (table.images(index), labels_of(factors[name]) if labels_of else None)
            for name, index in chosen.items()
        }
        super().__init__(
            train=parts["train"],
            val=parts["val"],
            test=parts["test"],
            num_classes=num_classes,
            class_names=class_names,
            sha256={"images": table.sha256},
            factors=factors,
            factor_names=grid.names,
            factor_sizes=grid.sizes,
            batch_size=batch_size,
            device=device,
            seed=seed,
        )

    def render(self, factors: Tensor) -> Tensor:
        return self._table.images(self._table.grid.index(torch.as_tensor(factors))).to(self.device)


def check_version(asked: int, ours: int) -> None:
    """Refuse another version of a definition than the one that this program makes.

    Raises:
        ConfigError: of ``data.version``.
    """
    if asked != ours:
        problem = f"{asked}, but this program makes version {ours}"
        raise ConfigError(
            "data.version", problem, f"give data.version={ours}, or take the program of that version"
        )
