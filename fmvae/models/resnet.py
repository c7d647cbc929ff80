"""The classifier that the measures use (its features and its predictions), and its weights on disk."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fmvae.config.stored import NotAVAE, read_config
from fmvae.errors import ConfigError, FmvaeError, RunError
from fmvae.runs.checkpoint import load_checkpoint, load_module, save_checkpoint
from fmvae.weights import weights_file

MAX_BYTES = 2**30  # largest weights file that is read; the shipped ones have about 22 million bytes
WAY_OUT = (
    "give sharp or blurred (shipped weights), the directory of a classifier's run, or a file (FashionResNet18 "
    "documents its layout)"
)


class ClassifierOutput(NamedTuple):
    """Output of a classifier: logits (B, num_classes), and features (B, 512), the input of its last layer."""

    logits: Tensor
    features: Tensor


class FashionResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) for small images: a 3x3 stem without stride and without max pooling.

    Takes images (B, channels, H, W) in [0, 1] and normalises them itself. Its state dict has ``backbone.*`` (the
    names of torchvision), ``head.weight`` (num_classes, 512), ``head.bias``, and the scalars ``mean`` and ``std``
    of the training pixels. They are those of all channels together: the stem and its batch norm learn a scale and
    a shift for each channel anyway, and so files have one layout for grey and for RGB images.

    Args:
        num_classes: number of classes.
        channels: of the images: 1 (grey) or 3 (RGB).
    """

    num_features = 512
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int = 10, channels: int = 1):
        super().__init__()
        from torchvision.models import resnet18  # slow to import, and no VAE needs it

        # residual branches start at zero output: the network learns faster (Goyal et al. 2017, sec. 5.1)
        self.backbone: Any = resnet18(zero_init_residual=True)
        self.backbone.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.backbone.maxpool = nn.Identity()
        self.backbone.fc = nn.Identity()
        self.head = nn.Linear(self.num_features, num_classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, x: Tensor) -> ClassifierOutput:
        net = self.backbone
        x = net.conv1((x - self.mean) / self.std)
        # channels last: no reordering between convolutions (it does not matter for the few channels of the input)
        x = net.relu(net.bn1(x.contiguous(memory_format=torch.channels_last)))
        x = net.maxpool(x)
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        features = net.avgpool(x).flatten(1)
        return ClassifierOutput(self.head(features), features)

    @classmethod
    def pretrained(cls, weights: Literal["sharp", "blurred"] = "sharp") -> FashionResNet18:
        """Return the network with weights shipped with fmvae (see ``fmvae.weights``), in evaluation mode."""
        return load_classifier(weights).model


class LoadedClassifier(NamedTuple):
    """A classifier in evaluation mode, the SHA-256 of its file, and the metadata stored in the file."""

    model: FashionResNet18
    sha256: str
    card: dict[str, Any]


def save_classifier(path: Path, model: FashionResNet18, card: Mapping[str, Any]) -> str:
    """Write weights in the format of shipped ones, rounded to float16; return the SHA-256 of the file."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_checkpoint(path, {k: t.half() if t.is_floating_point() else t for k, t in state.items()}, card)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_classifier(
    weights: str | Path, num_classes: int | None = None, channels: int | None = None
) -> LoadedClassifier:
    """Read a FashionResNet18 without executing code from the file.

    Args:
        weights: ``sharp`` or ``blurred`` for the shipped weights; or the directory of a classifier's run; or a
            ``.safetensors`` file written by fmvae (weights or a checkpoint of a classifier's run); or a ``.pt`` or
            ``.pth`` file from elsewhere with the keys ``model_state_dict``, ``mean`` and ``std``.
        num_classes: the number of classes of the data; None accepts any.
        channels: the number of channels of the images; None accepts any.

    Raises:
        RunError: the file is missing or damaged, or holds another network.
    """
    path = weights_file(weights)
    try:
        if path.is_dir():
            raise _without_weights(path)
        size = path.stat().st_size
        if not path.is_file() or size > MAX_BYTES:  # a pipe or device could fill the memory
            raise RunError(path, f"not a weights file (it must be a file of at most {MAX_BYTES:,} bytes)", WAY_OUT)
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: not a valid file name
        raise RunError(path, f"cannot be read ({getattr(error, 'strerror', error)})", WAY_OUT) from None
    if path.suffix in (".pt", ".pth"):
        state, card = _foreign(path, content)
    elif path.suffix == ".safetensors":
        try:
            tensors, card, _ = load_checkpoint(path)
        except RunError as error:
            raise RunError(path, error.problem, WAY_OUT) from None
        state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    else:
        raise RunError(path, f"unknown type of weights file {path.suffix!r}", WAY_OUT)
    return LoadedClassifier(
        _rebuilt(path, state, num_classes, channels), hashlib.sha256(content).hexdigest(), card
    )


def _without_weights(directory: Path) -> RunError:
    """Return the error for a directory that holds no weights of a classifier."""
    try:
        read_config(directory / "config.yaml")
    except NotAVAE:
        problem = "the run of a classifier that has not written its weights yet"
        return RunError(directory, problem, "repeat the command that began it, which completes it")
    except ConfigError:
        return RunError(directory, "not a weights file, nor the directory of a classifier's run", WAY_OUT)
    return RunError(directory, "the run of a VAE, not of a classifier", WAY_OUT)


def _foreign(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state from a ``torch.save`` file: the only place that unpickles, restricted to tensors."""
    try:
        file = io.BytesIO(content)
        if zipfile.is_zipfile(file) and (damaged := zipfile.ZipFile(file).testzip()):
            raise ValueError(f"{damaged} does not match its checksum")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the file's format; its content is checked below
            saved = torch.load(file, map_location="cpu", weights_only=True)
        state = dict(saved["model_state_dict"])
        state |= {name: torch.as_tensor(saved[name], dtype=torch.float32).reshape(()) for name in ("mean", "std")}
    except pickle.UnpicklingError:
        problem = "holds more than tensors, or is damaged; it was not executed"
    except Exception as error:  # damaged bytes can raise almost any: struct.error, OverflowError, ...
        problem = f"not a file of {{model_state_dict, mean, std}} ({type(error).__name__}: {error})"
    else:
        return state, {"layout": "model_state_dict, mean, std"}
    raise RunError(path, problem.partition("\n")[0], WAY_OUT)


def _rebuilt(
    path: Path, state: Mapping[str, Tensor], num_classes: int | None, channels: int | None
) -> FashionResNet18:
    plain = (isinstance(t, Tensor) and t.layout == torch.strided and not t.is_complex() for t in state.values())
    if not all(plain):
        raise RunError(path, "not a FashionResNet18: it holds values other than plain tensors", WAY_OUT)
    head = state.get("head.weight")
    # an expanded view of a few numbers can claim any shape, and a network of that size would fill the memory
    usable = head is not None and head.ndim == 2 and head.numel() and head.is_floating_point()
    if head is None or not usable or not head.is_contiguous():
        raise RunError(path, "not a FashionResNet18: it has no matrix head.weight", WAY_OUT)
    stem = state.get("backbone.conv1.weight")
    found = 3 if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 else 1  # load_module refuses others
    if channels not in (None, found):
        problem = f"a classifier of images with {_channels(found)}, but the data have {_channels(channels)}"
        raise RunError(path, problem, WAY_OUT)
    if num_classes not in (None, len(head)):
        raise RunError(path, f"a classifier of {len(head)} classes, but the data have {num_classes}", WAY_OUT)
    with torch.device("meta"):  # skip initialisation: it is slow, and draws random numbers
        model = FashionResNet18(len(head), found)
    model.to_empty(device="cpu")
    counters = {k: torch.zeros_like(t) for k, t in model.state_dict().items() if k.endswith("batches_tracked")}
    try:
        load_module(model, {f"model.{k}": t for k, t in (counters | dict(state)).items()})
    except FmvaeError as error:
        raise RunError(path, error.problem, WAY_OUT) from None
    except IndexError:  # for a scalar, load_state_dict takes a vector's first element
        raise RunError(path, "an empty tensor where there should be a number", WAY_OUT) from None
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise RunError(path, "weights that are not finite", WAY_OUT)
    if any((tensor < 0).any() for name, tensor in model.state_dict().items() if name.endswith("running_var")):
        raise RunError(path, "variances below zero", WAY_OUT)
    if model.std <= 0:
        raise RunError(path, f"a standard deviation of pixels of {model.std.item():g}", WAY_OUT)
    return model.eval()


def _channels(num: int | None) -> str:
    return "1 channel" if num == 1 else f"{num} channels"
