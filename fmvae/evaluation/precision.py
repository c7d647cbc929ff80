"""``evaluation.extractor.precision=auto``: bfloat16 where the processor has units for it and FID hardly changes.

The choice depends on the classifier, the test images, the kind of machine and the number of images of the measure,
and not on the run: tables refuse to compare features of two precisions, so runs of a sweep must not differ in it.
Training images take no part, as the seed of a run decides which they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fmvae import rng
from fmvae.data import Split
from fmvae.data.split import to_float
from fmvae.evaluation.cache import cache_key, kept_record
from fmvae.evaluation.columns import PRECISION_CHECK
from fmvae.evaluation.features import Features, FeatureSet, Precision, ResNetFeatures
from fmvae.evaluation.frechet import FeatureStatistics, frechet_distance, frechet_standard_error
from fmvae.evaluation.processor import has_bf16
from fmvae.models import FashionResNet18
from fmvae.weights import weights_name

Asked = Literal["fp32", "bf16", "auto"]
CHECK_IMAGES = 2000  # on each side; with fewer, bf16 changes the distance's bias more than the distance
SIGMA = 1.0  # of the blur, in pixels: the images are then about as far from sharp ones as a good VAE's are
RADIUS = 3  # of the blur's kernel, in pixels
LARGEST_SHARE = 0.1  # of the standard error, by which bf16 may change FID
log = logging.getLogger("fmvae")


class AutoFeatures:
    """Features of a classifier in the precision that ``precision=auto`` chooses on their first use.

    Args:
        make: makes the features in a precision.
        test: the test images, on which the choice is made.
        num: the number of images of the measure, for which FID has the standard error to compare with.
        cache: the folder in which the numbers that decide are kept; None decides anew each time, and equally.
    """

    name = ResNetFeatures.name

    def __init__(self, make: Callable[[Precision], FeatureSet], test: Split, num: int, cache: Path | None):
        self.make, self.test, self.num, self.cache = make, test, num, cache
        self.exact = make("fp32")  # now, so that errors in the weights come before training

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._chosen[0].identity

    @property
    def card(self) -> Mapping[str, Any]:
        """The metadata stored with the weights."""
        return getattr(self.exact, "card", {})

    @property
    def precision_check(self) -> dict[str, Any] | None:
        """The numbers by which bf16 was chosen, to be stored with a measure; None in fp32."""
        return self._chosen[1]

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        return self._chosen[0](batches, what, num)

    @cached_property
    def _chosen(self) -> tuple[FeatureSet, dict[str, Any] | None]:
        device, num = self.test.images.device, self._num_checked
        key = f"precision=auto of {weights_name(self.exact.identity['extractor_sha256'])}"
        if not has_bf16(device):
            log.info("%s: fp32, as this %s has no units for bf16", key, device.type)
            return self.exact, None
        if not num:
            log.info("%s: fp32, as %s test images are too few to try bf16", key, f"{len(self.test):,}")
            return self.exact, None
        rounded = self.make("bf16")
        check = {"num_images": num, "sigma": SIGMA, "radius": RADIUS}
        both = cache_key(self.test, len(self.test), rounded) | {"check": check}
        found = kept_record(self.cache, f"{self.name}-bf16", both, lambda: self._compared(rounded, num))
        check = found | {"standard_error": found["standard_error"] * math.sqrt(num / self.num)}
        accepted = abs(check["change"]) < LARGEST_SHARE * check["standard_error"]
        chosen = (rounded, check) if accepted else (self.exact, None)
        told = key, "bf16" if accepted else "fp32", check["change"], check["standard_error"]
        log.info("%s: %s, as bf16 changes FID by %.2g, and its standard error is %.2g", *told)
        return chosen

    @property
    def _num_checked(self) -> int:
        """The number of images on each side of the distances that are compared; 0 if there are too few."""
        num = min(CHECK_IMAGES, len(self.test) // 2)
        return num if num > FashionResNet18.num_features else 0

    def _compared(self, rounded: FeatureSet, num: int) -> dict[str, Any]:
        """Return by how much bf16 changes the FID of blurred test images from others, and its standard error."""
        # not in the stored order, which may be sorted by class
        order = torch.randperm(len(self.test), generator=rng.stream(0, "evaluation")).to(self.test.images.device)
        ours, others = (self.test.images[index] for index in order[: 2 * num].split(num))
        sharp, blurred = to_float(ours), blurred_images(others)
        distances, errors = [], []
        for features in (self.exact, rounded):
            a, b = (features([x], "images to choose a precision", num).features for x in (sharp, blurred))
            real = FeatureStatistics.of(a, warn=False)
            distances.append(frechet_distance(real, FeatureStatistics.of(b, warn=False)))
            errors.append(frechet_standard_error(real, b))
        return {"change": distances[1] - distances[0], "standard_error": errors[0], "num_images": num}


def blurred_images(images: Tensor) -> Tensor:
    """Blur uint8 images (N, C, H, W), in the manner of a VAE's samples; return float ones in [0, 1]."""
    from torchvision.transforms.v2.functional import gaussian_blur  # slow to import

    size = [2 * min(RADIUS, side - 1) + 1 for side in (images.shape[-1], images.shape[-2])]
    blurred = gaussian_blur(to_float(images.cpu()), size, [SIGMA, SIGMA])
    return blurred.clamp(0, 1).to(images.device)


def in_asked_precision(
    precision: Asked, make: Callable[[Precision], FeatureSet], test: Split, num: int, cache: Path | None
) -> FeatureSet:
    """Return features in a precision of the config; see ``AutoFeatures`` for the arguments."""
    return AutoFeatures(make, test, num, cache) if precision == "auto" else make(precision)


def precision_check(features: FeatureSet) -> dict[str, Any]:
    """Return what a measure's block tells of these features besides its settings: an entry, or none."""
    check = getattr(features, "precision_check", None)
    return {PRECISION_CHECK: check} if check else {}
