"""Checkpoints: safetensors files. Everything that is not a tensor is stored as JSON in the file's header.

The header also holds a SHA-256 of the content, so that a truncated or changed file is detected. Loading only
parses bytes and JSON; nothing in a checkpoint can be executed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise
from torch import Tensor, nn

from fmvae.common.digests import canonical_json
from fmvae.errors import RunError
from fmvae.runs.files import write_bytes

FORMAT = "fmvae-checkpoint-1"
WAY_OUT = "use another checkpoint of the run, or train it again with restart=true"
HEADER_LENGTH_BYTES = 8  # safetensors: a little-endian u64, then so many bytes of JSON, then the tensors


class Checkpoint(NamedTuple):
    """Tensors by name (on the CPU), all other data as JSON values (``meta``), and the content's SHA-256."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    sha256: str


def _content_sha256(tensors: Mapping[str, Tensor], meta_json: str) -> str:
    content = hashlib.sha256(meta_json.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Write a checkpoint atomically; return its content's SHA-256."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta_json = json.dumps(meta, allow_nan=False)  # unsorted: a resumed history keeps its columns
    sha256 = _content_sha256(on_cpu, meta_json)
    # a single header field: safetensors writes several in random order, but equal runs must have equal files
    header = json.dumps({"format": FORMAT, "meta": meta_json, "sha256": sha256}, sort_keys=True)
    write_bytes(path, serialise(on_cpu, metadata={"fmvae": header}))
    return sha256


def weights_sha256(*modules: nn.Module) -> str:
    """Return the SHA-256 of the parameters and buffers of modules, with their present values."""
    states = (module.state_dict() for module in modules)
    tensors = {f"{place}.{name}": tensor for place, state in enumerate(states) for name, tensor in state.items()}
    return _content_sha256({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, "")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        RunError: the file is missing, not a checkpoint of fmvae, or its content does not match its digest.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(path, "there is no such checkpoint", "train the run first, or name another") from None
    try:
        tensors = parse_tensors(content)
        length = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
        fields = json.loads(content[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length])["__metadata__"]
        header = json.loads(fields["fmvae"])
        meta_json, stored, format_ = header["meta"], header["sha256"], header["format"]
        meta = json.loads(meta_json)
        actual = _content_sha256(tensors, meta_json)
    except (
        safetensors.SafetensorError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        detail = f"no field {error} in its header" if isinstance(error, KeyError) else error
        problem = f"not a readable checkpoint ({len(content)} bytes: {detail})"
        raise RunError(path, problem, WAY_OUT) from None
    if format_ != FORMAT:
        raise RunError(path, f"written in the format {format_!r}, not {FORMAT!r}", WAY_OUT)
    if stored != actual:
        raise RunError(path, "its content does not match its digest", WAY_OUT)
    return Checkpoint(tensors, meta, stored)


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "model") -> None:
    """Copy a checkpoint's tensors whose names begin with ``<prefix>.`` into a module.

    Raises:
        RunError: the names or shapes do not fit the module.
    """
    own = f"{prefix}."
    state = {name[len(own) :]: tensor for name, tensor in tensors.items() if name.startswith(own)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        problem = f"the weights do not fit {type(module).__name__} ({detail})"
        raise RunError("checkpoint", problem, "use the config that the checkpoint was trained with") from None
