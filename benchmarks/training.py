"""Time training epochs of every model, relative to the usual loop, to the machine's limit, and to pythae.

    python -m benchmarks.training [--models base,beta] [--batches 64,128,512] [--images 10000] [--rounds 5]

The sides take turns in one run, so that noise affects all alike:

- ours: ``VAETrainer``'s epoch, as ``train.py`` sets it up;
- limit: only the model's matrix products and convolutions, forward and backward, and the optimizer's step;
- roofline: an estimate from the machine's measured speeds (``roofline.py``);
- usual: torchvision's dataset with ``ToTensor`` and a ``DataLoader`` (with the best ``num_workers``, found first),
  and a plain loop over the same model, made of torch's own layers, with the default Adam. For BetaVAE the dataset
  has ``Normalize``, too, as in the study that it comes from. Nothing that we set for speed is set there;
- in memory: the usual loop without a ``DataLoader``, on batches from a float tensor;
- pythae: its VAE trainer with the same layer widths, if it is installed (base only).

Writes the printed numbers, with machine and versions, as JSON to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.roofline import estimate, need
from benchmarks.sides import Side, ratio, record, take_turns
from fmvae.assembly import assemble
from fmvae.common.torch_setup import set_up_torch
from fmvae.config import compose
from fmvae.data.sources import FILES, load_dataset
from fmvae.experiments.vae import VAEExperiment
from fmvae.models import VAE, convolution

MODELS = ("base", "beta", "conv", "conditional", "conditional_conv")
LATENT = {"base": 2}  # as in conf/experiment; 10 for other models
TORCHS = {
    convolution.SmallConv2d: nn.Conv2d,
    convolution.SmallConvTranspose2d: nn.ConvTranspose2d,
    convolution.SmallBatchNorm2d: nn.BatchNorm2d,
    convolution.ChannelsLastConv2d: nn.Conv2d,
    convolution.ChannelsLastUnflatten: nn.Unflatten,
}
Work = Callable[[], Any]


def config(model: str, batch: int, images: int, *overrides: str) -> dict[str, Any]:
    return compose(
        [
            *(f"model={model}", f"latent_dim={LATENT.get(model, 10)}", f"data.batch_size={batch}"),
            *(f"data.num_train={images + 1000}", "data.val_size=1000", "device=cpu", "trainer.progress=false"),
            *("evaluation=fast", "figures=none", *overrides),
        ]
    )


def trainer_of(model: str, batch: int, images: int, *overrides: str) -> Any:
    settings = config(model, batch, images, *overrides)
    return VAEExperiment(settings, set_up_torch(settings)).trainer


def ours(model: str, batch: int, images: int, *overrides: str) -> Work:
    trainer = trainer_of(model, batch, images, *overrides)

    def epoch() -> None:
        trainer.epoch += 1
        trainer._train_epoch(trainer.epoch)

    return epoch


def new_model(model: str, batch: int, images: int) -> VAE:
    """Build the model with torch's own layers."""
    settings = config(model, batch, images)
    return with_torchs_layers(assemble(settings, torch.device("cpu")).model)


def with_torchs_layers(network: VAE) -> VAE:
    """Replace the layers of ``fmvae.models.convolution`` with torch's, which compute the same."""
    for module in network.modules():
        module.__class__ = TORCHS.get(type(module), type(module))
    return network


def limit(model: str, batch: int, images: int) -> Work:
    """Run only what every implementation must compute: each layer's product and its two gradients, and Adam."""
    set_up_torch({"device": "cpu", "threads": None})
    network = new_model(model, batch, images)
    products = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel: Any = layer.weight  # in convolve_with_label_maps, a part of the parameter
        weight, x = kernel.detach().clone(), inputs[0].detach().clone()
        dy, of_images = torch.randn_like(output), inputs[0].requires_grad is False
        products.append(
            (_linear if isinstance(layer, nn.Linear) else _convolution)(layer, x, weight, dy, of_images)
        )

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(note)
    network(torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) / 100

    def epoch() -> None:
        for _ in range(-(-images // batch)):
            for product in products:
                product()
            optimizer.step()

    return epoch


def _linear(layer: nn.Module, x: Tensor, weight: Tensor, dy: Tensor, of_images: bool) -> Work:
    def products() -> None:
        torch.mm(x, weight.T)
        torch.mm(dy.T, x)
        if not of_images:  # the images need no gradient
            torch.mm(dy, weight)

    return products


def _convolution(layer: Any, x: Tensor, weight: Tensor, dy: Tensor, of_images: bool) -> Work:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    padding, dilation = list(layer.padding), list(layer.dilation)
    settings = (list(layer.stride), padding, dilation, transposed, list(layer.output_padding), layer.groups)
    wanted = [not of_images, True, False]

    def products() -> None:
        torch.ops.aten.convolution(x, weight, None, *settings)
        torch.ops.aten.convolution_backward(dy, x, weight, None, *settings, wanted)

    return products


def roofline(model: str, batch: int, images: int, dtype: torch.dtype) -> Work:
    """Estimate the time of an epoch from this machine's speeds at the time of the call."""
    x, labels = torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10
    needed = need(new_model(model, batch, images), x, labels)
    return lambda: estimate(needed, -(-images // batch), dtype)


def plain_loop(network: VAE, batches: Iterable, normalized: bool = False) -> Work:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def epoch() -> None:
        total = 0.0
        for images, labels in batches:
            x = images * 0.5 + 0.5 if normalized else images
            output = network(x, labels)
            recon = F.binary_cross_entropy_with_logits(output.logits, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + output.logvar - output.mu.pow(2) - output.logvar.exp())
            loss = (recon + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def usual(model: str, batch: int, images: int, root: str, num_workers: int) -> Work:
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import FashionMNIST
    from torchvision.transforms import Compose, Normalize, ToTensor

    normalized = model == "beta"
    transform = Compose([ToTensor(), Normalize(0.5, 0.5)]) if normalized else ToTensor()
    loader = DataLoader(
        Subset(FashionMNIST(root, train=True, transform=transform), range(images)),
        batch_size=batch,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    return plain_loop(new_model(model, batch, images), loader, normalized)


class InMemory:
    """Batches of a float tensor, in a new random order for every epoch."""

    def __init__(self, batch: int, images: int):
        raw = load_dataset()
        self.x = torch.from_numpy(raw.train_images[:images]).unsqueeze(1).float() / 255
        self.labels = torch.from_numpy(raw.train_labels[:images]).long()
        self.batch = batch

    def __iter__(self):
        for index in torch.randperm(len(self.x)).split(self.batch):
            yield self.x[index], self.labels[index]


def in_memory(model: str, batch: int, images: int) -> Work:
    return plain_loop(new_model(model, batch, images), InMemory(batch, images))


def pythae(batch: int, images: int) -> Work:
    # ignored by the type checker, as pythae is not a dependency and may be missing
    from pythae.data.datasets import BaseDataset  # type: ignore[import]
    from pythae.models import VAE as PythaeVAE  # type: ignore[import]
    from pythae.models import VAEConfig  # type: ignore[import]
    from pythae.models.base.base_utils import ModelOutput  # type: ignore[import]
    from pythae.models.nn import BaseDecoder, BaseEncoder  # type: ignore[import]
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # type: ignore[import]

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mu, self.logvar = nn.Linear(400, LATENT["base"]), nn.Linear(400, LATENT["base"])

        def forward(self, x: Tensor) -> ModelOutput:
            hidden = self.hidden(x.flatten(1))
            return ModelOutput(embedding=self.mu(hidden), log_covariance=self.logvar(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(LATENT["base"], 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()
            )

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z).view(-1, 1, 28, 28))

    data = InMemory(batch, images)
    settings = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT["base"], reconstruction_loss="bce")
    trainer = BaseTrainer(
        PythaeVAE(settings, Encoder(), Decoder()),
        BaseDataset(data.x, data.labels),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            learning_rate=1e-3,
            train_dataloader_num_workers=0,
            no_cuda=True,
        ),
    )
    trainer.prepare_training()
    count = iter(range(1, 1_000_000))
    return lambda: trainer.train_step(next(count))


def torchvision_root(folder: Path) -> str:
    """Write the dataset, decompressed, in torchvision's folder layout; return the root folder."""
    raw, target = load_dataset(), folder / "FashionMNIST" / "raw"
    target.mkdir(parents=True)
    for name in FILES:
        plain = raw.root / name
        content = plain.read_bytes() if plain.exists() else gzip.decompress((raw.root / f"{name}.gz").read_bytes())
        (target / name).write_bytes(content)
    return str(folder)


def best_workers(model: str, batch: int, images: int, root: str) -> int:
    seconds = {}
    for workers in (0, 1, 2, 4):
        with Side(usual, model, batch, images, root, workers) as side:
            seconds[workers] = side.seconds()
    return min(seconds, key=lambda workers: seconds[workers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", default="64,128,512")
    parser.add_argument("--images", type=int, default=10_000, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = torchvision_root(Path(folder))
        for model in given.models.split(","):
            for batch in map(int, given.batches.split(",")):
                case = (model, batch, given.images)
                workers = best_workers(*case, root)
                sides = {
                    "ours": partial(Side, ours, *case),
                    "limit": partial(Side, limit, *case),
                    "roofline fp32": partial(Side, roofline, *case, torch.float32),
                    "roofline bf16": partial(Side, roofline, *case, torch.bfloat16),
                    "usual": partial(Side, usual, *case, root, workers),
                    "in memory": partial(Side, in_memory, *case),
                }
                if model == "base" and importlib.util.find_spec("pythae"):
                    sides["pythae"] = partial(Side, pythae, batch, given.images)
                times = take_turns(sides, given.rounds)
                bounds = [name for name in sides if name == "limit" or name.startswith("roofline")]
                ratios = {f"ours / {name}": ratio(times, "ours", name) for name in bounds}
                others = [name for name in sides if name not in ("ours", *bounds)]
                ratios |= {f"{name} / ours": ratio(times, name, "ours") for name in others}
                name = f"{model}, batch {batch}, {given.images} images"
                cases[name] = {"times": times, "num_workers": workers, "ratios": ratios}
                print(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in ratios.items()), flush=True)
                record("training", {"threads": torch.get_num_threads(), "cases": cases})


if __name__ == "__main__":
    main()
