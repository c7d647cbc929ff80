"""The weights of FashionResNet18 that come with fmvae, each beside its card (.json), and the words for them."""

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
