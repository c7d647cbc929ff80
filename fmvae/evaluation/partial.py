"""Partial results of measures and fits that take long, kept on disk so that a killed one can continue."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from fmvae.common.digests import digest
from fmvae.errors import RunError
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint

FORMAT = 2  # increase it when a code change affects the numbers
SECONDS = 60.0  # between two writes, at least
log = logging.getLogger("fmvae")


class Partial:
    """The partial result of one measure or fit: tensors and JSON values in a file, for the same work only.

    Args:
        path: the file; None keeps nothing.
        key: all that the result depends on, as JSON values.
    """

    def __init__(self, path: Path | None = None, key: Mapping[str, Any] | None = None):
        self.path, self.key = path, {"format": FORMAT, **(key or {})}
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and values that were kept; none without a file of the same work.

        A damaged file gives a warning.
        """
        if self.path is None or not self.path.exists():
            return {}, {}
        try:
            kept = load_checkpoint(self.path)
        except RunError as error:
            log.warning("%s: %s; begun anew", self.path, error.problem)
            return {}, {}
        return (kept.tensors, kept.meta.get("values", {})) if kept.meta.get("key") == self.key else ({}, {})

    @property
    def is_due(self) -> bool:
        """Whether it is time to keep what there is."""
        return self.path is not None and time.monotonic() - self._written >= SECONDS

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any] | None = None) -> None:
        """Write tensors and JSON values in place of earlier ones. If the disk refuses, a warning is logged."""
        assert self.path is not None
        self._written = time.monotonic()
        try:
            save_checkpoint(self.path, tensors, {"key": self.key, "values": dict(values or {})})
        except OSError as error:
            log.warning("%s: %s; partial results are not kept", self.path, error.strerror)

    def remove(self) -> None:
        """Delete the file, and its folder if that is empty then. If the disk refuses, a warning is logged."""
        if self.path is None or not self.path.exists():
            return
        try:
            self.path.unlink()
        except OSError as error:
            log.warning("%s: %s; it is no longer needed, so delete it", self.path, error.strerror)
        with suppress(OSError):  # other files are in it
            self.path.parent.rmdir()


class Partials:
    """The partial results of a checkpoint's measures, each in a file of its own.

    Args:
        folder: the folder of the files, made when it is needed; None keeps nothing.
        key: what all measures depend on, as JSON values: checkpoint, data, device.
        anew: whether measures begin anew: what they find is removed, and nothing is kept.
    """

    def __init__(self, folder: Path | None = None, key: Mapping[str, Any] | None = None, *, anew: bool = False):
        self.folder, self.key, self.anew = folder, dict(key or {}), anew
        self._asked: list[tuple[str, Partial]] = []

    def of(self, measure: str, settings: Mapping[str, Any], content: str | None = None) -> Partial:
        """Return the partial result of a measure (the name of its block) with these settings.

        Other settings have another file, so that measuring with them loses nothing.

        Args:
            content: the digest of what is made for the measure, as a fit. A partial result of another one is not
                continued; it has the same file, which is replaced.
        """
        key = {**self.key, "measure": measure, "settings": dict(settings)}
        name = f"{measure.replace('/', '-')}-{digest(key)[:16]}.safetensors"
        path = self.folder / name if self.folder else None
        if self.anew:
            Partial(path).remove()
            path = None
        found = Partial(path, key if content is None else {**key, "content_sha256": content})
        self._asked.append((measure, found))
        return found

    def done(self, measure: str) -> None:
        """Delete what a measure has asked for here, once its results are written."""
        for name, partial in self._asked:
            if name == measure:
                partial.remove()
