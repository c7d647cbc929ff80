"""fmvae.data.images: what it takes, what it refuses, and the splits of Fashion-MNIST, as they were before it."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from fmvae.data import FashionMNISTManager, ImageData, hold_out, subset
from fmvae.data.sources import DEFAULT_ROOT, FILES
from fmvae.errors import ConfigError, DataError, FmvaeError

REAL = pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
SIZES = {"train": 6, "val": 3, "test": 4}


def parts(channels: int = 1, labelled: bool = True, classes: int = 3) -> dict[str, Any]:
    """Images (N, C, 4, 5) of three splits, no two alike, with labels 0, 1, 2, 0, ..."""
    draws = np.random.default_rng(0)
    return {
        name: (
            draws.integers(0, 256, (num, channels, 4, 5), dtype=np.uint8),
            np.arange(num) % classes if labelled else None,
        )
        for name, num in SIZES.items()
    }


# --- what it holds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_splits_hold_what_was_given(channels):
    given = parts(channels)
    data = ImageData(**given, batch_size=2)
    assert data.splits == (data.train, data.val, data.test)
    for split in data.splits:
        images, labels = given[split.name]
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert np.array_equal(split.images.numpy(), images)
        assert np.array_equal(split.labels.numpy(), labels)
    assert data.image_shape == (channels, 4, 5)
    assert (data.num_classes, data.class_names, data.labelled) == (3, ("0", "1", "2"), True)
    assert (data.batch_size, data.device, data.content) == (2, torch.device("cpu"), "")


def test_tensors_and_other_whole_numbers_are_taken_too():
    given: dict[str, Any] = {
        name: (torch.from_numpy(images), torch.from_numpy(labels).to(torch.uint8))
        for name, (images, labels) in parts().items()
    }
    assert torch.equal(ImageData(**given).train.labels, torch.tensor([0, 1, 2, 0, 1, 2]))


def test_without_labels_there_are_zeros_and_no_classes():
    data = ImageData(**parts(labelled=False))
    assert (data.num_classes, data.class_names, data.labelled) == (0, None, False)
    for split in data.splits:
        assert torch.equal(split.labels, torch.zeros(SIZES[split.name], dtype=torch.int64))
    images, labels = next(data.train.batches(4))
    assert images.shape == (4, 1, 4, 5)
    assert labels.tolist() == [0] * 4
    assert len(data.test.round_robin(3)) == 3


def test_names_and_numbers_of_classes():
    assert ImageData(**parts(), class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    assert ImageData(**parts(), num_classes=4).class_names == ("0", "1", "2", "3")  # one that no image has
    assert ImageData(**parts(), num_classes=4, class_names=["a", "b", "c", "d"]).num_classes == 4


def test_images_lie_in_memory_in_the_usual_order():
    """An author's transposed array would else reach convolutions in another layout, and give other bits."""
    given: dict[str, Any] = {
        name: (torch.from_numpy(images).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), labels)
        for name, (images, labels) in parts(3).items()
    }
    assert not given["train"][0].is_contiguous()
    data = ImageData(**given)
    assert all(split.images.is_contiguous() for split in data.splits)
    assert data.sha256 == ImageData(**parts(3)).sha256


# --- digests --------------------------------------------------------------------------------------------------


def test_the_digests_are_of_the_content():
    digests = ImageData(**parts()).sha256
    assert list(digests) == [f"{name}-{what}" for what in ("images", "labels") for name in SIZES]
    images = parts()["val"][0]
    assert digests["val-images"] == hashlib.sha256(b"[3, 1, 4, 5]\n" + images.tobytes()).hexdigest()
    assert list(ImageData(**parts(labelled=False)).sha256) == [f"{name}-images" for name in SIZES]
    assert ImageData(**parts(), sha256={"file": "00"}).sha256 == {"file": "00"}


def changed(what: str) -> dict[str, Any]:
    given = parts()
    images, labels = given["val"]
    if what == "pixel":
        images[-1, 0, -1, -1] ^= 1
    elif what == "label":
        labels[0] = 2
    elif what == "shape":
        given = {name: (images.reshape(-1, 1, 5, 4), labels) for name, (images, labels) in given.items()}
    return given


@pytest.mark.parametrize("what", ["nothing", "pixel", "label", "shape"])
def test_another_pixel_label_or_shape_gives_another_digest(what):
    assert (ImageData(**changed(what)).sha256 == ImageData(**parts()).sha256) == (what == "nothing")


# --- what it refuses ------------------------------------------------------------------------------------------


def with_part(name: str, images: Any = None, labels: Any = None) -> dict[str, Any]:
    given = parts()
    own = given[name]
    return given | {name: (own[0] if images is None else images, own[1] if labels is None else labels)}


REFUSED: dict[str, tuple[dict[str, Any], type[FmvaeError], str]] = {
    "floats": (
        with_part("val", images=np.zeros((3, 1, 4, 5), np.float32)),
        DataError,
        r"data \(val images\): float32 \(3, 1, 4, 5\) is not uint8; give whole numbers from 0 \(black\) to 255",
    ),
    "no channels": (
        with_part("test", images=np.zeros((4, 4, 5), np.uint8)),
        DataError,
        r"data \(test images\): uint8 \(4, 4, 5\) is not \(N, C, H, W\)",
    ),
    "channels last": (
        with_part("train", images=np.zeros((6, 4, 5, 3), np.uint8)),
        DataError,
        r"data \(train images\): .* has 4 channels; give 1 \(grey\) or 3 \(RGB\), in the order \(N, C, H, W\)",
    ),
    "two channels": (
        with_part("train", images=np.zeros((6, 2, 4, 5), np.uint8)),
        DataError,
        r"data \(train images\): .* has 2 channels; give 1",
    ),
    "an empty split": (
        with_part("val", images=np.zeros((0, 1, 4, 5), np.uint8), labels=np.zeros(0, np.int64)),
        DataError,
        r"data \(val images\): uint8 \(0, 1, 4, 5\) holds nothing",
    ),
    "two sizes": (
        with_part("test", images=np.zeros((4, 1, 5, 5), np.uint8)),
        DataError,
        r"data: the splits' images differ in shape: train \[1, 4, 5\], val \[1, 4, 5\], test \[1, 5, 5\]",
    ),
    "grey and RGB": (
        with_part("test", images=np.zeros((4, 3, 4, 5), np.uint8)),
        DataError,
        "data: the splits' images differ in shape",
    ),
    "labels of some": (
        parts() | {"val": (parts()["val"][0], None)},
        DataError,
        "data: the val split has no labels, but another has; give labels for all splits, or for none",
    ),
    "too few labels": (
        with_part("val", labels=np.zeros(2, np.int64)),
        DataError,
        r"data \(val labels\): int64 \(2,\) for 3 images; give one label for each image",
    ),
    "one-hot labels": (
        with_part("val", labels=np.eye(3, dtype=np.int64)),
        DataError,
        r"data \(val labels\): int64 \(3, 3\) for 3 images",
    ),
    "float labels": (
        with_part("val", labels=np.zeros(3)),
        DataError,
        r"data \(val labels\): float64 \(3,\) is no whole number for each image; give the classes as int64",
    ),
    "a negative label": (
        with_part("val", labels=np.array([0, -1, 2])),
        DataError,
        r"data \(val labels\): label -1 is negative; count classes from 0",
    ),
    "a label too large": (
        parts() | {"num_classes": 2},
        DataError,
        "data.num_classes: the images have label 2, but only 2 classes are configured; set data.num_classes=3",
    ),
    "a name too few": (
        parts() | {"class_names": ["a", "b"], "num_classes": 3},
        ConfigError,
        "data.class_names: 2 names for 3 classes; give 3, or null",
    ),
    "a name twice": (
        parts() | {"class_names": ["a", "b", "a"]},
        ConfigError,
        "data.class_names: 'a' names two classes",
    ),
    "a name that is no text": (
        parts() | {"class_names": ["a", "b", 3]},
        ConfigError,
        r"data.class_names: \['a', 'b', 3\] is no list of texts",
    ),
    "names in one text": (parts() | {"class_names": "abc"}, ConfigError, "data.class_names: 'abc' is no list"),
    "names without labels": (
        parts(labelled=False) | {"class_names": ["a"]},
        ConfigError,
        "data.class_names: 1 classes, but the data have no labels; give data.class_names=null, or labels",
    ),
    "classes without labels": (
        parts(labelled=False) | {"num_classes": 3},
        ConfigError,
        "data.num_classes: 3 classes, but the data have no labels; give data.num_classes=0, or labels",
    ),
    "no batch": (parts() | {"batch_size": 0}, ConfigError, "data.batch_size: 0 images per batch"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_said_in_one_line(what):
    given, kind, message = REFUSED[what]
    with pytest.raises(kind, match=f"^{message}") as caught:
        ImageData(**given)
    assert "\n" not in str(caught.value)


def test_the_rows_above_are_refused_for_one_thing_alone():
    """What they change is all that is wrong with them."""
    assert ImageData(**parts()).labelled
    assert ImageData(**with_part("val", labels=np.array([0, 1, 2]))).labelled
    assert not ImageData(**parts(labelled=False), num_classes=0).labelled


# --- helpers of authors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_hold_out_draws_by_the_seed_and_evenly(kind):
    labels = kind(np.arange(100) % 5)
    train, val = hold_out(labels, 10, seed=3)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(100))
    assert torch.as_tensor(labels)[val].bincount().tolist() == [2] * 5
    assert torch.equal(val, hold_out(labels, 10, seed=3)[1])
    assert not torch.equal(val, hold_out(labels, 10, seed=4)[1])
    assert torch.as_tensor(labels)[subset(labels, 20)].bincount().tolist() == [4] * 5
    for size in (0, 100):
        with pytest.raises(ConfigError, match=f"^data.val_size: {size} of 100 .*give 1 to 99$"):
            hold_out(labels, size, seed=0)
    with pytest.raises(ConfigError, match=r"^data.num_test: 101 .*give 1 to 100$"):
        subset(labels, 101, "data.num_test")


# --- the splits of Fashion-MNIST, recorded by the commit before this module was made ---------------------------


def fingerprints(data: ImageData) -> dict[str, tuple[int, str, str]]:
    """Number of images, and the first digits of the digests of images and labels."""
    return {
        split.name: (
            len(split),
            *(
                hashlib.sha256(part.numpy().tobytes()).hexdigest()[:16]  # type: ignore[misc]
                for part in (split.images, split.labels)
            ),
        )
        for split in data.splits
    }


BEFORE: list[tuple[dict[str, Any], dict[str, tuple[int, str, str]]]] = [
    (
        {},
        {
            "train": (900, "be339e2805662f8b", "2ea6ecdf928a66ba"),
            "val": (100, "8078c82124608b3c", "6de6da8fae139b47"),
            "test": (800, "16b81477de1cf289", "a6062f931b83ce11"),
        },
    ),
    (
        {"num_train": 333, "num_test": 101, "val_size": 60, "seed": 2},
        {
            "train": (273, "b85b289ffdc20a3c", "1dca22ec3a4ae61c"),
            "val": (60, "d8f18a503ca8d9ae", "481679a510920749"),
            "test": (101, "f38b0b2a10dd4333", "ab212e2d83df1564"),
        },
    ),
    (
        {"stratified": False, "seed": 1},
        {
            "train": (900, "46d7dbfe23df462e", "32e5ce5e775acde5"),
            "val": (100, "acc887121a6eaa92", "15bf5e5039754a40"),
            "test": (800, "16b81477de1cf289", "a6062f931b83ce11"),
        },
    ),
]
BEFORE_PUBLISHED: list[tuple[dict[str, Any], dict[str, tuple[int, str, str]]]] = [
    (
        {},
        {
            "train": (54000, "6212f810ceb048ad", "54b3233995a59995"),
            "val": (6000, "1bbc8aaa810af277", "0afb684c9e376cc4"),
            "test": (10000, "c867c93ff9536059", "d51d859896c55775"),
        },
    ),
    (
        {"num_train": 6000, "num_test": 1000, "val_size": 600},
        {
            "train": (5400, "ca95bf0302d3934c", "a5978b59fd0929ae"),
            "val": (600, "f7e20f0c77611322", "45e5ea74f2049fd3"),
            "test": (1000, "11ea5a55491601a2", "e65b84604913c801"),
        },
    ),
]


@pytest.mark.parametrize(("options", "before"), BEFORE)
def test_the_splits_are_what_they_were(small_data, options, before):
    assert fingerprints(small_data(**options)) == before
    seed = options.get("seed", 0) + 1
    assert fingerprints(small_data(**options | {"seed": seed}))["train"] != before["train"]  # it would be seen


@REAL
@pytest.mark.parametrize(("options", "before"), BEFORE_PUBLISHED)
def test_the_splits_of_the_published_files_are_what_they_were(options, before):
    assert fingerprints(FashionMNISTManager(download=False, **options)) == before


def test_an_allowed_number_of_pixels_but_another_shape_is_refused_by_the_files(small_data):
    with pytest.raises(DataError, match=r"^data.image_shape: the files hold 28x28 grey images, not \[3, 28, 28\]"):
        small_data(image_shape=(3, 28, 28))


def test_arrays_in_another_order_of_memory_are_taken_and_others_refused():
    images, labels = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 1, 4, 4), np.arange(3)
    mirrored = images[..., ::-1]
    data = ImageData(train=(mirrored, labels), val=(images, labels), test=(images, labels))
    assert (data.train.images.numpy() == mirrored).all()
    for given in (np.array(["a", "b", "c"]), np.array([0, None, 2], dtype=object), ["a", "b", "c"]):
        with pytest.raises(DataError, match=r"^data \(val labels\): .* cannot be used as numbers; give a tensor"):
            ImageData(train=(images, labels), val=(images, given), test=(images, labels))  # pyright: ignore
