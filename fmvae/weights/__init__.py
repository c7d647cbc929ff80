"""The weights of FashionResNet18 that come with fmvae, each beside its card (.json), and the words for them."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
SHIPPED = {
    "sharp": HERE / "fashion_resnet18.safetensors",  # training ended with images as they are: its features see blur
    "blurred": HERE / "fashion_resnet18_blurred.safetensors",  # it ended with blurred ones among them: it looks past blur
}


def weights_file(name: str | Path) -> Path:
    """The file that a word of ``SHIPPED`` or a path stands for."""
    return SHIPPED.get(str(name), Path(name))
