"""Images as feature vectors, real and generated alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmvae.common.streams import new_bar
from fmvae.data import Split
from fmvae.errors import RunError
from fmvae.evaluation.likelihood import EVALUATION_BATCH
from fmvae.models import VAE, FashionResNet18
from fmvae.models.resnet import LoadedClassifier, load_classifier
from fmvae.objectives import Likelihood
from fmvae.weights import as_shipped

Precision = Literal["fp32", "bf16"]
EXTRACTION_BATCH = 100  # images; larger ones leave a processor's caches and are slower there
log = logging.getLogger("fmvae")


# --- images -------------------------------------------------------------------------------------------------


def real_images(split: Split, num: int) -> Iterator[Tensor]:
    """The first ``num`` images of a split (fewer if it has fewer), in batches (B, C, H, W) in [0, 1]."""
    first = Split(split.name, split.images[:num], split.labels[:num])
    yield from (x for x, _ in first.batches(EVALUATION_BATCH))


@torch.inference_mode()
def reconstructed_images(model: VAE, likelihood: Likelihood, split: Split, num: int) -> Iterator[Tensor]:
    """The first ``num`` images of a split, encoded and decoded at the posterior mean."""
    first = Split(split.name, split.images[:num], split.labels[:num])
    for x, labels in first.batches(EVALUATION_BATCH):
        mu, _ = model.encode(x, labels)
        yield likelihood.mean(model.decode(mu, labels))


@torch.inference_mode()
def generated_images(
    model: VAE, likelihood: Likelihood, labels: Tensor, generator: torch.Generator
) -> Iterator[Tensor]:
    """One decoder mean (not a pixel draw) per label, from prior latents; models without labels ignore them."""
    for chunk in labels.split(EVALUATION_BATCH):
        yield likelihood.mean(model.sample(len(chunk), chunk, generator=generator))


# --- features -----------------------------------------------------------------------------------------------


class Features(NamedTuple):
    """Features (N, D), and the classifier's logits (N, num_classes) where a classifier made them."""

    features: NDArray[np.floating]
    logits: NDArray[np.floating] | None = None


class FeatureSet(Protocol):
    """A way to make features of images.

    Attributes:
        name: as in ``evaluation.fid.features``.
        identity: JSON values that change whenever the features of an image could.
    """

    name: str
    identity: Mapping[str, Any]

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        """The features of batches (B, C, H, W) in [0, 1].

        Args:
            what: names the images, for the progress report.
            num: how many they are.
        """
        ...


class Pixels:
    """Images as they are, flattened: (N, C*H*W), in [0, 1], float64."""

    name = "pixels"
    identity: Mapping[str, Any] = {"features": "pixels in [0, 1]"}

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        return Features(np.concatenate([batch.flatten(1).cpu().double().numpy() for batch in batches]))


class ResNetFeatures:
    """What FashionResNet18 pools before its last layer: (N, 512), float32, with the logits.

    Args:
        weights: a file, or a word for those shipped (see ``load_classifier``).
        num_classes: what the data have; None takes a network of any number.
        precision: ``bf16`` computes convolutions in bfloat16: faster on some machines, nearly the same distances.
        device: where to compute.

    Raises:
        RunError: the weights are missing, damaged or of another network.
    """

    name = "resnet18"

    def __init__(self, weights: str | Path, num_classes: int | None, precision: Precision, device: torch.device):
        self.weights, self.num_classes, self.precision, self.device = weights, num_classes, precision, device
        # of those shipped nothing can be wrong; whatever can be with others is said now, and not after training
        known = as_shipped(weights, num_classes) if num_classes else None
        sha256 = known or self._loaded.sha256
        self.identity: Mapping[str, Any] = resnet_identity(sha256, precision)

    @cached_property
    def _loaded(self) -> LoadedClassifier:
        with torch.inference_mode(False):  # whoever asks first may be in it
            return load_classifier(self.weights, self.num_classes)

    @cached_property
    def network(self) -> FashionResNet18:
        """Made when it is first asked for: importing torchvision takes longer than a short training."""
        if self._loaded.sha256 != self.identity["extractor_sha256"]:
            raise RunError(self.weights, "the file was replaced since the start", "run the command again")
        with torch.inference_mode(False):
            return fold_batch_norm(self._loaded.model).to(self.device)

    @torch.inference_mode()
    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        network, device = self.network, self.device
        start, parts = time.perf_counter(), []
        # cuDNN would round float32 to TF32 otherwise
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False)
        with exact, new_bar(desc=f"features of {what}", total=num, unit="image") as bar:
            for batch in batches:
                for x in batch.split(EXTRACTION_BATCH):
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                        output = network(x.to(device))
                    parts.append((output.features.float().cpu(), output.logits.float().cpu()))
                    bar.update(len(x))
        log.info("  resnet18 features of %s: %s images, %.0f s", what, f"{num:,}", time.perf_counter() - start)
        features, logits = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        if not np.isfinite(features).all():
            raise RunError(self.weights, f"its features of {what} are not finite", "name other weights")
        return Features(features, logits)


def resnet_identity(weights_sha256: str, precision: Precision) -> dict[str, Any]:
    """What distinguishes one set of ResNet features from another."""
    return {
        "features": "FashionResNet18, pooled (512)",
        "extractor_sha256": weights_sha256,
        "preprocessing": "[0, 1], normalised by the network",
        "precision": precision,
    }


def fold_batch_norm(model: FashionResNet18) -> FashionResNet18:
    """The same network in evaluation, each batch norm merged into the convolution before it. Changes ``model``."""
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
