"""The weights of FashionResNet18 that come with fmvae, each beside its card (.json), and the words for them."""

import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fmvae.common.text import typed_path

HERE = Path(__file__).resolve().parent
SHIPPED = {
    # training ended with images as they are: its features tell a blurry sample from a photograph
    "sharp": HERE / "fashion_resnet18.safetensors",
    # training ended with blurred images among them: it knows the class of a blurry sample
    "blurred": HERE / "fashion_resnet18_blurred.safetensors",
}


def weights_file(name: str | Path) -> Path:
    """The file that a word of ``SHIPPED`` or a path stands for."""
    return SHIPPED.get(str(name), typed_path(str(name)))


@cache
def card_of(word: str) -> dict[str, Any]:
    """The card of shipped weights: their SHA-256, and what they were trained and tested with."""
    return json.loads(SHIPPED[word].with_suffix(".json").read_bytes())


def weights_name(digest: str) -> str:
    """What to call a file of weights: its word if it is shipped, else the first digits of its SHA-256."""
    return next((word for word in SHIPPED if card_of(word)["sha256"] == digest), digest[:10])


def as_shipped(name: str | Path, num_classes: int) -> str | None:
    """The SHA-256 of shipped weights for so many classes, if the file is still what its card says; else None."""
    try:
        card, content = card_of(str(name)), weights_file(name).read_bytes()
        fits = card["config"]["data"]["num_classes"] == num_classes
    except (OSError, LookupError, ValueError):  # whoever reads the file says what is wrong with it
        return None
    return card["sha256"] if fits and sha256(content).hexdigest() == card["sha256"] else None
