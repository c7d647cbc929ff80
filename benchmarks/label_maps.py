"""Time a training step of the convolutional ConditionalVAE, with label maps convolved per class or per image.

    python -m benchmarks.label_maps [--steps 10] [--rounds 5] [--threads 1]

Both sides take turns in one run; prints medians and their ratio.
"""

import argparse
import time
from collections.abc import Callable
from unittest import mock

import torch

from benchmarks.sides import print_times, ratio, record
from fmvae.common.torch_setup import set_up_torch
from fmvae.models import ConditionalVAE, conditional
from fmvae.objectives import vae_loss

BATCH, LATENT, CLASSES = 128, 32, 10


def appended(layer: torch.nn.Module, features: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
    return layer(conditional.with_label_maps(features, one_hot))


def steps(count: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = ConditionalVAE(LATENT, CLASSES, "conv")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(CLASSES, (BATCH,))

    def train() -> None:
        for _ in range(count):
            output = model(x, labels)
            loss, _, _ = vae_loss(output.logits, x, output.mu, output.logvar)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    set_up_torch({"device": "cpu", "threads": given.threads})

    sides = {"appended": appended, "looked up": conditional.convolve_with_label_maps}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(given.rounds + 1):
        for name, convolve in sides.items():
            with mock.patch.object(conditional, "convolve_with_label_maps", convolve):
                train = steps(given.steps)
                start = time.perf_counter()
                train()
                if round_:  # the first warms up
                    times[name].append((time.perf_counter() - start) / given.steps)

    print_times(f"ConditionalVAE (conv), z = {LATENT}, batch {BATCH}, {given.threads} threads, a step", times)
    ratios = {"looked up / appended": ratio(times, "looked up", "appended")}
    record(
        "label_maps", {"cases": {f"conditional_conv, batch {BATCH}, a step": {"times": times, "ratios": ratios}}}
    )


if __name__ == "__main__":
    main()
