"""The weights of FashionResNet18 that come with fmvae, each beside its card (.json), and the words for them."""

import json
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHIPPED = {
    # training ended with images as they are: its features tell a blurry sample from a photograph
    "sharp": HERE / "fashion_resnet18.safetensors",
    # training ended with blurred images among them: it knows the class of a blurry sample
    "blurred": HERE / "fashion_resnet18_blurred.safetensors",
}


def weights_file(name: str | Path) -> Path:
    """The file that a word of ``SHIPPED`` or a path stands for."""
    return SHIPPED.get(str(name), Path(name))


@cache
def weights_name(sha256: str) -> str:
    """What to call a file of weights: its word if it is shipped, else the first digits of its SHA-256."""
    cards = {word: json.loads(file.with_suffix(".json").read_bytes()) for word, file in SHIPPED.items()}
    return next((word for word, card in cards.items() if card["sha256"] == sha256), sha256[:10])
