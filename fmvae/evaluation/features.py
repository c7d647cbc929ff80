"""Feature vectors of real, reconstructed and generated images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmvae.common.phases import phase
from fmvae.data import Split
from fmvae.errors import RunError
from fmvae.evaluation.likelihood import EVALUATION_BATCH
from fmvae.models import VAE, FashionResNet18
from fmvae.models.resnet import MAX_BYTES, LoadedClassifier, load_classifier
from fmvae.objectives import Likelihood
from fmvae.weights import as_shipped, card_of, weights_file

Precision = Literal["fp32", "bf16"]
EXTRACTION_BATCH = 100  # images; larger batches exceed a CPU's caches and are slower
NETWORKS = 4  # most that a process keeps, of 45 million bytes each: two classifiers, on one or two devices
log = logging.getLogger("fmvae")


# --- images -------------------------------------------------------------------------------------------------


def real_images(split: Split, num: int) -> Iterator[Tensor]:
    """Yield the first ``num`` images of a split (all if it has fewer), in batches (B, C, H, W) in [0, 1]."""
    first = split.take(slice(num))
    yield from (x for x, _ in first.batches(EVALUATION_BATCH))


@torch.inference_mode()
def reconstructed_images(model: VAE, likelihood: Likelihood, split: Split, num: int) -> Iterator[Tensor]:
    """Yield reconstructions at the posterior mean of the first ``num`` images of a split, in batches."""
    first = split.take(slice(num))
    for x, labels in first.batches(EVALUATION_BATCH):
        mu, _ = model.encode(x, labels)
        yield likelihood.mean(model.decode(mu, labels))


class Draws(Protocol):
    """Draw latents (num, latent_dim) for labels (num,), in any precision; ``Sampler.sample`` is one."""

    def __call__(self, num: int, labels: Tensor | None, generator: torch.Generator) -> Tensor: ...


@torch.inference_mode()
def generated_images(
    model: VAE, likelihood: Likelihood, labels: Tensor, generator: torch.Generator, draws: Draws | None = None
) -> Iterator[Tensor]:
    """Yield one image per label: decoder means of latents; unconditional models ignore the labels.

    Args:
        draws: gives the latents; by default they are drawn from the model's prior.
    """
    for chunk in labels.split(EVALUATION_BATCH):
        if draws is None:
            logits = model.sample(len(chunk), chunk, generator=generator)
        else:
            logits = model.decode_draws(draws(len(chunk), chunk, generator), chunk)
        yield likelihood.mean(logits)


# --- features -----------------------------------------------------------------------------------------------


class Features(NamedTuple):
    """Features (N, D), and logits (N, num_classes) if the features come from a classifier."""

    features: NDArray[np.floating]
    logits: NDArray[np.floating] | None = None


class FeatureSet(Protocol):
    """A function from images to features.

    Attributes:
        name: its name in ``evaluation.fid.features``.
        identity: JSON values that identify how features are computed; equal values mean equal features.
    """

    name: str

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        """Compute features of batches (B, C, H, W) in [0, 1].

        Args:
            what: a name for the images, for the progress bar.
            num: the number of images, for the progress bar.
        """
        ...


class Pixels:
    """The pixels as features: (N, C*H*W), in [0, 1], float64."""

    name = "pixels"
    identity: Mapping[str, Any] = {"features": "pixels in [0, 1]"}

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        return Features(np.concatenate([batch.flatten(1).cpu().double().numpy() for batch in batches]))


class ResNetFeatures:
    """The pooled features before the last layer of FashionResNet18: (N, 512), float32, and the logits.

    Args:
        weights: a file, a classifier's run, or the name of shipped weights (see ``load_classifier``).
        num_classes: the number of classes of the data; None accepts any network.
        precision: ``bf16`` computes convolutions in bfloat16: faster on some machines, nearly the same distances.
        device: where to compute.
        channels: the number of channels of the images; None accepts any network.

    Raises:
        RunError: the weights are missing, damaged or of another network.
    """

    name = "resnet18"

    def __init__(
        self,
        weights: str | Path,
        num_classes: int | None,
        precision: Precision,
        device: torch.device,
        channels: int | None = None,
    ):
        self.weights, self.precision, self.device = weights, precision, device
        self.num_classes, self.channels = num_classes, channels
        known = as_shipped(weights, num_classes, channels) if num_classes else None
        self._known = bool(known)
        self.identity: Mapping[str, Any] = resnet_identity(known or file_sha256(weights), precision)
        if not known:  # read it now, so that errors in it come before training, not after
            _ = self.network

    @property
    def network(self) -> FashionResNet18:
        """The network, created on first use: importing torchvision takes longer than a short training.

        All sets of features of a process share it, with their runs.
        """
        return self._loaded.model

    @property
    def card(self) -> Mapping[str, Any]:
        """The metadata stored with the weights; empty for a file from elsewhere."""
        return card_of(str(self.weights)) if self._known else self._loaded.card

    @cached_property
    def _loaded(self) -> LoadedClassifier:
        sha256 = self.identity["extractor_sha256"]
        if file_sha256(self.weights) not in (sha256, ""):
            raise _replaced(self.weights)
        return _network(self.weights, sha256, self.num_classes, self.channels, self.device)

    @torch.inference_mode()
    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        network, device = self.network, self.device
        parts = []
        # otherwise cuDNN rounds float32 to TF32
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)
        with exact, phase(f"features of {what}", num, detail=f", {num:,} by resnet18") as current:
            for batch in batches:
                for x in batch.split(EXTRACTION_BATCH):
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                        output = network(x.to(device))
                    parts.append((output.features.float().cpu(), output.logits.float().cpu()))
                    current.advance(len(x))
        features, logits = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        if not np.isfinite(features).all():
            raise RunError(self.weights, f"its features of {what} are not finite", "name other weights")
        return Features(features, logits)


def file_sha256(weights: str | Path) -> str:
    """Return the SHA-256 of a file of weights; empty if it cannot be read, which ``load_classifier`` explains."""
    path = weights_file(weights)
    try:
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):  # ValueError: not a valid file name
        pass
    return ""


def _replaced(weights: str | Path) -> RunError:
    return RunError(weights, "the file was replaced since the start", "run the command again")


@lru_cache(NETWORKS)
def _network(
    weights: str | Path, sha256: str, num_classes: int | None, channels: int | None, device: torch.device
) -> LoadedClassifier:
    """Load the network from a file with this SHA-256, check it and prepare it for use: once per process."""
    with torch.inference_mode(False):  # the first call may come from inside inference mode
        loaded = load_classifier(weights, num_classes, channels)
        if loaded.sha256 != sha256:
            raise _replaced(weights)
        return loaded._replace(model=fold_batch_norm(loaded.model).to(device))


def resnet_identity(weights_sha256: str, precision: Precision) -> dict[str, Any]:
    """Return the JSON values that identify a set of ResNet features."""
    return {
        "features": "FashionResNet18, pooled (512)",
        "extractor_sha256": weights_sha256,
        "preprocessing": "[0, 1], normalised by the network",
        "precision": precision,
    }


def fold_batch_norm(model: FashionResNet18) -> FashionResNet18:
    """Merge each batch norm into the convolution before it; for evaluation only. Changes ``model`` in place."""
    fuse = torch.nn.utils.fusion.fuse_conv_bn_eval
    net = model.eval().backbone
    net.conv1, net.bn1 = fuse(net.conv1, net.bn1), nn.Identity()
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for block in stage:
            block.conv1, block.bn1 = fuse(block.conv1, block.bn1), nn.Identity()
            block.conv2, block.bn2 = fuse(block.conv2, block.bn2), nn.Identity()
            if block.downsample is not None:
                block.downsample = fuse(*block.downsample)
    return model.to(memory_format=torch.channels_last)
