"""The fitted samplers of one checkpoint, kept in files with digests and never used for another checkpoint."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmvae.common.digests import digest
from fmvae.common.phases import phase
from fmvae.common.threads import one_thread
from fmvae.data import ImageData
from fmvae.errors import RunError
from fmvae.evaluation.partial import Partial
from fmvae.evaluation.samplers.base import Latents, Sampler
from fmvae.evaluation.samplers.prior import PriorSampler
from fmvae.evaluation.samplers.registry import make_sampler
from fmvae.models import VAE, encode_split
from fmvae.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_sha256

FORMAT = 1  # increase it when a code change affects the fits
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
WAY_OUT = "leave it to the next measurement, which fits it anew"
log = logging.getLogger("fmvae")


class Misfit(RunError):
    """A file holds a sampler, but of another checkpoint, other data or other settings."""


class SamplerStore:
    """Fit samplers to a trained model's posteriors, or load earlier fits, for one checkpoint.

    A fit is kept as ``<folder>/<name>.safetensors``, in the format of checkpoints. The file holds the key of the
    fit: the SHA-256 of the checkpoint, the digests of the data, the sampler's settings and the seed. A file with
    the same key is verified and loaded; any other one is replaced by a new fit, and then
    what else was fitted to an earlier checkpoint is removed from the folder. During a fit, its state is in
    ``<name>.partial.safetensors``, from which a killed fit is resumed with the same bits: a network after its last
    kept epoch, mixtures after the last kept class or number of components. Files are
    written atomically, so processes may share a folder.

    Args:
        folder: of the checkpoint, as ``run.samplers`` for the best one and ``run.samplers / "last"`` for the last;
            None keeps fits in memory alone, and so does, with a warning, a folder that may not be written.
        model: with the checkpoint's weights.
        seed: the run's seed.
        checkpoint_sha256: of the checkpoint's content; None: of the model's present weights, which may change.
        anew: fit once more what has a file.
        may_write: entered around a new fit, and says whether it may be written; without it, it always may. A fit
            that may not be written is kept in memory.
    """

    def __init__(
        self,
        folder: Path | None,
        model: VAE,
        data: ImageData,
        *,
        seed: int,
        checkpoint_sha256: str | None = None,
        anew: bool = False,
        may_write: Callable[[], AbstractContextManager[bool]] | None = None,
    ):
        self.folder, self.model, self.data, self.seed = folder, model, data, seed
        self.checkpoint_sha256, self.anew = checkpoint_sha256, anew
        self._of_checkpoint = weights_sha256(model) if checkpoint_sha256 else ""
        self.may_write = may_write or (lambda: nullcontext(True))
        self._fitted: dict[str, Sampler] = {}
        self._drawn: dict[str, Sampler] = {}  # of equal fits, those that differ in what they draw
        self._encoded: tuple[str, tuple[Latents, Latents]] | None = None

    def get(self, name: str, settings: Mapping[str, Any] | None = None) -> Sampler:
        """Return a fitted sampler, from memory, from its file, or fitted now.

        A damaged file gives a warning.

        Args:
            settings: its group in ``evaluation``, as {"num_components": 10}.

        Raises:
            ConfigError: there is no such sampler, or its settings do not fit the data.
            RunError: the posteriors cannot be fitted.
        """
        with torch.inference_mode(False), torch.no_grad():
            sampler = make_sampler(name, settings or {}, self.model, self.data)
            if isinstance(sampler, PriorSampler):  # nothing is fitted, so nothing is encoded
                return sampler
            known = digest(self.key(sampler))
            if known not in self._fitted:
                self._fitted[known] = self._loaded(sampler) or self._newly_fitted(sampler)
            drawn = digest({"fit": known, **sampler.drawing})
            if drawn not in self._drawn:
                self._drawn[drawn] = self._fitted[known]
                if sampler.drawing != self._fitted[known].drawing:
                    sampler.load_state(*self._fitted[known].state())
                    self._drawn[drawn] = sampler
            return self._drawn[drawn]

    def read(self, name: str, settings: Mapping[str, Any] | None = None) -> Sampler:
        """Return a sampler from its file, without fitting.

        Raises:
            RunError: the file is missing or damaged, or belongs to another checkpoint, other data or settings.
        """
        with torch.inference_mode(False), torch.no_grad():
            return self._read(make_sampler(name, settings or {}, self.model, self.data))

    def key(self, sampler: Sampler) -> dict[str, Any]:
        """Return all that a fit depends on, as JSON values."""
        key = {
            "format": FORMAT,
            "sampler": sampler.name,
            "checkpoint_sha256": self._weights(),
            "data_sha256": dict(self.data.sha256),
            "settings": sampler.settings,
            "seed": self.seed,
        }
        return json.loads(json.dumps(key))

    def path(self, name: str) -> Path | None:
        """Return the file of a sampler; None without a folder, and for weights that were changed since."""
        known = self.checkpoint_sha256 is None or self._weights() == self.checkpoint_sha256
        return self.folder / f"{name}.safetensors" if self.folder and known else None

    def _read(self, sampler: Sampler) -> Sampler:
        path = self.path(sampler.name)
        if path is None or not sampler.stored:
            raise RunError(f"sampler {sampler.name}", "it has no file", "use SamplerStore.get")
        entry = _checked(path, self.key(sampler))
        try:
            sampler.load_state(entry.tensors, entry.meta["fit"])
        except Exception as error:  # the digest is right, so the file was made to look like a sampler's
            detail = str(error).splitlines()[-1] if str(error) else ""
            raise RunError(
                path, f"not a fit of {sampler.name} ({type(error).__name__}: {detail})", WAY_OUT
            ) from None
        return sampler

    def _loaded(self, sampler: Sampler) -> Sampler | None:
        path = self.path(sampler.name)
        if path is None or not sampler.stored or self.anew or not path.exists():
            return None
        try:
            return self._read(sampler)
        except Misfit as error:
            log.info("%s: %s; fitted anew", path, error.problem)
        except RunError as error:
            log.warning("%s: %s; fitted anew", path, error.problem)
        return None

    def _newly_fitted(self, sampler: Sampler) -> Sampler:
        path = self.path(sampler.name) if sampler.stored else None
        with self.may_write() if path else nullcontext(False) as may:
            path, key = path if may else None, self.key(sampler)
            partial = Partial(path.with_suffix(f".partial{path.suffix}") if path else None, key)
            if self.anew:
                partial.remove()
            with phase(f"fit of sampler {sampler.name}", bar=False, minor=not sampler.stored):
                sampler.fit(*self._latents(), self.seed, partial)
            if path:
                tensors, meta = sampler.state()
                _write(path, tensors, {"key": key, "fit": meta})
                partial.remove()
                _remove_leftovers(path.parent, key["checkpoint_sha256"])
        return sampler

    def _weights(self) -> str:
        """Return the digest of the checkpoint, or of the model's weights if they are not the checkpoint's."""
        now = weights_sha256(self.model)
        return self.checkpoint_sha256 if self.checkpoint_sha256 and now == self._of_checkpoint else now

    def _latents(self) -> tuple[Latents, Latents]:
        """Return the posteriors of the training and validation images, encoded once for all samplers.

        With one thread: blocks that use a fit may be measured, and verified, with different numbers of threads.
        """
        if self._encoded is None or self._encoded[0] != self._weights():
            with one_thread():
                both = [encode_split(self.model, split) for split in (self.data.train, self.data.val)]
            with torch.inference_mode(False):
                train, val = (Latents(*(part.to("cpu", copy=True) for part in found)) for found in both)
            self._encoded = self._weights(), (train, val)
        return self._encoded[1]


def _checked(path: Path, key: Mapping[str, Any]) -> Checkpoint:
    """Read a file and compare its key.

    Raises:
        RunError: it is missing or damaged.
        Misfit: its key is another one.
    """
    entry = load_checkpoint(path)
    theirs = entry.meta.get("key")
    if not isinstance(theirs, dict) or "fit" not in entry.meta:
        raise RunError(path, "not the file of a sampler", WAY_OUT)
    if differ := sorted(name for name in {**key, **theirs} if theirs.get(name) != key.get(name)):
        names = {
            "checkpoint_sha256": "another checkpoint",
            "data_sha256": "other data",
            "settings": "other settings",
        }
        told = ", ".join(names.get(name, f"another {name}") for name in differ)
        raise Misfit(path, f"a sampler of {told}", WAY_OUT)
    return entry


def _remove_leftovers(folder: Path, checkpoint_sha256: str) -> None:
    """Remove the fits of an earlier checkpoint, finished or not, which no one can use: the weights are gone.

    Files that cannot be read stay, for ``verify`` to tell of.
    """
    for path in folder.glob("*.safetensors"):
        try:
            key = load_checkpoint(path).meta.get("key")
        except RunError:
            continue
        if isinstance(key, dict) and key.get("checkpoint_sha256", checkpoint_sha256) != checkpoint_sha256:
            with suppress(OSError):  # of a folder that may not be written, as _write has said
                path.unlink()
                log.info("%s: removed, fitted to an earlier checkpoint", path)


def _write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a file, or warn that the folder may not be written. Other errors of the disk are raised."""
    try:
        save_checkpoint(path, tensors, meta)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        log.warning("%s: %s; the fit is kept in memory only", path, error.strerror)
