"""fmvae.data.fashion_mnist: three splits that are disjoint, complete, stratified, and fixed by the seed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fmvae import rng
from fmvae.data import CLASS_NAMES, FashionMNISTManager, Split
from fmvae.data.sources import DEFAULT_ROOT, FILES, SHA256, RawDataset
from fmvae.errors import ConfigError, DataError
from tests.idx import draw, write_idx_dataset

REAL = pytest.mark.skipif(not all((DEFAULT_ROOT / name).exists() for name in FILES), reason="needs `make data`")
SIZE = 4  # pixels a side, enough to number 65,536 images in the first two


def numbered(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """One image per label; image i carries i in its first two pixels."""
    images = np.zeros((len(labels), SIZE, SIZE), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return images


def number(split: Split) -> list[int]:
    """Which images of the file a split holds."""
    pixels = split.images[:, 0, 0].long()
    return (256 * pixels[:, 0] + pixels[:, 1]).tolist()


def manager(
    train_labels: Any, test_labels: Any = tuple(range(10)), sha256: Any = None, **options: Any
) -> FashionMNISTManager:
    """A manager over numbered images with these labels, as if they had been found on disk."""
    train, test = np.array(train_labels, np.uint8), np.array(test_labels, np.uint8)
    sha256 = sha256 or {"file": "00"}
    raw = RawDataset(numbered(train), train, numbered(test), test, sha256=sha256, root=Path("somewhere"))
    options = {"image_shape": (1, SIZE, SIZE), "val_size": 100} | options
    with patch("fmvae.data.fashion_mnist.load_dataset", return_value=raw):
        return FashionMNISTManager(**options)


def balanced(num: int) -> np.ndarray:
    """Labels in the mixed order of a real file."""
    return np.random.default_rng(0).permutation(np.arange(num) % 10)


def within_one_of_its_share(counts: Counter[int], of: Counter[int]) -> bool:
    """Whether each class has its share of ``of``, to less than one image."""
    num, total = counts.total(), of.total()
    return all(abs(counts[c] - of[c] * num / total) < 1 for c in of)


# --- the split ------------------------------------------------------------------------------------------------


def test_nine_tenths_and_one_tenth_as_54000_and_6000_of_60000():
    data = manager(balanced(600), val_size=60)
    assert [(split.name, len(split)) for split in data.splits] == [("train", 540), ("val", 60), ("test", 10)]
    assert data.splits == (data.train, data.val, data.test)
    assert data.train.labels.bincount().tolist() == [54] * 10
    assert data.val.labels.bincount().tolist() == [6] * 10


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("num_train", [None, 333])
def test_training_and_validation_are_disjoint_and_complete(stratified, num_train):
    data = manager(balanced(600), stratified=stratified, num_train=num_train)
    train, val = number(data.train), number(data.val)
    assert len(val) == len(set(val)) == 100
    assert len(train) == len(set(train)) == (num_train or 600) - 100
    assert not set(train) & set(val)
    if num_train is None:
        assert set(train) | set(val) == set(range(600))


def test_every_image_keeps_its_label():
    labels = balanced(600)
    data = manager(labels, test_labels=labels[:50], num_train=500, num_test=30)
    for split in data.splits:
        assert split.labels.tolist() == labels[number(split)].tolist()


class_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=10).filter(lambda sizes: sum(sizes) >= 2)


@settings(deadline=None)
@given(sizes=class_sizes, share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_validation_has_its_share_of_each_class_to_within_one_even_if_classes_are_unbalanced(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    val_size = max(1, min(len(labels) - 1, round(share * len(labels))))
    data = manager(labels, val_size=val_size, seed=seed)
    assert len(data.val) == val_size
    assert len(data.train) == len(labels) - val_size
    assert sorted(number(data.train) + number(data.val)) == list(range(len(labels)))
    everything = Counter(labels.tolist())
    assert within_one_of_its_share(Counter(data.val.labels.tolist()), everything)
    assert within_one_of_its_share(Counter(data.train.labels.tolist()), everything)


def test_without_stratification_the_shares_are_left_to_chance():
    """The negative control of the property above."""
    data = manager(balanced(600), stratified=False)
    assert not within_one_of_its_share(Counter(data.val.labels.tolist()), Counter(balanced(600).tolist()))


@pytest.mark.parametrize("stratified", [True, False])
def test_the_seed_fixes_the_split(stratified):
    first, same, other = (manager(balanced(600), stratified=stratified, seed=seed) for seed in (0, 0, 1))
    assert number(first.val) == number(same.val) != number(other.val)
    assert number(first.train) == number(same.train) != number(other.train)
    # by chance 100 of 600 share about 17; half would mean that the seed hardly matters
    assert len(set(number(first.val)) & set(number(other.val))) < 50


def test_every_image_is_as_likely_to_be_set_aside_as_any_other():
    """Over 300 seeds an image lands in validation 50 times, give or take; none is fixed to either side."""
    times = Counter(n for seed in range(300) for n in number(manager(balanced(60), val_size=10, seed=seed).val))
    assert sorted(times) == list(range(60))
    assert min(times.values()) > 25  # 50 - 4 standard deviations of 6.5
    assert max(times.values()) < 76


def test_the_split_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    manager(balanced(600), num_train=500)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_test_split_is_the_whole_test_file_in_its_order_whatever_the_seed():
    for seed in (0, 1):
        assert number(manager(balanced(600), balanced(70), seed=seed).test) == list(range(70))


# --- subsets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratified", [True, False])
def test_a_subset_is_fixed_and_the_seed_only_splits_it(stratified):
    subsets = []
    for seed in (0, 1):
        data = manager(balanced(600), balanced(200), num_train=300, num_test=50, seed=seed, stratified=stratified)
        subsets.append((sorted(number(data.train) + number(data.val)), number(data.test)))
        assert len(data.train) == 200
        assert len(data.test) == 50
    assert subsets[0] == subsets[1]


@pytest.mark.parametrize(("num_train", "num_test"), [(300, 50), (301, 57), (600, 200), (101, 1)])
def test_a_subset_has_its_share_of_each_class_to_within_one(num_train, num_test):
    train, test = np.repeat(np.arange(10), np.arange(15, 115, 10)), balanced(200)  # classes of 15 to 105
    train = np.random.default_rng(0).permutation(train)[:600]
    data = manager(train, test, num_train=num_train, num_test=num_test)
    kept = Counter(data.train.labels.tolist() + data.val.labels.tolist())
    assert kept.total() == num_train
    assert within_one_of_its_share(kept, Counter(train.tolist()))
    assert len(data.test) == num_test
    assert within_one_of_its_share(Counter(data.test.labels.tolist()), Counter(test.tolist()))


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("val_size", [0, -1, 600, 601])
def test_a_validation_size_that_leaves_a_split_empty_is_an_error_that_names_it(val_size):
    with pytest.raises(ConfigError, match=rf"data.val_size: {val_size} of 600 training images.*give 1 to 599"):
        manager(balanced(600), val_size=val_size)


@pytest.mark.parametrize("val_size", [1, 599])
def test_the_extreme_validation_sizes_work(val_size):
    assert len(manager(balanced(600), val_size=val_size).val) == val_size


def test_a_validation_size_is_judged_by_the_images_kept():
    with pytest.raises(ConfigError, match=r"data.val_size: 100 of 50 training images"):
        manager(balanced(600), num_train=50)


@pytest.mark.parametrize("num", [0, -5, 601])
def test_a_subset_that_the_file_cannot_give_is_an_error_that_names_it(num):
    with pytest.raises(ConfigError, match=f"data.num_train: {num} images asked of a file of 600; give 1 to 600"):
        manager(balanced(600), num_train=num)
    with pytest.raises(ConfigError, match=f"data.num_test: {num} images asked of a file of 600; give 1 to 600"):
        manager(balanced(600), balanced(600), num_test=num)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 4, 4), (1, 4), (1, 4, 5), (4, 4)])
def test_another_image_shape_than_the_files_hold_is_an_error_that_names_both(image_shape):
    with pytest.raises(DataError, match=r"data.image_shape: the files hold 4x4 grey images, not \[") as caught:
        manager(balanced(600), image_shape=image_shape)
    assert str(list(image_shape)) in str(caught.value)


@pytest.mark.parametrize("largest", [10, 255])
@pytest.mark.parametrize("where", ["train", "test"])
def test_a_label_beyond_the_classes_is_an_error_that_says_how_many_there_are(largest, where):
    labels = {"train": [0, 1, 2, 3], "test": [0, 1, 2, 3]}
    labels[where][2] = largest
    with pytest.raises(DataError, match=f"label {largest}, but only 10 classes.*data.num_classes={largest + 1}$"):
        manager(labels["train"], labels["test"], val_size=1)


# --- what is kept ---------------------------------------------------------------------------------------------


def test_images_are_kept_as_bytes_of_one_channel_and_labels_as_integers():
    for split in manager(balanced(600)).splits:
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(split), 1, SIZE, SIZE)
        assert split.labels.dtype == torch.int64
        assert split.labels.shape == (len(split),)
        assert split.images.device == split.labels.device == torch.device("cpu")


def test_the_origin_of_the_files_is_kept():
    data = manager(balanced(600))
    assert data.root == Path("somewhere")
    assert data.sha256 == {"file": "00"}


def test_the_garments_are_named_only_where_the_files_are_the_published_ones():
    """Ten classes of other files are not garments; one digest that differs is enough."""
    published = manager(balanced(600), sha256=SHA256)
    assert published.class_names == CLASS_NAMES
    assert published.content == "fashion-mnist"
    assert len(CLASS_NAMES) == 10
    assert (CLASS_NAMES[0], CLASS_NAMES[5], CLASS_NAMES[9]) == ("T-shirt/top", "Sandal", "Ankle boot")
    for file in SHA256:
        other = manager(balanced(600), sha256=SHA256 | {file: "f" * 64})
        assert other.class_names == tuple("0123456789")
        assert other.content == ""
    assert manager([0, 1, 2, 0], [0], num_classes=3, val_size=1).class_names == ("0", "1", "2")
    eleven = manager([*balanced(600), 10], num_classes=11, sha256=SHA256)
    assert eleven.class_names == tuple(map(str, range(11)))  # ten names would be one short


@REAL
def test_the_files_on_this_machine_have_the_garments_names():
    found = FashionMNISTManager(download=False)
    assert (found.class_names, found.content) == (CLASS_NAMES, "fashion-mnist")


def test_names_are_given_by_data_class_names():
    assert manager([0, 1, 0], [0], num_classes=2, val_size=1, class_names=["cat", "dog"]).class_names == (
        "cat",
        "dog",
    )
    assert manager(balanced(600), class_names=list("abcdefghij"), sha256=SHA256).class_names == tuple("abcdefghij")
    for names, message in ((["cat"], "1 names for 2 classes"), ([], "0 names"), (["a", "a"], "'a' names two")):
        with pytest.raises(ConfigError, match=f"^data.class_names: {message}"):
            manager([0, 1, 0], [0], num_classes=2, val_size=1, class_names=names)


@pytest.mark.parametrize("gz", [False, True])
def test_files_on_disk_become_batches(tmp_path, gz):
    """The whole way, from IDX files to floats: nothing patched."""
    sha256 = write_idx_dataset(tmp_path, 60, 20, gz=gz)
    data = FashionMNISTManager(tmp_path, download=False, sha256=sha256, val_size=10)
    generator = np.random.default_rng(0)
    (train_images, train_labels), (test_images, test_labels) = draw(60, generator), draw(20, generator)
    assert [len(split) for split in data.splits] == [50, 10, 20]
    assert data.root == tmp_path
    assert data.sha256 == sha256

    ((images, labels),) = data.test.batches(20)
    expected = test_images.astype(np.float32)[:, None] / np.float32(255)
    assert np.array_equal(images.numpy(), expected)
    assert np.array_equal(labels.numpy(), test_labels)

    def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))

    kept = [(split.images[:, 0].numpy(), split.labels.numpy()) for split in (data.train, data.val)]
    found = [row for images, labels in kept for row in rows(images, labels)]
    assert sorted(found) == rows(train_images, train_labels)


# --- looking at it --------------------------------------------------------------------------------------------


def test_report_data_stats_describes_each_split():
    data = manager([0, 0, 1, 2] * 30, [2, 2], num_classes=4, val_size=40)
    report = data.report_data_stats()
    assert list(report) == ["train", "val", "test"]
    assert report["train"]["num_images"] == 80
    assert report["val"]["images_per_class"] == [20, 10, 10, 0]
    assert report["test"]["images_per_class"] == [0, 0, 2, 0]


def test_perform_eda_saves_every_figure_it_returns():
    saved: dict[str, Figure] = {}
    figures = manager(balanced(600)).perform_eda(saved.__setitem__)
    assert list(figures) == ["class_distribution", "pixel_intensity", "mean_intensity", "class_means"]
    assert list(saved) == list(figures)
    assert all(saved[name] is figures[name] for name in figures)


def test_sanity_check_saves_the_figure_it_returns_with_25_images_of_the_training_split():
    data, saved = manager(balanced(600)), {}
    figure = data.sanity_check(saved.__setitem__)
    assert saved == {"sanity_check": figure}
    images, labels = next(data.train.batches(25, rng.stream(0, "shuffle")))
    assert len(figure.axes) == 25
    for axes, image, label in zip(figure.axes, images, labels, strict=True):
        assert axes.get_title() == str(int(label))
        assert np.array_equal(np.asarray(axes.images[0].get_array()), image[0].numpy())


def test_looking_needs_no_place_to_save():
    data = manager(balanced(600))
    assert isinstance(data.sanity_check(), Figure)
    assert all(isinstance(figure, Figure) for figure in data.perform_eda().values())


@pytest.mark.parametrize("num", [1, 3, 5, 24])
def test_sanity_check_shows_the_largest_square_of_a_small_split(num):
    data = manager([0] * (num + 1), val_size=1)
    assert len(data.sanity_check().axes) == int(num**0.5) ** 2


def test_looking_does_not_touch_the_global_generator_nor_the_data():
    data = manager(balanced(600))
    state, images = torch.get_rng_state(), data.train.images.clone()
    data.report_data_stats()
    data.sanity_check()
    data.perform_eda()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data.train.images, images)
