"""The encoder and the decoder of a model as ONNX, and their comparison with the model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fmvae.config.project import install
from fmvae.errors import ConfigError, RunError, of_the_machine
from fmvae.models import VAE
from fmvae.models.convolution import with_torch_layers
from fmvae.models.modes import in_evaluation_mode
from fmvae.objectives import Likelihood

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5  # of a pixel, and of a latent in units of max(1, its size)
BATCHES = (1, 7)  # sizes that are compared; the export itself records a batch of another size
RECORDED = 3


class Network(NamedTuple):
    """A part of a model, recorded as ONNX.

    Attributes:
        name: of its file, without ``.onnx``.
        content: the file.
        inputs: names of the inputs, in the order of the module's arguments.
        outputs: names of the outputs.
    """

    name: str
    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Encoder(nn.Module):
    """From images (B, C, H, W) in [0, 1] (and labels (B,), if conditional) to mu and logvar, (B, latent_dim)."""

    name, inputs, outputs = "encoder", ("images", "labels"), ("mu", "logvar")

    def __init__(self, model: VAE):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.model.encode(images, labels)


class Decoder(nn.Module):
    """From latents (B, latent_dim) (and labels (B,), if conditional) to expected images (B, C, H, W)."""

    name, inputs, outputs = "decoder", ("z", "labels"), ("mean",)

    def __init__(self, model: VAE, likelihood: Likelihood):
        super().__init__()
        self.model, self.likelihood = model, likelihood

    def forward(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor]:
        return (self.likelihood.mean(self.model.decode(z, labels)),)


def check_installed() -> None:
    """Refuse to export without the libraries of the extra ``export``.

    Raises:
        ConfigError: one of them is missing.
    """
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise ConfigError("export", f"needs {', '.join(missing)}, not installed", install("export"))


def modules_of(model: VAE, likelihood: Likelihood) -> tuple[Encoder, Decoder]:
    """Return the two parts that are exported."""
    return Encoder(model), Decoder(model, likelihood)


def recorded(module: Encoder | Decoder, about: Mapping[str, str]) -> Network:
    """Record a module as ONNX with a dynamic first axis.

    The exporter traces with ``torch.export``: the older one of TorchScript cannot trace ``functional_call``, on
    which models with label maps rely. The layers of ``fmvae.models.convolution`` are replaced by torch's, as there
    is no ONNX operator for their functions.

    Args:
        about: texts to store in the file's metadata.

    Raises:
        RunError: torch cannot record it, as may be for a user's own model.
    """
    model = module.model
    plain: Any = with_torch_layers(module)
    first = torch.rand(RECORDED, *(model.image_shape if isinstance(module, Encoder) else (model.latent_dim,)))
    given = (first, torch.arange(RECORDED) % 2) if model.conditional else (first,)
    names = module.inputs[: len(given)]
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                plain,
                given,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=module.outputs,
                dynamic_shapes=({0: batch},) if len(given) == 1 else ({0: batch}, {0: batch}),
            )
    except Exception as error:  # of torch.export, for what a user's model does
        if failed := of_the_machine(error):
            raise failed from None
        problem = f"torch cannot export its {module.name} to ONNX ({_cause(error)})"
        raise RunError(type(model).__name__, problem, "avoid branches that depend on values of tensors") from None
    proto = program.model_proto
    for node in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        node.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=value)
    return Network(module.name, proto.SerializeToString(deterministic=True), names, module.outputs)


def differences(network: Network, module: Encoder | Decoder, given: Sequence[Tensor]) -> dict[str, float]:
    """Return, by output, the largest difference between ONNX and torch for a batch of inputs.

    Latents are compared in units of max(1, size), as float32 rounds relative to size. A NaN gives infinity.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(network.content, options, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in zip(network.inputs, given, strict=True)}
    found: Any = session.run(list(network.outputs), feeds)
    with torch.no_grad(), in_evaluation_mode(module):
        expected = module(*given)
    return {
        name: _difference(theirs, ours.numpy())
        for name, theirs, ours in zip(network.outputs, found, expected, strict=True)
    }


def _difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    if theirs.shape != ours.shape:
        return float("inf")
    difference = np.abs(theirs.astype(np.float64) - ours) / np.maximum(1, np.abs(ours))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0))


def check_equal(network: Network, module: Encoder | Decoder, batches: Sequence[Sequence[Tensor]]) -> float:
    """Compare an exported network with the model that it came from, through onnxruntime.

    Args:
        batches: of inputs.

    Returns:
        The largest difference.

    Raises:
        RunError: an output differs by more than ``TOLERANCE``.
    """
    largest = 0.0
    for given in batches:
        for output, difference in differences(network, module, given).items():
            if difference > TOLERANCE:
                problem = f"{output} of a batch of {len(given[0])} differs from torch's by {difference:.2g}"
                way_out = f"more than {TOLERANCE:g} is no rounding: please report it with your versions of " + (
                    ", ".join(LIBRARIES)
                )
                raise RunError(f"{network.name}.onnx", problem, way_out)
            largest = max(largest, difference)
    return largest


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost error."""
    while error.__cause__:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says of its own progress and of optional libraries."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for one, level in zip(loggers, before, strict=True):
                one.setLevel(level)
