"""Images of a folder: decoded as Pillow has them, cached by content, and runs that are named by the content."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.data import ImageFolder, image_folder, listing
from fmvae.data.decoding import decode, read_header
from fmvae.errors import DataError
from tests.data.own_images import encoded, folder

RNG = np.random.default_rng(0)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def images_of(data: ImageFolder) -> torch.Tensor:
    return torch.cat([split.images for split in data.splits])


def by_hand(root: Path, mode: str) -> dict[bytes, str]:
    """Each file's pixels (C, H, W), and the name of its folder."""
    found = {}
    for path in root.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert(mode))
        pixels = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
        found[pixels.tobytes()] = path.parent.name
    return found


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("classes", [("cat", "dog", "emu"), ()])
def test_images_and_classes_are_those_of_the_files(tmp_path, cache, mode, classes):
    root = folder(tmp_path / "images", 12, classes, mode)
    data = ImageFolder(root, cache=cache)
    expected = by_hand(root, mode)
    assert data.image_shape == (1 if mode == "L" else 3, 8, 8)
    assert data.class_names == (classes or None)
    assert {image.numpy().tobytes() for image in images_of(data)} == {*expected}
    for split in data.splits:
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert not classes or classes[label] == expected[image.numpy().tobytes()]
    assert sum(map(len, data.splits)) == 12 * (len(classes) or 1)


def test_parts_are_kept_and_deeper_folders_belong_to_their_class(tmp_path, cache):
    root = tmp_path / "images"
    folder(root / "train", 10)
    folder(root / "test", 4)
    shutil.copytree(root / "train" / "cat", root / "train" / "cat" / "more" / "deeper")
    (root / "README.txt").write_text("text")
    (root / "train" / "cat" / "notes.txt").write_text("text")
    (root / "train" / ".hidden").mkdir()
    data = ImageFolder(root, cache=cache, val_size=6)
    assert [len(split) for split in data.splits] == [24, 6, 8]
    assert {i.numpy().tobytes() for i in data.test.images} == {*by_hand(root / "test", "L")}
    assert torch.cat([data.train.labels, data.val.labels]).bincount().tolist() == [20, 10]


def test_one_class_folder_is_no_class(tmp_path, cache, caplog):
    caplog.set_level("INFO")
    data = ImageFolder(folder(tmp_path / "images", classes=("all",)), cache=cache)
    assert not data.labelled
    assert "one class folder (all), so the images are taken as images without labels" in caplog.text


def bits16(side: int = 8) -> np.ndarray:
    return RNG.integers(0, 65536, (side, side), dtype=np.uint16)


def test_every_good_kind_of_pixels_is_brought_to_8_bits(tmp_path):
    colours = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey, deep = colours[..., 0], bits16()
    palette = Image.fromarray(colours).quantize(16)
    opaque = Image.fromarray(np.dstack([colours, np.full((8, 8), 255, np.uint8)]))
    cases: dict[str, tuple[Image.Image, np.ndarray, bool]] = {
        "grey": (Image.fromarray(grey), grey, True),
        "black and white": (Image.fromarray(grey > 99), (grey > 99) * np.uint8(255), True),
        "16 bits": (Image.fromarray(deep), np.rint(deep / 257).astype(np.uint8), True),
        "RGB": (Image.fromarray(colours), colours, False),
        "palette": (palette, np.asarray(palette.convert("RGB")), False),
        "opaque alpha": (opaque, colours, False),
    }
    for name, (image, expected, is_grey) in cases.items():
        path = tmp_path / "a.png"
        path.write_bytes(encoded(image))
        header = read_header(path, name)
        assert (header.size, header.grey) == ((8, 8), is_grey), name
        found = decode(path, name, header.sha256, (8, 8), 1 if is_grey else 3)
        assert np.array_equal(found, expected[None] if is_grey else expected.transpose(2, 0, 1)), name


def test_photographs_stand_upright(tmp_path):
    pixels = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right by whoever shows it
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    header = read_header(path, "a.png")
    assert header.size == (6, 4)
    found = decode(path, "a.png", header.sha256, (6, 4), 3)
    assert np.array_equal(found.transpose(1, 2, 0), np.rot90(pixels, -1))


def test_sizes_and_colours_are_brought_to_those_asked_for(tmp_path, cache):
    root = folder(tmp_path / "images", classes=())
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = (200, 100, 50)  # the middle, which is kept
    Image.fromarray(wide).save(root / "wide.png")
    data = ImageFolder(root, cache=cache, size=[10, 10])
    assert data.image_shape == (3, 10, 10)
    (found,) = (image for image in images_of(data) if image[:, 5, 5].tolist() == [200, 100, 50])
    assert found[0].min() > 170  # stretched, and not cut, it would be black at the sides
    assert ImageFolder(root, cache=cache, size=10, grey=True).image_shape == (1, 10, 10)


# --- the cache -------------------------------------------------------------------------------------------------


def test_files_are_decoded_once_and_again_if_the_cache_is_damaged(tmp_path, cache, monkeypatch):
    root, decoded = folder(tmp_path / "images"), []
    monkeypatch.setattr(image_folder, "decode", lambda path, *a: decoded.append(path) or decode(path, *a))
    first = ImageFolder(root, cache=cache)
    assert len(decoded) == 24
    assert torch.equal(images_of(ImageFolder(root, cache=cache)), images_of(first))
    assert len(decoded) == 24
    (kept,) = cache.glob("*.npy")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    assert torch.equal(images_of(ImageFolder(root, cache=cache)), images_of(first))
    assert len(decoded) == 48
    Image.fromarray(bits16()).save(root / "cat" / "000.png")
    ImageFolder(root, cache=cache)
    assert len(decoded) == 72


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "images")
    known = listing.headers(listing.listed(root))
    Image.fromarray(bits16()).save(root / "cat" / "000.png")
    monkeypatch.setattr(image_folder, "headers", lambda _: known)
    with pytest.raises(
        DataError, match=r"cat/000.png: was changed while the images were read; repeat the command"
    ):
        ImageFolder(root, cache=cache)


# --- names -----------------------------------------------------------------------------------------------------


def composed(root: Path, *overrides: str) -> dict[str, Any]:
    return compose(["data=image_folder", f"data.root={root}", *overrides])


def name(root: Path, *overrides: str) -> str:
    return RunIdentity.of(composed(root, *overrides)).name


def test_composing_fills_in_what_the_files_say(tmp_path):
    root = folder(tmp_path / "images", mode="RGB")
    found = composed(root, "model=conditional")
    assert found["model"]["image_shape"] == found["data"]["image_shape"] == [3, 8, 8]
    assert found["model"]["num_classes"] == 2
    assert {key: found["data"][key] for key in ("grey", "num_test", "val_size")} == {
        "grey": False,
        "num_test": 2,
        "val_size": 2,
    }
    assert composed(root, "data.size=4", "data.grey=true")["model"]["image_shape"] == [1, 4, 4]


def test_a_changed_byte_or_name_is_another_run_and_a_moved_folder_is_not(tmp_path):
    root = folder(tmp_path / "images")
    before = name(root)
    assert name(Path(shutil.copytree(root, tmp_path / "moved"))) == before
    assert name(root, "data.cache=/x", "data.class_names=[a,b]") == before
    assert name(root, "data.size=8") == name(root, "data.size=[8,8]") != before
    path = root / "cat" / "003.png"
    content = path.read_bytes()
    path.write_bytes(content + b"\0")  # after its end: no pixel changes
    assert name(root) != before
    path.write_bytes(content)
    assert name(root) == before
    path.rename(root / "dog" / "103.png")
    assert name(root) != before


def test_file_names_that_are_no_utf8_are_taken(tmp_path, cache):
    root = folder(tmp_path / "images")
    (root / "cat" / "003.png").rename(os.fsdecode(os.fsencode(root / "cat") + b"/\xff.png"))
    assert len(images_of(ImageFolder(root, cache=cache))) == 24
    assert name(root)


def test_other_files_than_those_composed_are_refused(tmp_path, cache):
    root = folder(tmp_path / "images")
    node = composed(root)["data"] | {"cache": str(cache)}
    node.pop("_target_")
    ImageFolder(**node)
    (root / "cat" / "003.png").unlink()
    with pytest.raises(DataError, match=r"images: holds other images than the run's \(SHA-256 .*; put them back"):
        ImageFolder(**node)
