"""fmvae.runs.checkpoint: what was saved is what is loaded, or an error; and nothing in a file is executed."""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise
from torch import Tensor, nn

from fmvae.errors import RunError
from fmvae.models import BaseVAE
from fmvae.runs.checkpoint import load_checkpoint, load_module, save_checkpoint

META = {"epoch": 3, "config_sha256": "ab" * 32, "history": [{"epoch": 3, "val/objective": 1 / 3}], "name": "é"}


def small_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"model.a": torch.randn(3, 2, generator=generator), "model.b": torch.randn(3, 2, generator=generator)}


@pytest.fixture
def path(tmp_path) -> Path:
    save_checkpoint(tmp_path / "c.safetensors", small_tensors(), META)
    return tmp_path / "c.safetensors"


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Our header field and the tensors of a file, read without the code under test."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fmvae"]), parse_tensors(content)


def put(path: Path, header: Any, tensors: dict[str, Tensor]) -> None:
    path.write_bytes(serialise(tensors, metadata={"fmvae": json.dumps(header)}))


def content_digest(tensors: dict[str, Tensor], meta_json: str) -> str:
    """The digest of a checkpoint's content, as its documentation describes it."""
    sha256 = hashlib.sha256(meta_json.encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)], separators=(",", ":")).encode())
        sha256.update(tensor.numpy().tobytes())
    return sha256.hexdigest()


# --- what is saved is what is loaded --------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool],
    ids=str,
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype, shape, tmp_path):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensor = (numbers * 3).abs().to(dtype)
    save_checkpoint(tmp_path / "c", {"t": tensor}, {})
    loaded = load_checkpoint(tmp_path / "c").tensors["t"]
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(loaded, tensor)


def test_numbers_that_compare_oddly_come_back_too(tmp_path):
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    save_checkpoint(tmp_path / "c", {"t": odd}, {})
    loaded = load_checkpoint(tmp_path / "c").tensors["t"]
    assert torch.equal(loaded.view(torch.int32), odd.view(torch.int32))


def test_views_and_parameters_are_saved_as_what_they_show(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"transposed": whole.T, "part": whole[:, 1:3], "parameter": nn.Parameter(torch.ones(2))}
    save_checkpoint(tmp_path / "c", tensors, {})
    loaded = load_checkpoint(tmp_path / "c").tensors
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_meta_comes_back_with_every_digit_and_its_order(path):
    meta = load_checkpoint(path).meta
    assert meta == META
    assert list(meta) == list(META)


def test_a_checkpoint_without_tensors_is_one_too(tmp_path):
    save_checkpoint(tmp_path / "c", {}, META)
    assert load_checkpoint(tmp_path / "c").tensors == {}


def test_the_digest_is_that_of_the_documentation(path):
    header, tensors = parts(path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.sha256 == header["sha256"] == content_digest(tensors, header["meta"])
    assert checkpoint.sha256 == save_checkpoint(path, small_tensors(), META)


def test_equal_content_gives_equal_files(tmp_path):
    names = [f"layer{n}.weight" for n in range(20)]
    for file, order in (("a", names), ("b", names[::-1])):
        save_checkpoint(tmp_path / file, {name: torch.full((3,), float(len(name))) for name in order}, META)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_bit_gives_another_digest(tmp_path):
    a, b = small_tensors(), small_tensors()
    b["model.a"].view(torch.int32)[0, 0] ^= 1
    assert save_checkpoint(tmp_path / "a", a, META) != save_checkpoint(tmp_path / "b", b, META)


def test_a_meta_that_json_cannot_say_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError):
        save_checkpoint(tmp_path / "c", {}, {"best": float("nan")})
    assert list(tmp_path.iterdir()) == []


# --- damage ---------------------------------------------------------------------------------------


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, {f"t{n}": torch.randn(50) for n in range(10)}, META)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 64), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            load_checkpoint(path)
    path.write_bytes(whole)
    load_checkpoint(path)


def test_an_appended_byte_is_noticed(path):
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(RunError):
        load_checkpoint(path)


def test_a_flipped_bit_is_noticed_in_whatever_byte(path):
    whole = path.read_bytes()
    missed = []
    for place in range(0, 8 * len(whole), 3):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except RunError:
            continue
        missed.append(place)
    assert missed == []


def test_500_random_flips_of_a_training_checkpoint_are_noticed(tmp_path):
    path, rng = tmp_path / "c", np.random.default_rng(0)
    save_checkpoint(path, BaseVAE(2, hidden_dim=8).state_dict(), META)
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for place in rng.integers(8 * len(whole), size=500):
        damaged = whole.copy()
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged.tobytes())
        with pytest.raises(RunError):
            load_checkpoint(path)


def swap_tensors(header, tensors):
    return header, {"model.a": tensors["model.b"], "model.b": tensors["model.a"]}


def rename_a_tensor(header, tensors):
    return header, {"model.a": tensors["model.a"], "model.c": tensors["model.b"]}


def reshape_a_tensor(header, tensors):
    return header, {**tensors, "model.a": tensors["model.a"].reshape(2, 3)}


def reinterpret_a_tensor(header, tensors):
    return header, {**tensors, "model.a": tensors["model.a"].view(torch.int32)}


def drop_a_tensor(header, tensors):
    return header, {"model.a": tensors["model.a"]}


def edit_meta(header, tensors):
    return {**header, "meta": header["meta"].replace('"epoch": 3', '"epoch": 4')}, tensors


@pytest.mark.parametrize(
    "edit", [swap_tensors, rename_a_tensor, reshape_a_tensor, reinterpret_a_tensor, drop_a_tensor, edit_meta]
)
def test_an_edit_is_noticed_by_the_digest_alone(edit, path):
    header, tensors = edit(*parts(path))
    put(path, header, tensors)
    with pytest.raises(RunError, match="does not match its digest"):
        load_checkpoint(path)
    put(path, {**header, "sha256": content_digest(tensors, header["meta"])}, tensors)
    loaded = load_checkpoint(path)  # with the digest renewed, nothing else is wrong with it
    assert loaded.meta == json.loads(header["meta"])
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**12, 200_000_000, 0])
def test_an_impossible_header_length_is_an_error_and_takes_no_memory(length, path):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "field",
    ["", "null", "3", "[]", "{}", "[" * 100_000, '{"format": "fmvae-checkpoint-1", "meta": "{}"}']
    + [f'{{"format": "fmvae-checkpoint-1", "sha256": "", "meta": {meta}}}' for meta in ("3", '"["', r'"\ud800"')],
)
def test_a_header_of_another_kind_is_a_run_error(field, path):
    path.write_bytes(serialise(small_tensors(), metadata={"fmvae": field}))
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_safetensors_of_others_are_refused(path):
    path.write_bytes(serialise(small_tensors()))
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_another_format_is_named(path):
    header, tensors = parts(path)
    put(path, {**header, "format": "fmvae-checkpoint-9"}, tensors)
    with pytest.raises(RunError, match="'fmvae-checkpoint-9', not 'fmvae-checkpoint-1'"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "c")


# --- nothing is executed --------------------------------------------------------------------------


class Trap:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "c"
    torch.save({"model": Trap(sprung)}, path)
    with pytest.raises(RunError):
        load_checkpoint(path)
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists()  # the trap works


def test_no_pickle_on_the_way_in_or_out(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("pickle")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (pickle, "dumps")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    save_checkpoint(tmp_path / "c", small_tensors(), META)
    assert load_checkpoint(tmp_path / "c").meta == META
    with pytest.raises(AssertionError, match="pickle"):
        torch.load(tmp_path / "c")


# --- into a model ---------------------------------------------------------------------------------


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def test_load_model_copies_the_model_tensors_and_looks_at_no_others():
    source, target = BaseVAE(2, hidden_dim=8), BaseVAE(2, hidden_dim=8)
    assert not torch.equal(source.mu.weight, target.mu.weight)
    load_module(target, {**model_tensors(source), "optimizer.0.step": torch.tensor(3.0)})
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
    assert target.mu.weight.data_ptr() != source.mu.weight.data_ptr()


@pytest.mark.parametrize("other", [BaseVAE(3, hidden_dim=8), BaseVAE(2, hidden_dim=9), nn.Linear(2, 2)], ids=str)
def test_load_model_refuses_another_models_weights(other):
    model = BaseVAE(2, hidden_dim=8)
    with pytest.raises(RunError, match="the weights do not fit BaseVAE"):
        load_module(model, model_tensors(other))


def test_load_model_refuses_missing_and_surplus_weights():
    model = BaseVAE(2, hidden_dim=8)
    tensors = model_tensors(model)
    with pytest.raises(RunError, match="the weights do not fit BaseVAE"):
        load_module(model, {**tensors, "model.surplus": torch.zeros(1)})
    tensors.pop("model.mu.bias")
    with pytest.raises(RunError, match="the weights do not fit BaseVAE"):
        load_module(model, tensors)
