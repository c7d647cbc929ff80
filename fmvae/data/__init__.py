"""Datasets as three splits of images in memory, and Fashion-MNIST: find or download, verify, split, plot."""

from fmvae.data.fashion_mnist import CLASS_NAMES, FashionMNISTManager
from fmvae.data.images import ImageData
from fmvae.data.split import Split, hold_out, subset

__all__ = ["CLASS_NAMES", "FashionMNISTManager", "ImageData", "Split", "hold_out", "subset"]
