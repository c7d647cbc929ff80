"""FashionResNet18 is torchvision's ResNet-18 with a small stem; its weights come back or are refused."""

import hashlib
import io
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmvae import rng
from fmvae.errors import FmvaeError, RunError
from fmvae.models import BaseVAE, FashionResNet18, resnet
from fmvae.models.resnet import LoadedClassifier, load_classifier, save_classifier
from fmvae.runs.checkpoint import save_checkpoint
from fmvae.weights import SHIPPED
from tests.models.layers import num_parameters

CARD = {"sha256": "none yet", "accuracy": 0.5, "name": "é"}


def randomised(num_classes: int, seed: int) -> FashionResNet18:
    """A network in evaluation mode whose every number is its own: nothing is zero, one, or its neighbour's."""
    with rng.seeded_init(seed):
        model = FashionResNet18(num_classes)
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "std")) or ("bn" in name and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim < 2 and tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5)
            elif not tensor.is_floating_point():
                tensor.fill_(7)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> FashionResNet18:
    return randomised(3, seed=0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(0))


def foreign(model: FashionResNet18, **others: Any) -> dict[str, Any]:
    """What other people's training scripts save."""
    state = {k: t for k, t in model.state_dict().items() if k not in ("mean", "std")}
    return {"model_state_dict": state, "mean": model.mean.item(), "std": model.std.item()} | others


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def shipped_like(model, tmp_path_factory) -> Path:
    """A file as it is shipped."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_classifier(path, model, CARD)
    return path


def refusal(path: Path | str, num_classes: int | None = None) -> RunError:
    """The error of a file that must not load; any other exception is a failure."""
    with pytest.raises(RunError) as caught:
        load_classifier(path, num_classes)
    assert caught.value.subject == str(path)
    assert "give sharp or blurred (shipped weights)" in caught.value.way_out
    assert "\n" not in caught.value.problem
    return caught.value


# --- the network ----------------------------------------------------------------------------------------------


def reference(num_classes: int) -> nn.Module:
    net: Any = torchvision.models.resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def test_it_is_torchvisions_network_behind_a_normalisation(model, images):
    net, state = reference(3), model.state_dict()
    renamed = {name.removeprefix("backbone.").replace("head.", "fc."): t for name, t in state.items()}
    assert renamed.keys() == net.state_dict().keys() | {"mean", "std"}
    assert {name.split(".")[0] for name in state} == {"backbone", "head", "mean", "std"}
    net.load_state_dict({name: t for name, t in renamed.items() if name not in ("mean", "std")})
    with torch.no_grad():
        logits, features = model(images)
        torch.testing.assert_close(logits, net.eval()((images - state["mean"]) / state["std"]))
        assert not torch.allclose(logits, net(images), rtol=1e-2)  # without the normalisation
        torch.testing.assert_close(logits, features @ state["head.weight"].T + state["head.bias"])
    assert features.shape == (3, FashionResNet18.num_features)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_the_pixels_statistics_are_used_and_not_learnt(name, model, images):
    with torch.no_grad():
        before = model(images).features
        getattr(model, name).add_(0.25)
        after = model(images).features
        getattr(model, name).sub_(0.25)
        assert torch.equal(model(images).features, before)
    assert not torch.allclose(after, before, rtol=1e-3)
    assert name not in dict(model.named_parameters())


@pytest.mark.parametrize("size", [(8, 8), (8, 13), (28, 20), (1, 1)])
def test_images_of_any_size_give_512_features(size, model):
    with torch.no_grad():
        logits, features = model(torch.rand(1, 1, *size))
    assert (logits.shape, features.shape) == ((1, 3), (1, 512))
    assert features.isfinite().all()


def test_the_number_of_parameters_is_that_counted_by_hand(model):
    def block(inside: int, outside: int) -> int:
        shortcut = inside * outside + 2 * outside if inside != outside else 0
        return 9 * inside * outside + 9 * outside**2 + 4 * outside + shortcut

    stages = sum(block(*pair) + block(pair[1], pair[1]) for pair in ((64, 64), (64, 128), (128, 256), (256, 512)))
    assert num_parameters(model) == 9 * 64 + 2 * 64 + stages + (512 * 3 + 3)
    assert num_parameters(model) == 11_167_680 + 1_539


# --- files of ours --------------------------------------------------------------------------------------------


def test_weights_come_back_rounded_to_half_precision_with_their_card_and_digest(model, shipped_like, images):
    loaded = load_classifier(str(shipped_like), num_classes=3)
    assert loaded.sha256 == hashlib.sha256(shipped_like.read_bytes()).hexdigest()
    assert loaded.card == CARD
    assert not loaded.model.training
    state = loaded.model.state_dict()
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(state[name], expected), name
        assert state[name].dtype == tensor.dtype
    assert not torch.equal(state["head.weight"], model.head.weight)  # the rounding does something
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images).logits, model(images).logits, rtol=0.02, atol=0.02)


def test_saving_gives_the_digest_of_the_file_and_equal_weights_equal_files(model, shipped_like, tmp_path):
    again = tmp_path / "again.safetensors"
    assert save_classifier(again, model, CARD) == hashlib.sha256(again.read_bytes()).hexdigest()
    assert again.read_bytes() == shipped_like.read_bytes()
    assert again.stat().st_size < 23e6


def test_a_checkpoint_of_a_training_run_is_taken_too(model, tmp_path):
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    others = {"optimizer.0.momentum_buffer": torch.ones(3), "trainer.last_loss": torch.ones(3)}
    save_checkpoint(tmp_path / "best.safetensors", tensors | others, {"epoch": 3})
    loaded = load_classifier(tmp_path / "best.safetensors")
    assert loaded.card == {"epoch": 3}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_loading_draws_nothing_from_the_global_generator(shipped_like):
    before = torch.get_rng_state()
    load_classifier(shipped_like)
    assert torch.equal(torch.get_rng_state(), before)
    FashionResNet18(2)  # as initial weights would
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("word", ["sharp", "blurred"])
def test_a_word_stands_for_weights_in_the_package(word, shipped_like, monkeypatch):
    import fmvae

    assert SHIPPED[word].parent == Path(fmvae.__path__[0]) / "weights"
    monkeypatch.setitem(SHIPPED, word, shipped_like)
    expected = load_classifier(shipped_like).model.state_dict()
    for found in (load_classifier(word).model, FashionResNet18.pretrained(word)):
        assert all(torch.equal(t, expected[name]) for name, t in found.state_dict().items())
        assert not found.training


# --- files of others ------------------------------------------------------------------------------------------

AS = {"floats": float, "scalars": lambda v: torch.tensor(v), "vectors": lambda v: torch.tensor([v])}


@pytest.mark.parametrize("kind", AS.values(), ids=AS)
def test_a_foreign_file_is_taken_with_statistics_of_any_kind(kind, model, images, tmp_path):
    statistics = {name: kind(getattr(model, name).item()) for name in ("mean", "std")}
    path = saved(tmp_path / "best_model.pth", foreign(model, **statistics, epoch=12))
    loaded = load_classifier(path, num_classes=3)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.model.mean.shape, loaded.model.std.shape) == ((), ())
    with torch.no_grad():
        assert torch.equal(loaded.model(images).logits, model(images).logits)


def test_a_foreign_file_may_lack_counters_and_hold_the_legacy_format(model, images, tmp_path):
    content = foreign(model)
    state = content["model_state_dict"]
    content["model_state_dict"] = {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}
    assert len(content["model_state_dict"]) == len(state) - 20
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    loaded = load_classifier(tmp_path / "old.pt").model
    assert loaded.state_dict()["backbone.bn1.num_batches_tracked"] == 0
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, model(images).logits)


# --- nothing is executed --------------------------------------------------------------------------------------


class Touches:
    """Unpickling one makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def bombs(model: FashionResNet18, sentinel: Path) -> dict[str, bytes]:
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save(foreign(model, extra=Touches(sentinel)), zipped)
    torch.save({"model_state_dict": Touches(sentinel)}, legacy, _use_new_zipfile_serialization=False)
    return {"zip": zipped.getvalue(), "legacy": legacy.getvalue(), "bare": pickle.dumps(Touches(sentinel))}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_pickle_that_would_act_is_refused_and_does_not(suffix, model, tmp_path):
    sentinel, path = tmp_path / "sentinel", tmp_path / f"bomb{suffix}"
    for content in bombs(model, sentinel).values():
        path.write_bytes(content)
        refusal(path)
        assert not sentinel.exists()


def test_negative_control_the_same_pickles_act_when_loaded_without_care(model, tmp_path):
    sentinel = tmp_path / "sentinel"
    for name, content in bombs(model, sentinel).items():
        if name == "bare":
            pickle.loads(content)
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        sentinel.rmdir()


# --- what is refused ------------------------------------------------------------------------------------------


def edited(model: FashionResNet18, edit: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = foreign(model)
    edit(content["model_state_dict"])
    return content


def nan_in(state: dict[str, Any]) -> None:
    state["backbone.bn1.running_var"] = torch.full((64,), float("nan"))


REFUSED: dict[str, tuple[Callable[[FashionResNet18], Any], str]] = {
    "a layer of another shape": (
        lambda m: edited(m, lambda s: s.update({"backbone.conv1.weight": torch.ones(64, 3, 7, 7)})),
        "do not fit FashionResNet18",
    ),
    "a head of other features": (
        lambda m: edited(m, lambda s: s.update({"head.weight": torch.ones(3, 100)})),
        "do not fit FashionResNet18",
    ),
    "no bias": (lambda m: edited(m, lambda s: s.pop("head.bias")), "do not fit FashionResNet18"),
    "one layer more": (
        lambda m: edited(m, lambda s: s.update({"head2.weight": torch.ones(1)})),
        "do not fit FashionResNet18",
    ),
    "a number among the weights": (
        lambda m: edited(m, lambda s: s.update({"head.bias": 3})),
        "values other than plain tensors",
    ),
    "an empty counter": (
        lambda m: edited(m, lambda s: s.update({"backbone.bn1.num_batches_tracked": torch.ones(0)})),
        "num",  # refused by size in newer versions of torch, by an IndexError in older ones
    ),
    "nan": (lambda m: edited(m, nan_in), "not finite"),
    "an infinite mean": (lambda m: foreign(m, mean=float("inf")), "not finite"),
    "a std of zero": (lambda m: foreign(m, std=0.0), "deviation of pixels of 0"),
    "a mean beyond floats": (lambda m: foreign(m, mean=10**400), "OverflowError"),
    "a mean that is no number": (lambda m: foreign(m, mean="x"), "TypeError"),
    "a mean of three channels": (lambda m: foreign(m, mean=torch.ones(3)), "RuntimeError"),
    "no head": (lambda m: edited(m, lambda s: s.pop("head.weight")), "no matrix head.weight"),
    "a head that is no tensor": (
        lambda m: edited(m, lambda s: s.update({"head.weight": [[1.0]]})),
        "values other than plain tensors",
    ),
    "a sparse head": (
        lambda m: edited(m, lambda s: s.update({"head.weight": s["head.weight"].to_sparse_csr()})),
        "values other than plain tensors",
    ),
    "a head of whole numbers": (
        lambda m: edited(m, lambda s: s.update({"head.weight": s["head.weight"].long()})),
        "no matrix head.weight",
    ),
    "a negative variance": (
        lambda m: edited(m, lambda s: s.update({"backbone.bn1.running_var": -s["backbone.bn1.running_var"]})),
        "variances below zero",
    ),
    "no classes": (
        lambda m: edited(m, lambda s: s.update({"head.weight": torch.ones(0, 512)})),
        "no matrix head.weight",
    ),
    "more classes than memory": (
        lambda m: edited(m, lambda s: s.update({"head.weight": torch.ones(1, 1).expand(10**10, 512)})),
        "no matrix head.weight",
    ),
    "no std": (lambda m: {k: v for k, v in foreign(m).items() if k != "std"}, "KeyError"),
    "a bare state": (lambda m: m.state_dict(), "KeyError"),
    "a list": (lambda m: [m.head.weight], "TypeError"),
    "a text": (lambda m: "model_state_dict", "TypeError"),
    "None": (lambda m: None, "TypeError"),
    "a list in a dict": (lambda m: {"model_state_dict": [1], "mean": 0, "std": 1}, "TypeError"),
    "a VAE": (
        lambda m: {"model_state_dict": BaseVAE(2).state_dict(), "mean": 0.0, "std": 1.0},
        "no matrix head.weight",
    ),
    "a VAE's bare state": (lambda m: BaseVAE(2).state_dict(), "KeyError"),
}


@pytest.mark.parametrize(("make", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_foreign_file_of_something_else_is_refused(make, problem, model, tmp_path):
    path = saved(tmp_path / "w.pt", make(model))
    assert problem in refusal(path).problem


def test_a_vaes_checkpoint_and_a_checkpoint_with_a_nan_are_refused(model, tmp_path):
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, {f"model.{k}": t for k, t in BaseVAE(2).state_dict().items()}, {"epoch": 3})
    assert "no matrix head.weight" in refusal(path).problem
    state = model.state_dict() | {"head.bias": torch.tensor([0.0, float("nan"), 0.0])}
    save_checkpoint(path, {f"model.{k}": t for k, t in state.items()}, {})
    assert "not finite" in refusal(path).problem
    save_checkpoint(path, model.state_dict(), {})  # without the prefix
    assert "no matrix head.weight" in refusal(path).problem


def test_a_classifier_of_other_classes_is_refused(model, shipped_like, tmp_path):
    assert refusal(shipped_like, 10).problem == "a classifier of 3 classes, but the data have 10"
    assert refusal(saved(tmp_path / "w.pt", foreign(model)), 2).problem.startswith("a classifier of 3 classes")
    assert isinstance(load_classifier(shipped_like, None), LoadedClassifier)


def test_what_is_no_file_of_weights_is_refused(tmp_path, shipped_like):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "w.onnx").write_bytes(shipped_like.read_bytes())
    problems = {
        "missing.pt": "cannot be read (No such file",
        "missing.safetensors": "cannot be read (No such file",
        "folder.safetensors": "not a weights file",
        "w.onnx": "unknown type of weights file '.onnx'",
        "x" * 5000 + ".pt": "cannot be read (File name too long",
        "a\0b.pt": "cannot be read (embedded null byte",
    }
    for name, problem in problems.items():
        assert problem in refusal(tmp_path / name).problem
    for suffix in (".pt", ".pth", ".safetensors"):
        empty = tmp_path / f"empty{suffix}"
        empty.write_bytes(b"")
        refusal(empty)


def test_a_pipe_or_device_is_refused_unread(tmp_path):
    """The one has no writer, the other no end."""
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zeros.safetensors").symlink_to("/dev/zero")
    for name in ("pipe.pt", "zeros.safetensors"):
        assert "not a weights file" in refusal(tmp_path / name).problem


def test_a_file_too_large_for_any_such_network_is_refused_unread(shipped_like, monkeypatch):
    monkeypatch.setattr(resnet, "MAX_BYTES", shipped_like.stat().st_size)
    load_classifier(shipped_like)
    monkeypatch.setattr(resnet, "MAX_BYTES", shipped_like.stat().st_size - 1)
    assert "not a weights file" in refusal(shipped_like).problem


# --- damage ---------------------------------------------------------------------------------------------------


def test_a_cut_file_is_refused(model, shipped_like, tmp_path):
    foreign_bytes = saved(tmp_path / "whole.pt", foreign(model)).read_bytes()
    for suffix, content in ((".safetensors", shipped_like.read_bytes()), (".pt", foreign_bytes)):
        path = tmp_path / f"cut{suffix}"
        for length in (1, 7, 8, 100, 20_000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            refusal(path)


def test_any_flipped_bit_of_a_file_of_ours_is_noticed(shipped_like, tmp_path):
    content, path, draw = shipped_like.read_bytes(), tmp_path / "flipped.safetensors", random.Random(0)
    (header,) = struct.unpack("<Q", content[:8])
    # half of them in the header, a thousandth of the file
    places = [draw.randrange(8 + header) for _ in range(25)] + [draw.randrange(len(content)) for _ in range(25)]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        refusal(path)


def test_a_flipped_bit_in_a_tensor_of_a_foreign_file_is_noticed(model, tmp_path, monkeypatch):
    """By the checksums of the archive that torch.save writes."""
    path = saved(tmp_path / "w.pt", foreign(model))
    content, draw = path.read_bytes(), random.Random(0)
    weights = content.index(model.head.weight.detach().numpy().tobytes())
    for _ in range(5):
        flipped = bytearray(content)
        flipped[weights + draw.randrange(4 * model.head.weight.numel())] ^= 1 << draw.randrange(4)
        path.write_bytes(flipped)
        assert "does not match its checksum" in refusal(path).problem
    monkeypatch.setattr("zipfile.ZipFile.testzip", lambda self: None)
    load_classifier(path)  # torch itself reads it without a word


def small_foreign(legacy: bool) -> bytes:
    """Never a FashionResNet18, and so always refused, whatever is damaged."""
    buffer = io.BytesIO()
    state = {"head.weight": torch.ones(5), "head.bias": torch.ones(5, dtype=torch.float16)}
    content = {"model_state_dict": state, "mean": torch.ones(1), "std": 0.5, "epoch": 3, "name": "é"}
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_no_damage_to_a_foreign_file_gives_another_error(legacy, tmp_path):
    content, path, draw = small_foreign(legacy), tmp_path / "w.pt", random.Random(0)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 3])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.choice([len(damaged), len(damaged), draw.randrange(len(damaged))])])
        refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_bytes_at_all_give_another_error(tmp_path):
    """Struct and index errors from within the unpickler among them."""
    draw = random.Random(0)
    opcodes = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x85\x88\x8a\x8b\x8c\x93\x94"
    known = [b"", b"\x80\x02X\x01", b"\x80\x02.", b"\x80\x02\x8a\xff", b"PK\x03\x04", b"\x80\x02(", b"\x93NUMPY"]
    short = [b"\x80\x02" + bytes(draw.choices(opcodes, k=draw.randrange(1, 12))) for _ in range(300)]
    for content in known + short:
        for suffix in (".pt", ".safetensors"):
            path = tmp_path / f"w{suffix}"
            path.write_bytes(content)
            with pytest.raises(FmvaeError):
                load_classifier(path)


def test_negative_control_torch_raises_many_kinds_of_errors():
    raised = set()
    for content in (b"", b"\x80\x02X\x01", b"\x80\x02.", b"PK\x03\x04", b"\x80\x02\x00"):
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:
            raised.add(type(error))
    assert {EOFError, struct.error, IndexError, RuntimeError, pickle.UnpicklingError} == raised
