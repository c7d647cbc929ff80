"""The weights of FashionResNet18 shipped with fmvae, each with its card (.json), and how weights are named."""

import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fmvae.common.text import typed_path

HERE = Path(__file__).resolve().parent
SHIPPED = {
    # trained on sharp images at the end: its features distinguish blurry samples from real images
    "sharp": HERE / "fashion_resnet18.safetensors",
    # trained on blurred images too: it also recognises the class of blurry samples
    "blurred": HERE / "fashion_resnet18_blurred.safetensors",
}
# in the directory of a classifier's run
WEIGHTS, CARD = "classifier.safetensors", "classifier.json"
EARLIER = "fashion_resnet18.safetensors"  # the name of the weights in runs of earlier versions, beside their card


def weights_file(name: str | Path) -> Path:
    """Return the file for a name in ``SHIPPED``, for a path, or for the directory of a classifier's run.

    A directory without weights is returned as it is.
    """
    path = SHIPPED.get(str(name), typed_path(str(name)))
    return weights_of_run(path) or path


def weights_of_run(directory: Path) -> Path | None:
    """Return the weights in a directory, which a classifier's run writes at its end; None if there are none."""
    try:
        return next((path for path in (directory / WEIGHTS, directory / EARLIER) if path.is_file()), None)
    except (OSError, ValueError):  # too long a name, or no name at all
        return None


@cache
def card_of(word: str) -> dict[str, Any]:
    """Return the card of shipped weights: their SHA-256, training config and test results."""
    return json.loads(SHIPPED[word].with_suffix(".json").read_bytes())


def weights_name(digest: str) -> str:
    """Return a display name for weights with this SHA-256: their name if shipped, else the first 10 digits."""
    return next((word for word in SHIPPED if card_of(word)["sha256"] == digest), digest[:10])


def as_shipped(name: str | Path, num_classes: int, channels: int | None = None) -> str | None:
    """Return the SHA-256 of shipped weights; None if the file differs from its card, or is for other images.

    Args:
        channels: of the images; None accepts any.
    """
    try:
        card, content = card_of(str(name)), weights_file(name).read_bytes()
        data = card["config"]["data"]
        fits = data["num_classes"] == num_classes and channels in (None, data.get("image_shape", [channels])[0])
    except (OSError, LookupError, ValueError):  # the caller that loads the file reports the error
        return None
    return card["sha256"] if fits and sha256(content).hexdigest() == card["sha256"] else None
