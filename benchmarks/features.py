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
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.sides import peak_memory, print_times, ratio, record
from fmvae.common.torch_setup import choose_device
from fmvae.data import FashionMNISTManager
from fmvae.evaluation import calculate_fid, features
from fmvae.evaluation.features import Precision, ResNetFeatures, real_images
from fmvae.evaluation.processor import has_bf16
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
    # a CPU tries bf16 even if it has to emulate it
    precisions: list[Precision] = ["fp32", "bf16"] if device.type == "cpu" or has_bf16(device) else ["fp32"]
    sets = {p: ResNetFeatures(given.weights, data.num_classes, p, device) for p in precisions}
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
        batch: {name: [] for name in ("limit", *precisions)} for batch in given.batches
    }
    peaks: dict[int, dict[str, int]] = {batch: {} for batch in given.batches}
    suffix = "_gpu" if device.type == "cuda" else ""

    def cases() -> dict[str, Any]:
        found = {}
        for batch, of in times.items():
            ratios = {"fp32 / limit": ratio(of, "fp32", "limit")}
            ratios |= {"bf16 / fp32": ratio(of, "bf16", "fp32")} if "bf16" in of else {}
            name = f"{given.images:,} images, {batch} at a time"
            found[name] = {"times": of, "ratios": ratios, "peaks": peaks[batch]}
        return found

    for _ in range(given.repeats):
        for batch, of in times.items():
            peak = 2 * MATRIX**3 * PRODUCTS / seconds(products, device)
            of["limit"].append(flops / peak)
            for precision in precisions:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                work = partial(extract, precision, batch)
                of[precision].append(seconds(work, device))
                peaks[batch][precision] = peak_memory()
        record(f"features{suffix}", {"cases": cases()}, device)
    for name, case in cases().items():
        print_times(name, case["times"])
    both = [
        made(real_images(data.test, given.images), "test images", given.images).features for made in sets.values()
    ]
    distance = calculate_fid(*both) if len(both) == 2 and given.images > both[0].shape[1] else None
    print(f"FID between both precisions' features of the same images: {distance}")
    record(f"features{suffix}", {"cases": cases(), "fid_between_precisions": distance}, device)


if __name__ == "__main__":
    main()
