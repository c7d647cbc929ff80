"""fmvae.data.published: dSprites and 3D Shapes, by small files of the same form; no pickle is ever loaded."""

import hashlib
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmvae.data import DSprites, Shapes3D, published
from fmvae.data.published import digests
from fmvae.errors import ConfigError, DataError
from tests.factor_files import (
    SHAPES_SIZES,
    Bomb,
    dsprites_arrays,
    factors_of,
    sha256_of,
    shapes_arrays,
    stand_in_h5py,
    write_dsprites,
    write_shapes,
)

SMALL = {"num_train": None, "val_size": 20, "num_test": 30}


@pytest.fixture
def bomb(tmp_path) -> Path:
    return tmp_path / "exploded"


def sprites(tmp_path: Path, bomb: Path, **changed: Any) -> DSprites:
    sha256 = write_dsprites(tmp_path / DSprites.file, bomb, **changed)
    return DSprites(tmp_path, sha256=sha256, cache=tmp_path / "cache", **SMALL)


def shapes(tmp_path: Path, **changed: np.ndarray) -> Shapes3D:
    sha256 = write_shapes(tmp_path / Shapes3D.file, **changed)
    return Shapes3D(tmp_path, sha256=sha256, cache=tmp_path / "cache", **SMALL)


# --- dSprites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [4096, 50])
def test_images_and_factors_are_those_of_the_file(tmp_path, bomb, monkeypatch, block):
    monkeypatch.setattr(published, "BLOCK", block)
    data = sprites(tmp_path, bomb)
    arrays = dsprites_arrays()
    rows = {tuple(row[1:]): image for row, image in zip(arrays["latents_classes"], arrays["imgs"], strict=True)}
    assert data.factor_names == ("shape", "scale", "orientation", "x", "y")  # the colour has one value
    assert data.factor_sizes == (2, 3, 2, 4, 3)
    assert data.image_shape == (1, 16, 16)
    assert not data.labelled
    assert sum(map(len, data.splits)) == 144
    for split in data.splits:
        for factors, image in zip(factors_of(split).tolist(), split.images, strict=True):
            assert np.array_equal(image[0], 255 * rows[tuple(factors)])
        assert torch.equal(data.render(factors_of(split)), split.images)


def test_the_description_is_never_unpickled(tmp_path, bomb):
    sprites(tmp_path, bomb)
    assert not bomb.exists()
    with np.load(tmp_path / DSprites.file, allow_pickle=True) as saved:  # negative control
        _ = saved["metadata"]
    assert bomb.exists()


@pytest.mark.parametrize("name", ["imgs", "latents_classes"])
def test_arrays_that_are_pickles_are_refused(tmp_path, bomb, name):
    pickled = np.full(144, Bomb(bomb), dtype=object)
    with pytest.raises(DataError, match="has another form than the published file"):
        sprites(tmp_path, bomb, **{name: pickled})
    assert not bomb.exists()


def test_the_file_is_needed_only_once(tmp_path, bomb):
    data = sprites(tmp_path, bomb)
    sha256 = sha256_of(tmp_path / DSprites.file)
    (tmp_path / DSprites.file).unlink()
    again = DSprites(None, sha256=sha256.upper(), cache=tmp_path / "cache", **SMALL)
    assert torch.equal(again.train.images, data.train.images)


def test_a_root_may_be_the_file_itself(tmp_path, bomb):
    sha256 = write_dsprites(tmp_path / "own.npz", bomb)
    assert len(DSprites(tmp_path / "own.npz", sha256=sha256, cache=tmp_path / "cache", **SMALL).test) == 30


def test_memory_is_bounded_by_blocks(tmp_path, bomb, monkeypatch):
    """64 MB of images are read with far less."""
    num, side = 1024, 256
    classes = np.stack([np.zeros(num), *np.unravel_index(np.arange(num), (4, 4, 4, 4, 4))], 1).astype(np.int64)
    images = np.zeros((num, side, side), np.uint8)
    sha256 = write_dsprites(tmp_path / DSprites.file, bomb, imgs=images, latents_classes=classes)
    del images
    monkeypatch.setattr(published, "BLOCK", 32)
    tracemalloc.start()
    DSprites(tmp_path, sha256=sha256, cache=tmp_path / "cache", num_train=8, val_size=8, num_test=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"peak of memory: {peak / 2**20:.1f} MB of 64")
    assert peak < 16 * 2**20


def unordered() -> np.ndarray:
    classes = dsprites_arrays()["latents_classes"]
    return np.random.default_rng(0).permutation(classes)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"imgs": np.zeros((144, 16, 16))}, r"imgs is float64 \(144, 16, 16\) for 144 rows of latents_classes"),
        ({"imgs": np.zeros((143, 16, 16), np.uint8)}, r"imgs is uint8 \(143, 16, 16\) for 144 rows"),
        ({"imgs": np.full((144, 16, 16), 3, np.uint8)}, "imgs holds 3, and not only 0 and 1"),
        ({"imgs": np.asfortranarray(dsprites_arrays()["imgs"])}, "imgs: the array is in Fortran's order"),
        ({"latents_classes": np.zeros((144, 5), int)}, r"latents_classes is int64 \(144, 5\)"),
        ({"latents_classes": np.zeros((144, 6), int)}, r"144 images for factors of \[1, 1, 1, 1, 1, 1\] values"),
        ({"latents_classes": unordered()}, "its images are not in lexicographic order of their factors"),
    ],
)
def test_a_file_of_another_form_is_told_in_one_line(tmp_path, bomb, changed, problem):
    with pytest.raises(
        DataError, match=rf"npz: has another form than the published file: {problem}.*; give data\."
    ):
        sprites(tmp_path, bomb, **changed)
    assert not list((tmp_path / "cache").glob("*.np*"))


def test_a_damaged_archive_is_told_in_one_line(tmp_path, bomb):
    path = tmp_path / DSprites.file
    write_dsprites(path, bomb)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("imgs.npy").header_offset
    content[start + 600 : start + 700] = bytes(100)
    path.write_bytes(content)
    for own in (content, content[:500], b""):
        path.write_bytes(own)
        with pytest.raises(DataError, match="has another form than the published file") as caught:
            DSprites(tmp_path, sha256=sha256_of(path), cache=tmp_path / "cache", **SMALL)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.np*"))


# --- which file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DSprites, Shapes3D])
def test_without_the_file_one_line_says_where_to_get_it(tmp_path, kind):
    for root in (None, tmp_path, tmp_path / "missing"):
        with pytest.raises(
            DataError, match=rf"^data\.root: there is no '.*'; get the file from {kind.source} and"
        ):
            kind(root, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", [DSprites, Shapes3D])
def test_another_file_than_the_published_one_is_refused_before_it_is_parsed(tmp_path, kind):
    (tmp_path / kind.file).write_bytes(b"neither an archive nor HDF5")
    with pytest.raises(DataError, match=r"is not the file asked for \(\w+ \w{8}, expected \w{8}\); get it from"):
        kind(tmp_path, cache=tmp_path / "cache")


def test_both_digests_of_dsprites_must_match(tmp_path, bomb, monkeypatch):
    write_dsprites(path := tmp_path / DSprites.file, bomb)
    right = digests(path, ["git", "md5"])
    monkeypatch.setattr(DSprites, "published", right)
    DSprites(tmp_path, cache=tmp_path / "cache", **SMALL)
    for method in right:
        monkeypatch.setattr(DSprites, "published", {**right, method: "0" * len(right[method])})
        with pytest.raises(DataError, match=rf"is not the file asked for \({method} "):
            DSprites(tmp_path, cache=tmp_path / "cache", **SMALL)


def test_a_digest_that_is_no_text_is_told_in_one_line(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^data\.sha256: \{'a': 'b'\} is no text; give the file's SHA-256, or null"
    ):
        DSprites(tmp_path, sha256={"a": "b"})  # pyright: ignore[reportArgumentType]


def test_digests_are_those_of_hashlib_and_git(tmp_path):
    (path := tmp_path / "file").write_bytes(b"hello\n")
    assert digests(path, ["git"]) == {"git": "ce013625030ba8dba906f756967f9e9ca394464a"}  # git hash-object
    if shutil.which("git"):
        path.write_bytes(bytes(range(256)) * 9000)
        of_git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout
        assert digests(path, ["git"])["git"] == of_git.strip()
    content = path.read_bytes()
    expected = {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()}
    assert digests(path, ["sha256", "md5"]) == expected


# --- 3D Shapes ---------------------------------------------------------------------------------------------------


def check_shapes(data: Shapes3D) -> None:
    arrays = shapes_arrays()
    factors = list(np.ndindex(*SHAPES_SIZES))
    rows = dict(zip(factors, arrays["images"], strict=True))
    assert data.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    assert (data.factor_sizes, data.image_shape) == (SHAPES_SIZES, (3, 16, 16))
    for split in data.splits:
        for row, image in zip(factors_of(split).tolist(), split.images.numpy(), strict=True):
            assert np.array_equal(image.transpose(1, 2, 0), rows[tuple(row)])
        assert torch.equal(data.render(factors_of(split)), split.images)


@pytest.mark.parametrize("block", [4096, 50])
def test_3d_shapes_are_read_in_colour(tmp_path, monkeypatch, block):
    stand_in_h5py(monkeypatch)
    monkeypatch.setattr(published, "BLOCK", block)
    check_shapes(shapes(tmp_path))


def test_3d_shapes_are_read_by_h5py_itself(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / Shapes3D.file
    with h5py.File(path, "w") as file:
        for name, array in shapes_arrays().items():
            file.create_dataset(name, data=array, compression="gzip")
    check_shapes(Shapes3D(tmp_path, sha256=sha256_of(path), cache=tmp_path / "cache", **SMALL))
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"has another form than the published file: .*; give data"):
        Shapes3D(tmp_path, sha256=sha256_of(path), cache=tmp_path / "cache", **SMALL)
    for group in shapes_arrays():
        with h5py.File(path, "w") as file:
            for name, array in shapes_arrays().items():
                file.create_group(name) if name == group else file.create_dataset(name, data=array)
        with pytest.raises(DataError, match="has another form than the published file"):
            Shapes3D(tmp_path, sha256=sha256_of(path), cache=tmp_path / "cache", **SMALL)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"labels": np.zeros((144, 5))}, r"labels is float64 \(144, 5\)"),
        ({"labels": shapes_arrays()["labels"][::-1]}, "its images are not in lexicographic order"),
        ({"labels": np.zeros((144, 6))}, r"144 images for factors of \[1, 1, 1, 1, 1, 1\] values"),
        ({"images": np.zeros((144, 16, 16), np.uint8)}, r"images is uint8 \(144, 16, 16\) for 144 rows of labels"),
        ({"images": np.zeros((144, 16, 16, 1), np.uint8)}, r"images is uint8 \(144, 16, 16, 1\)"),
    ],
)
def test_3d_shapes_of_another_form_are_told_in_one_line(tmp_path, monkeypatch, changed, problem):
    stand_in_h5py(monkeypatch)
    with pytest.raises(DataError, match=rf"h5: has another form than the published file: {problem}"):
        shapes(tmp_path, **changed)


def test_without_h5py_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ConfigError, match=r"^data: 3D Shapes need the library h5py \(.*\); install it: in the che"
    ):
        shapes(tmp_path)
