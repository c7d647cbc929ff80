"""Write the folder of an export: two networks, draws from a learned prior, and a README with an example."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from string import Template

import numpy as np
import torch
from torch import Tensor

from fmvae import rng
from fmvae.common.class_names import readable
from fmvae.common.phases import phase
from fmvae.data.split import to_float
from fmvae.export.networks import BATCHES, Network, check_equal, check_installed, modules_of, recorded
from fmvae.measurement.load import LoadedRun
from fmvae.runs.files import make_directory, write_bytes

NAME = "export"  # in the directory of a run
DRAWS = "prior_draws.npy"
NUM_DRAWS = 10_000
README = Path(__file__).parent / "README.template.md"
log = logging.getLogger("fmvae")


def export_run(loaded: LoadedRun, folder: Path) -> float:
    """Write encoder, decoder and README of a loaded run, after comparing both networks with the model.

    Returns:
        The largest difference between ONNX and torch.

    Raises:
        ConfigError: the extra ``export`` is not installed.
        RunError: a network cannot be exported, or differs from the model. Nothing is written.
    """
    check_installed()
    model, likelihood = loaded.parts.model, loaded.parts.objective.likelihood
    checkpoint = loaded.results["checkpoint"]
    about = {
        "fmvae.run": loaded.run.name,
        "fmvae.checkpoint": f"{checkpoint['which']}, epoch {checkpoint['epoch']}",
        "fmvae.checkpoint_sha256": checkpoint["sha256"],
    }
    draws = _draws(loaded)
    networks, largest = [], 0.0
    for module, batches in zip(
        modules_of(model, likelihood), (_images(loaded), _latents(loaded, draws)), strict=True
    ):
        with phase(f"{module.name} to ONNX"):
            network = recorded(module, about)
            largest = max(largest, check_equal(network, module, [*batches]))
            networks.append(network)
    make_directory(folder)
    for network in networks:
        write_bytes(folder / f"{network.name}.onnx", network.content)
    if model.prior_density().is_standard:
        (folder / DRAWS).unlink(missing_ok=True)  # of an earlier export of another run
    else:
        file = io.BytesIO()
        np.save(file, draws.numpy())
        write_bytes(folder / DRAWS, file.getvalue())
    write_bytes(folder / "README.md", readme(loaded, networks, largest).encode())
    return largest


def _labels(loaded: LoadedRun, num: int) -> tuple[Tensor, ...]:
    """Return labels (num,) in which all classes occur in turn; nothing for a model that takes none."""
    return (torch.arange(num) % loaded.parts.data.num_classes,) if loaded.parts.model.conditional else ()


def _images(loaded: LoadedRun) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of test images, then of pixels drawn uniformly from [0, 1], which no image is like."""
    stream = rng.stream(loaded.config["seed"], "sampling")
    for size in BATCHES:
        x = to_float(loaded.parts.data.test.images[:size])
        noise = torch.rand((size, *loaded.parts.model.image_shape), generator=stream)
        for images in (x, noise) if len(x) == size else (noise,):
            yield images, *_labels(loaded, size)


def _latents(loaded: LoadedRun, draws: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield batches of draws from the prior, then of the same three times as far from the origin."""
    for size in BATCHES:
        for scale in (1, 3):
            yield scale * draws[:size], *_labels(loaded, size)


@torch.no_grad()
def _draws(loaded: LoadedRun) -> Tensor:
    """Return draws from the model's prior (NUM_DRAWS, latent_dim), float32."""
    stream = rng.stream(loaded.config["seed"], "sampling")
    return loaded.parts.model.prior_density().sample(NUM_DRAWS, stream).float()


def readme(loaded: LoadedRun, networks: list[Network], largest: float) -> str:
    """Return the text of README.md: what the files take and give, and code that uses them."""
    model, data, config = loaded.parts.model, loaded.parts.data, loaded.config
    image = ", ".join(map(str, model.image_shape))
    labels = (
        f"`labels` (batch,) int64 from 0 to {data.num_classes - 1} (others are not refused, and give nonsense)"
    )
    checkpoint = loaded.results["checkpoint"]
    names = ", ".join(f"{i} {name}" for i, name in enumerate(readable(data.class_names or ())))
    standard, conditional = model.prior_density().is_standard, model.conditional
    binary = config["data"].get("binarize")
    return Template(README.read_text(encoding="utf-8")).substitute(
        run=loaded.run.name,
        checkpoint=f"{checkpoint['which']} checkpoint (epoch {checkpoint['epoch']})",
        sha256=checkpoint["sha256"],
        image=image,
        latent_dim=model.latent_dim,
        labels=f"; {labels}" if conditional else "",
        classes=f"\nClasses: {names}.\n" if conditional and names else "",
        binary="\nThe run was trained on binarised images: give the encoder pixels 0 and 1.\n" if binary else "",
        prior="N(0, 1)" if standard else f"a learned prior, of which `{DRAWS}` has {NUM_DRAWS:,} draws (float32)",
        draw=f"rng.standard_normal((7, {model.latent_dim}), dtype=np.float32)"
        if standard
        else f'rng.choice(np.load(here / "{DRAWS}"), 7, replace=False)',
        images=f"rng.random((7, {image}), dtype=np.float32)",
        more=', "labels": labels' if conditional else "",
        make_labels=f"labels = np.arange(7) % {data.num_classes}\n" if conditional else "",
        largest=f"{largest:.1g}",
        sizes=" and ".join(map(str, BATCHES)),
    )
