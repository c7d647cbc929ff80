"""Fashion-MNIST: found or fetched, verified, split, kept in memory, looked at."""

from fmvae.data.fashion_mnist import CLASS_NAMES, FashionMNISTManager
from fmvae.data.split import Split

__all__ = ["CLASS_NAMES", "FashionMNISTManager", "Split"]
