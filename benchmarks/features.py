"""Time the classifier's features of images, relative to the shortest possible time on this machine.

    python -m benchmarks.features [--images 1000] [--repeats 5]

The limit is the time for the multiplications of the network's convolutions at the speed of a large float32 matrix
product. Both take turns in one run, so that noise affects both alike. Also reports the effect of bfloat16: the
ratio of times, and the Fréchet distance between the features of the same images in both precisions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.sides import print_times, ratio, record
from fmvae.common.torch_setup import choose_device
from fmvae.data import FashionMNISTManager
from fmvae.evaluation import calculate_fid, features
from fmvae.evaluation.features import ResNetFeatures, real_images
from fmvae.models import FashionResNet18

MATRIX = 2048  # rows and columns of the matrix product that measures peak speed
PRODUCTS = 8


def convolution_flops(side: int) -> float:
    """Count the floating-point operations of the convolutions for one image (2 per multiply-add)."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        total += 2 * output[0].numel() * layer.weight[0].numel()

    network = FashionResNet18().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 1, side, side))
    return total


def seconds(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="per timing; the time is proportional to it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[50, 100, 250, 500])
    parser.add_argument("--weights", default="sharp", help="of FashionResNet18: sharp, blurred or a file")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()

    device = choose_device(given.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    data = FashionMNISTManager(device=device)
    sets = {p: ResNetFeatures(given.weights, data.num_classes, p, device) for p in ("fp32", "bf16")}
    a, b = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
    flops = convolution_flops(data.image_shape[1]) * given.images

    def products() -> None:
        for _ in range(PRODUCTS):
            a @ b

    def extract(precision: str, batch: int) -> None:
        features.EXTRACTION_BATCH = batch
        sets[precision](real_images(data.test, given.images), "benchmark", given.images)

    for _ in range(2):  # the first products and the first batch of a shape are slow
        products()
        extract("fp32", given.batches[0])
    times: dict[int, dict[str, list[float]]] = {
        batch: {"fp32": [], "limit": [], "bf16": []} for batch in given.batches
    }
    for _ in range(given.repeats):
        for batch, of in times.items():
            peak = 2 * MATRIX**3 * PRODUCTS / seconds(products, device)
            of["limit"].append(flops / peak)
            of["fp32"].append(seconds(lambda batch=batch: extract("fp32", batch), device))
            of["bf16"].append(seconds(lambda batch=batch: extract("bf16", batch), device))
    cases = {}
    for batch, of in times.items():
        print_times(f"{given.images:,} images, {batch} at a time", of)
        ratios = {"fp32 / limit": ratio(of, "fp32", "limit"), "bf16 / fp32": ratio(of, "bf16", "fp32")}
        cases[f"{given.images:,} images, {batch} at a time"] = {"times": of, "ratios": ratios}
    both = [
        made(real_images(data.test, given.images), "test images", given.images).features for made in sets.values()
    ]
    distance = calculate_fid(*both) if given.images > both[0].shape[1] else None
    print(f"FID between both precisions' features of the same images: {distance}")
    record("features", {"cases": cases, "fid_between_precisions": distance}, device)


if __name__ == "__main__":
    main()
