"""Datasets by name: what files of the same form hold, and which they are not taken for."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

import fmvae.data
from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.data import CIFAR10, CLASS_NAMES, EMNIST, KMNIST, MNIST, QMNIST, FashionMNISTManager, ImageData
from fmvae.data.cifar import _batch
from fmvae.data.named import NamedData
from fmvae.errors import ConfigError, DataError
from fmvae.evaluation import Evaluator
from fmvae.models import ConditionalVAE
from fmvae.objectives import ELBO, Bernoulli, Constant
from tests.idx import draw, pack, write_idx_dataset

NUM = {"train": 60, "test": 40}


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def drawn(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {part: draw(num, rng) for part, num in NUM.items()}


def idx_files(images: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """The four archives of MNIST and KMNIST."""
    names = {"train": "train", "test": "t10k"}
    return {
        f"{names[part]}-{what}-idx{dims}-ubyte.gz": gz(pack(array))
        for part, arrays in images.items()
        for what, dims, array in zip(("images", "labels"), (3, 1), arrays, strict=True)
    }


def qmnist_files(images: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """Labels are rows of eight int32, of which the first is the class."""
    files = {}
    for part, (pixels, labels) in images.items():
        rows = np.zeros((len(labels), 8), ">i4")
        rows[:, 0], rows[:, 1:] = labels, 2**20
        files[f"qmnist-{part}-images-idx3-ubyte.gz"] = gz(pack(pixels))
        header = struct.pack(">4BII", 0, 0, 12, 2, *rows.shape)
        files[f"qmnist-{part}-labels-idx2-int.gz"] = gz(header + rows.tobytes())
    return files


def emnist_files(images: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """One zip file of all splits, with transposed images; letters are counted from 1."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split, first, count in (("balanced", 0, 47), ("letters", 1, 26), ("digits", 0, 10)):
            for part, (pixels, labels) in images.items():
                kinds = (np.arange(len(labels)) % count + first).astype(np.uint8)
                for what, array in (("images-idx3", pixels.swapaxes(1, 2)), ("labels-idx1", kinds)):
                    archive.writestr(f"gzip/emnist-{split}-{part}-{what}-ubyte.gz", gz(pack(np.array(array))))
    return {"gzip.zip": packed.getvalue()}


def colours(num: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    pixels = np.random.default_rng(seed).integers(0, 256, (num, 3, 32, 32), dtype=np.uint8)
    return pixels, [k % 10 for k in range(num)]


def cifar_files(protocol: int = 2) -> dict[str, bytes]:
    """Pickled mappings in a tar file, as the published ones are."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for k, name in enumerate(
            ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
        ):
            pixels, labels = colours(20, k)
            content = pickle.dumps(
                {"data": pixels.reshape(20, -1), "labels": labels, "batch_label": name}, protocol
            )
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"cifar-10-python.tar.gz": packed.getvalue()}


FILES: dict[type[NamedData], Callable[[], dict[str, bytes]]] = {
    MNIST: lambda: idx_files(drawn()),
    KMNIST: lambda: idx_files(drawn(1)),
    QMNIST: lambda: qmnist_files(drawn()),
    EMNIST: lambda: emnist_files(drawn()),
    CIFAR10: cifar_files,
}
OPTIONS = {"mnist": MNIST, "kmnist": KMNIST, "qmnist": QMNIST, "emnist": EMNIST, "cifar10": CIFAR10}


def put(kind: type[NamedData], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write files of the form of the published ones, and have them be those."""
    folder.mkdir(parents=True, exist_ok=True)
    files = FILES[kind]()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    assert md5.keys() == kind.md5.keys()
    monkeypatch.setattr(kind, "md5", md5)
    return folder


def published(kind: type[NamedData]) -> dict[str, str]:
    """The digests of the archives that torchvision's class states."""
    theirs: Any = getattr(datasets, kind.torchvision_name)
    if kind is EMNIST:
        return {theirs.url.rpartition("/")[2]: theirs.md5}
    if kind is CIFAR10:
        return {theirs.filename: theirs.tgz_md5}
    if kind is QMNIST:
        pairs = [pair for part in ("train", "test") for pair in theirs.resources[part]]
        return {url.rpartition("/")[2]: md5 for url, md5 in pairs}
    return dict(theirs.resources)


@pytest.mark.parametrize("kind", FILES)
def test_digests_addresses_and_classes_are_those_of_torchvision(kind):
    assert kind.md5 == published(kind)
    urls = kind._urls()
    assert urls.keys() == kind.md5.keys()
    for name, found in urls.items():
        assert found
        assert all(url.startswith("http") and url.endswith(f"/{name}") for url in found)
    theirs: Any = getattr(datasets, kind.torchvision_name)
    if kind is EMNIST:
        assert list(EMNIST.classes["balanced"]) == theirs.classes_split_dict["balanced"]
        assert ["N/A", *EMNIST.classes["letters"]] == theirs.classes_split_dict["letters"]
    elif kind is KMNIST:
        assert list(object.__new__(kind).names()) == theirs.classes
    elif kind is not CIFAR10:  # whose names are in its files
        assert [name[0] for name in theirs.classes] == list(object.__new__(kind).names())


@pytest.mark.parametrize("kind", [MNIST, KMNIST, QMNIST])
@pytest.mark.parametrize("layout", ["", "raw", "{}/raw"])
def test_the_digits_are_those_that_torchvision_reads(tmp_path, monkeypatch, kind, layout):
    put(kind, tmp_path / layout.format(kind.torchvision_name), monkeypatch)
    data = kind(tmp_path, download=False, val_size=10)
    folder = tmp_path / layout.format(kind.torchvision_name)
    for name in kind.md5:  # unpacked, as torchvision has them
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress((folder / name).read_bytes()))
    if folder != tmp_path / kind.torchvision_name / "raw":
        (tmp_path / kind.torchvision_name).mkdir()
        (tmp_path / kind.torchvision_name / "raw").symlink_to(folder)
    for train in (True, False):
        theirs = getattr(datasets, kind.torchvision_name)(tmp_path, train=train)
        labels = theirs.targets[:, 0] if kind is QMNIST else theirs.targets
        ours = data.test if not train else data.train
        if not train:
            assert torch.equal(ours.images[:, 0], theirs.data)
            assert torch.equal(ours.labels, labels.long())
        else:  # all but those held out, in their order
            there = {image.numpy().tobytes(): int(label) for image, label in zip(theirs.data, labels, strict=True)}
            both = torch.cat([data.train.images, data.val.images]), torch.cat([data.train.labels, data.val.labels])
            assert {i.numpy().tobytes(): int(k) for i, k in zip(*both, strict=True)} == there
    assert [len(split) for split in data.splits] == [50, 10, 40]
    assert data.image_shape == (1, 28, 28)
    assert data.val.labels.bincount().tolist() == [1] * 10  # stratified


@pytest.mark.parametrize(("split", "count", "first"), [("balanced", 47, "0"), ("letters", 26, "a")])
def test_emnist_stands_upright_and_counts_from_0(tmp_path, monkeypatch, split, count, first):
    data = EMNIST(put(EMNIST, tmp_path, monkeypatch), split=split, val_size=10)
    upright, _ = drawn()["test"]
    assert np.array_equal(data.test.images[:, 0].numpy(), upright)
    assert not np.array_equal(data.test.images[:, 0].numpy(), upright.swapaxes(1, 2))  # the control
    assert data.test.labels.tolist() == [k % count for k in range(NUM["test"])]
    assert (data.num_classes, data.class_names[0]) == (count, first)  # type: ignore[index]
    config = compose(["data=emnist", f"data.split={split}"])
    assert config["data"]["num_classes"] == count
    with pytest.raises(ConfigError, match=r"^data.split: 'digits' is not one of balanced, letters"):
        compose(["data=emnist", "data.split=digits"])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar10_is_three_channels(tmp_path, monkeypatch, protocol):
    monkeypatch.setitem(FILES, CIFAR10, lambda: cifar_files(protocol))
    data = CIFAR10(put(CIFAR10, tmp_path, monkeypatch), val_size=10)
    pixels, labels = colours(20, 5)
    assert np.array_equal(data.test.images.numpy(), pixels)
    assert data.test.labels.tolist() == labels
    assert len(data.train) + len(data.val) == 100
    assert data.class_names[3] == "cat"  # type: ignore[index]


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_would_call_something_is_refused(protocol):
    content = pickle.dumps({"data": Evil(), "labels": [0]}, protocol)
    with pytest.raises(SystemExit, match="executed"):  # the control: Python's own would call it
        pickle.loads(content)
    with pytest.raises(pickle.UnpicklingError, match="exec is no array of numbers"):
        _batch(content)


@pytest.mark.parametrize(("option", "kind"), OPTIONS.items())
def test_the_option_builds_it_and_its_figures(tmp_path, monkeypatch, option, kind):
    put(kind, tmp_path, monkeypatch)
    config = compose([f"data={option}", f"data.root={tmp_path}", "data.val_size=10"])
    assert config["model"]["image_shape"] == config["data"]["image_shape"]
    node = {key: value for key, value in config["data"].items() if key != "_target_"}
    data = getattr(fmvae.data, config["data"]["_target_"].rpartition(".")[2])(**node)
    assert isinstance(data, kind)
    assert list(data.image_shape) == config["data"]["image_shape"]
    assert data.num_classes == config["data"]["num_classes"] == len(data.class_names)
    assert set(data.perform_eda()) == {"class_distribution", "pixel_intensity", "mean_intensity", "class_means"}
    assert set(data.report_data_stats()) == {"train", "val", "test"}


def test_a_root_and_class_names_change_no_name_and_the_split_does():
    def name(*overrides: str) -> str:
        return RunIdentity.of(compose(["data=emnist", *overrides])).name

    assert name("data.root=/x", "data.download=false", "data.download_to=/y") == name()
    assert name("data.split=letters") != name()
    names = {RunIdentity.of(compose([f"data={option}"])).name for option in (*OPTIONS, "fashion_mnist")}
    assert len(names) == 6


# --- whose they are not ----------------------------------------------------------------------------------------


def evaluated(data: ImageData, *overrides: str) -> Evaluator:
    asked = ["evaluation.fid.num_images=590", "evaluation.fid.features=[resnet18]", "evaluation.cache=null"]
    asked += ["evaluation.accuracy.num_per_class=3", "evaluation.samplers=[]"]
    settings = compose([*asked, *overrides])["evaluation"]
    model = ConditionalVAE(2, hidden_dim=8, num_classes=data.num_classes, image_shape=data.image_shape)
    return Evaluator(model, ELBO(Bernoulli(), Constant(1.0)), data, seed=0, settings=settings)


@pytest.mark.parametrize("kind", [MNIST, KMNIST, QMNIST])
def test_ten_classes_of_the_same_shape_are_no_garments(tmp_path, monkeypatch, kind):
    """Not by their names, and not for the classifier of garments."""
    monkeypatch.setitem(NUM, "test", 600)
    monkeypatch.setitem(NUM, "train", 600)
    data = kind(put(kind, tmp_path, monkeypatch), val_size=10)
    assert (data.num_classes, data.image_shape) == (10, (1, 28, 28))
    assert data.content == ""
    assert not {*data.class_names} & {*CLASS_NAMES}
    misfit = "is a classifier of Fashion-MNIST, and these data are other images"
    with pytest.raises(ConfigError, match=f"'sharp' {misfit}"):
        evaluated(data)
    with pytest.raises(ConfigError, match=f"'blurred' {misfit}"):
        evaluated(data, "evaluation.fid.num_images=0")
    off = ["evaluation.fid.num_images=null", "evaluation.accuracy.num_per_class=null"]
    assert not [name for name in evaluated(data, *off).plan() if "resnet18" in name or "accuracy" in name]


def test_negative_control_the_published_garments_are(tmp_path, monkeypatch):
    digests = write_idx_dataset(tmp_path, 600, 600)
    monkeypatch.setattr("fmvae.data.fashion_mnist.SHA256", digests)
    data = FashionMNISTManager(tmp_path, sha256=digests, val_size=10)
    assert (data.content, data.class_names) == ("fashion-mnist", CLASS_NAMES)
    plan = evaluated(data).plan()
    assert {"fid/resnet18", "accuracy"} <= set(plan)


def test_files_of_one_are_refused_under_the_name_of_another(tmp_path, monkeypatch):
    """The four files of Fashion-MNIST, MNIST and KMNIST have the same names."""
    put(MNIST, tmp_path / "mnist", monkeypatch)
    with pytest.raises(DataError, match=r"is not that of KMNIST \(MD5 .{8}, expected bdb82020\)"):
        KMNIST(tmp_path / "mnist", download=False)
    with pytest.raises(DataError, match=r"is not Fashion-MNIST's|holds more than"):
        FashionMNISTManager(tmp_path / "mnist", download=False)
    write_idx_dataset(tmp_path / "garments", 60, 40, gz=True, seed=7)
    with pytest.raises(DataError, match="is not that of MNIST"):
        MNIST(tmp_path / "garments", download=False)


def test_digits_as_files_of_ones_own_have_no_garments_names(tmp_path):
    digests = write_idx_dataset(tmp_path, 60, 40)
    data = FashionMNISTManager(tmp_path, sha256=digests, val_size=10)
    assert (data.content, data.class_names) == ("", tuple("0123456789"))
