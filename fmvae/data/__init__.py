"""Datasets as three splits of images in memory: Fashion-MNIST, and images whose factors are known."""

from fmvae.data.fashion_factors import FashionFactors
from fmvae.data.fashion_mnist import CLASS_NAMES, FashionMNISTManager
from fmvae.data.images import ImageData
from fmvae.data.published import DSprites, Shapes3D
from fmvae.data.split import Split, hold_out, subset
from fmvae.data.sprites import Sprites

__all__ = [
    "CLASS_NAMES",
    "DSprites",
    "FashionFactors",
    "FashionMNISTManager",
    "ImageData",
    "Shapes3D",
    "Split",
    "Sprites",
    "hold_out",
    "subset",
]
