"""Datasets as three splits of images in memory: published ones, images whose factors are known, and one's own."""

from fmvae.data.arrays import Arrays
from fmvae.data.cifar import CIFAR10
from fmvae.data.fashion_factors import FashionFactors
from fmvae.data.fashion_mnist import CLASS_NAMES, FashionMNISTManager
from fmvae.data.image_folder import ImageFolder
from fmvae.data.images import ImageData
from fmvae.data.named import EMNIST, KMNIST, MNIST, QMNIST
from fmvae.data.published import DSprites, Shapes3D
from fmvae.data.split import Split, hold_out, subset
from fmvae.data.sprites import Sprites

__all__ = [
    "CIFAR10",
    "CLASS_NAMES",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "QMNIST",
    "Arrays",
    "DSprites",
    "FashionFactors",
    "FashionMNISTManager",
    "ImageData",
    "ImageFolder",
    "Shapes3D",
    "Split",
    "Sprites",
    "hold_out",
    "subset",
]
