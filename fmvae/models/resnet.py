"""The classifier whose features and labels the measures use."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class ClassifierOutput(NamedTuple):
    """One pass through a classifier: logits (B, num_classes) and the features (B, 512) they are linear in."""

    logits: Tensor
    features: Tensor


class FashionResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) for small grey images: a 3x3 stem without stride and without max pooling.

    Takes images (B, 1, H, W) in [0, 1] and normalises them itself.

    Args:
        num_classes: number of classes.
    """

    num_features = 512

    def __init__(self, num_classes: int = 10):
        super().__init__()
        from torchvision.models import resnet18  # slow to import, and no VAE needs it

        # residual branches that start as nothing: the network learns faster (Goyal et al. 2017, sec. 5.1)
        self.backbone = resnet18(zero_init_residual=True)
        self.backbone.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.backbone.maxpool = nn.Identity()
        self.backbone.fc = nn.Identity()
        self.head = nn.Linear(self.num_features, num_classes)
        self.register_buffer("mean", torch.zeros(()))  # of the pixels it was trained on
        self.register_buffer("std", torch.ones(()))

    def forward(self, x: Tensor) -> ClassifierOutput:
        net = self.backbone
        x = net.conv1((x - self.mean) / self.std)
        # channels last: convolutions then need no reordering between them (a grey input has no such order)
        x = net.relu(net.bn1(x.contiguous(memory_format=torch.channels_last)))
        x = net.maxpool(x)
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        features = net.avgpool(x).flatten(1)
        return ClassifierOutput(self.head(features), features)
