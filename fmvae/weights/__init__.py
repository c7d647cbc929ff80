"""The weights of FashionResNet18 shipped with fmvae, each with its card (.json), and their names."""

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


def weights_file(name: str | Path) -> Path:
    """Return the file for a name in ``SHIPPED`` or for a path."""
    return SHIPPED.get(str(name), typed_path(str(name)))


@cache
def card_of(word: str) -> dict[str, Any]:
    """Return the card of shipped weights: their SHA-256, training config and test results."""
    return json.loads(SHIPPED[word].with_suffix(".json").read_bytes())


def weights_name(digest: str) -> str:
    """Return a display name for weights with this SHA-256: their name if shipped, else the first 10 digits."""
    return next((word for word in SHIPPED if card_of(word)["sha256"] == digest), digest[:10])


def as_shipped(name: str | Path, num_classes: int) -> str | None:
    """Return the SHA-256 of shipped weights; None if the file differs from its card, or has other classes."""
    try:
        card, content = card_of(str(name)), weights_file(name).read_bytes()
        fits = card["config"]["data"]["num_classes"] == num_classes
    except (OSError, LookupError, ValueError):  # the caller that loads the file reports the error
        return None
    return card["sha256"] if fits and sha256(content).hexdigest() == card["sha256"] else None
