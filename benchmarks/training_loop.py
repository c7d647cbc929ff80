"""How close one epoch of BaseVAE at batch 128 comes to its own arithmetic, and how far it is from the usual loop.

    python benchmarks/training_loop.py [--rounds 5]

Three sides, alternating in one run so that a noisy machine disturbs all alike; medians and their ratios:

- ours: ``VAETrainer``'s epoch, on images that stay in memory as uint8;
- floor: the model's own matrix products, forward and backward, and the Adam step, alone;
- usual: torchvision's dataset with ``ToTensor`` through a ``DataLoader`` (its best ``num_workers``, found first)
  and a plain loop over the same model with the default Adam.

Writes what it prints, with machine and versions, as JSON into benchmarks/results/.
"""

import argparse
import gzip
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F

from fmvae import rng
from fmvae.assembly import set_up_torch
from fmvae.data import FashionMNISTManager
from fmvae.data.sources import FILES, load_dataset
from fmvae.models import BaseVAE
from fmvae.objectives import Objective
from fmvae.runs.provenance import provenance
from fmvae.training import VAETrainer

BATCH, LATENT, HIDDEN, PIXELS, VAL_SIZE = 128, 2, 400, 784, 6000
RESULTS = Path(__file__).parent / "results"


def new_model() -> BaseVAE:
    with rng.seeded_init(0):
        return BaseVAE(LATENT, HIDDEN)


def ours() -> Callable[[], None]:
    set_up_torch({"device": "cpu", "threads": None})  # as train.py does
    data = FashionMNISTManager(val_size=VAL_SIZE, batch_size=BATCH)
    model = new_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    trainer = VAETrainer(model, Objective(), data, optimizer, epochs=1000)

    def epoch() -> None:
        trainer.epoch += 1
        trainer._train_epoch(trainer.epoch)

    return epoch


def floor(num_images: int) -> Callable[[], None]:
    """Only what no implementation can leave out: per layer y = x W', dW = dy' x, dx = dy W; and Adam."""
    layers = [(PIXELS, HIDDEN), (HIDDEN, LATENT), (HIDDEN, LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS)]
    weights = [torch.randn(outputs, inputs) / 100 for inputs, outputs in layers]
    inputs = [torch.randn(BATCH, n) for n, _ in layers]
    upstream = [torch.randn(BATCH, n) / 100 for _, n in layers]
    parameters = [p.detach().clone().requires_grad_() for p in new_model().parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) / 100

    def epoch() -> None:
        for _ in range(-(-num_images // BATCH)):
            for i, (x, weight, dy) in enumerate(zip(inputs, weights, upstream, strict=True)):
                torch.mm(x, weight.T)
                torch.mm(dy.T, x)
                if i:  # nobody asks for the gradient of the images
                    torch.mm(dy, weight)
            optimizer.step()

    return epoch


def usual(root: Path, num_workers: int, num_images: int) -> Callable[[], None]:
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import FashionMNIST
    from torchvision.transforms import ToTensor

    images = FashionMNIST(str(root), train=True, transform=ToTensor())
    loader = DataLoader(
        Subset(images, range(num_images)),
        batch_size=BATCH,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    model = new_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> None:
        total = 0.0
        for x, _ in loader:
            output = model(x)
            recon = F.binary_cross_entropy_with_logits(output.logits, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + output.logvar - output.mu.pow(2) - output.logvar.exp())
            loss = (recon + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


class Side:
    """One side in a process of its own, with its own threads and settings, that runs an epoch when asked."""

    def __init__(self, build: Callable[..., Callable[[], None]], *arguments: object):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, build, arguments)
        )  # not a daemon: loaders have children
        self.process.start()
        theirs.close()  # so that a side that fails is an error here, not silence
        self.seconds()  # warm up

    def seconds(self) -> float:
        self.pipe.send("epoch")
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send("end")
        self.process.join()


def _serve(pipe: Connection, build: Callable[..., Callable[[], None]], arguments: tuple) -> None:
    epoch = build(*arguments)
    while pipe.recv() == "epoch":
        start = time.perf_counter()
        epoch()
        pipe.send(time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training epoch beside its alternatives.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds

    raw = load_dataset()
    num_images = len(raw.train_images) - VAL_SIZE
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "FashionMNIST" / "raw"
        folder.mkdir(parents=True)
        for name in FILES:  # where torchvision looks; it wants plain files
            plain = raw.root / name
            content = (
                plain.read_bytes() if plain.exists() else gzip.decompress((raw.root / f"{name}.gz").read_bytes())
            )
            (folder / name).write_bytes(content)
        trial = {}
        for workers in (0, 1, 2):
            side = Side(usual, Path(directory), workers, num_images)
            trial[workers] = side.seconds()
            side.close()
        best = min(trial, key=lambda workers: trial[workers])
        sides = {
            "ours": Side(ours),
            "floor": Side(floor, num_images),
            "usual": Side(usual, Path(directory), best, num_images),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                times[name].append(side.seconds())
        for side in sides.values():
            side.close()

    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"BaseVAE, z = {LATENT}, batch {BATCH}, {num_images:,} images an epoch, {torch.get_num_threads()} threads"
    )
    for name, values in times.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"  {name:<6} {median[name]:6.2f} s  ({spread} over {rounds} rounds)")
    print(f"  usual loop's num_workers: best {best}, of " + ", ".join(f"{w}: {s:.2f} s" for w, s in trial.items()))
    ratios = {"ours / floor": median["ours"] / median["floor"], "usual / ours": median["usual"] / median["ours"]}
    for name, ratio in ratios.items():
        print(f"  {name}  {ratio:.2f}")

    RESULTS.mkdir(exist_ok=True)
    report = {"times": times, "ratios": ratios, "num_workers": best, "provenance": provenance(torch.device("cpu"))}
    (RESULTS / "training_loop.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
