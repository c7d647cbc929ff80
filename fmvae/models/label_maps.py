"""Class labels as feature maps beside those of an image, and convolutions over both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call


def with_label_maps(features: Tensor, one_hot: Tensor) -> Tensor:
    """Append one constant map per class to features (B, C, H, W): (B, C + num_classes, H, W)."""
    return torch.cat([features, _maps(one_hot, features.shape[2:])], dim=1)


def _maps(one_hot: Tensor, size: Sequence[int]) -> Tensor:
    return one_hot[:, :, None, None].expand(-1, -1, *size)


def convolve_with_label_maps(layer: nn.Module, features: Tensor, one_hot: Tensor) -> Tensor:
    """Compute ``layer(with_label_maps(features, one_hot))``, up to rounding, but convolve each label map once.

    The maps' contribution to the output depends on the class only, so it is computed once per class, not once per
    image. A training step on a CPU then takes about two thirds of the time (``benchmarks.label_maps``).
    """
    in_dim = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    split = layer.weight.tensor_split([features.shape[1]], dim=in_dim)
    of_features = {"weight": split[0]}
    if layer.bias is not None:  # it comes with the maps
        of_features["bias"] = torch.zeros_like(layer.bias)
    of_maps = {"weight": split[1]}
    classes = torch.eye(one_hot.shape[1], dtype=features.dtype, device=features.device)
    per_class = functional_call(layer, of_maps, _maps(classes, features.shape[2:]))
    # a product with one-hot rows looks the classes up; unlike indexing, its gradient is deterministic on a GPU too
    of_labels = (one_hot @ per_class.flatten(1)).view(-1, *per_class.shape[1:])
    return functional_call(layer, of_features, features) + of_labels
