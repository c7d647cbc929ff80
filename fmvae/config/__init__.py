"""Configs: composing, number shorthand, checks of types and ranges, names of runs, and building objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmvae.config.composing import compose

__all__ = ["compose"]


def __getattr__(name: str) -> Any:
    # imported on first use: reading a run's config needs no Hydra
    if name == "compose":
        from fmvae.config.composing import compose

        return compose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
