"""What a config may say: number shorthand, types and ranges, what names a run, and how it becomes objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmvae.config.composing import compose

__all__ = ["compose"]


def __getattr__(name: str) -> Any:
    # loaded when asked for: reading a run's config needs no Hydra
    if name == "compose":
        from fmvae.config.composing import compose

        return compose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
