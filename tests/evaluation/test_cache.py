"""Features are kept under all that they depend on, and what is kept is what would be computed, or is not used."""

import dataclasses
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fmvae.config import compose
from fmvae.config.project import user_cache
from fmvae.data import Split
from fmvae.evaluation import processor
from fmvae.evaluation.cache import cache_key, kept_record, real_features
from fmvae.evaluation.features import Features, Pixels, Precision, resnet_identity
from fmvae.evaluation.processor import has_bf16
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.files import write_record

ROOT = Path(__file__).resolve().parents[2]
NUM = 6


class Counting:
    """A quick set of features that remembers how often it was asked."""

    name = "resnet18"

    def __init__(self, sha256: str = "ab", precision: Precision = "fp32"):
        self.identity: Mapping[str, Any] = resnet_identity(sha256, precision)
        self.calls = 0

    def __call__(self, batches: Iterable[Tensor], what: str = "", num: int = 0) -> Features:
        self.calls += 1
        x = torch.cat(list(batches)).flatten(1)
        assert len(x) == num
        return Features((x[:, :7] / 3).sin().numpy(), (x[:, 7:10] - x[:, :3]).numpy())


@pytest.fixture
def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 1, 4, 5), dtype=torch.uint8, generator=generator)
    return Split("test", images, torch.arange(10))


def same(a: Features, b: Features) -> bool:
    """To the last bit, of the same type and shape."""

    def bits(features: Features) -> list[tuple]:
        arrays = [array for array in features if array is not None]
        assert len(arrays) == 2
        return [(array.dtype, array.shape, array.tobytes()) for array in arrays]

    return bits(a) == bits(b)


def is_computed(directory: Path, split: Split, num: int, features: Counting) -> bool:
    """Whether asking computes; the answer must be the same either way."""
    before = features.calls
    answer = real_features(directory, split, num, features)
    assert same(answer, type(features)()(iter([split.images[:num].float() / 255]), num=min(num, len(split))))
    return features.calls > before


def entry_of(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def changed_byte(split: Split, image: int) -> Split:
    images = split.images.clone()
    images[image, 0, 3, 4] ^= 1
    return dataclasses.replace(split, images=images)


# --- hit or miss ----------------------------------------------------------------------------------------------


def test_the_second_time_is_a_hit_and_the_same_bits(split, tmp_path):
    first, second = Counting(), Counting()
    made = real_features(tmp_path / "new" / "cache", split, NUM, first)
    kept = real_features(tmp_path / "new" / "cache", split, NUM, second)
    assert (first.calls, second.calls) == (1, 0)
    assert same(made, kept)
    assert kept.features.shape == (NUM, 7)
    assert kept.logits is not None
    assert kept.logits.shape == (NUM, 3)


CHANGES = {
    "one bit of the first image": lambda s: (changed_byte(s, 0), NUM, Counting()),
    "one bit of the last image": lambda s: (changed_byte(s, NUM - 1), NUM, Counting()),
    "the split's name": lambda s: (dataclasses.replace(s, name="train"), NUM, Counting()),
    "one image fewer": lambda s: (s, NUM - 1, Counting()),
    "one image more": lambda s: (s, NUM + 1, Counting()),
    "another shape of the same bytes": lambda s: (
        dataclasses.replace(s, images=s.images.reshape(-1, 1, 5, 4)),
        NUM,
        Counting(),
    ),
    "another extractor": lambda s: (s, NUM, Counting(sha256="ac")),
    "another precision": lambda s: (s, NUM, Counting(precision="bf16")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_thing_that_features_depend_on_is_a_miss_of_its_own(change, split, tmp_path):
    assert is_computed(tmp_path, split, NUM, Counting())
    assert is_computed(tmp_path, *change(split))
    assert not is_computed(tmp_path, split, NUM, Counting())  # both are kept, side by side
    assert not is_computed(tmp_path, *change(split))
    assert len(list(tmp_path.iterdir())) == 2


SAME = {
    "an image beyond those asked for": lambda s: (changed_byte(s, NUM), NUM, Counting()),
    "labels": lambda s: (dataclasses.replace(s, labels=s.labels.flip(0)), NUM, Counting()),
    "memory": lambda s: (dataclasses.replace(s, images=s.images.mT.contiguous().mT), NUM, Counting()),
    "nothing": lambda s: (s, NUM, Counting()),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_all_else_is_a_hit(change, split, tmp_path):
    assert is_computed(tmp_path, split, NUM, Counting())
    assert not is_computed(tmp_path, *change(split))


def test_more_images_than_there_are_is_all_of_them(split):
    assert cache_key(split, 10, Counting()) == cache_key(split, 99, Counting())
    assert cache_key(split, 10, Counting()) != cache_key(split, 9, Counting())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_itself_changes_and_not_the_files_name_alone(change, split):
    assert cache_key(*change(split)) != cache_key(split, NUM, Counting())


# --- one folder, several machines and processes ---------------------------------------------------------------

MACHINES = {
    "another version of torch": (torch, "__version__", "9.9"),
    "another generation": (processor, "_generation", lambda: {"model": "another"}),
    "another processor": (processor, "processor_name", lambda device: "another"),
    "other instructions": (torch.backends.cpu, "get_cpu_capability", lambda: "another"),
    "units for bfloat16, or none": (processor, "has_bf16", lambda device: not has_bf16(device)),
}


@pytest.mark.parametrize("difference", MACHINES.values(), ids=MACHINES)
def test_machines_that_may_round_differently_share_a_folder_and_no_entry(difference, split, tmp_path, monkeypatch):
    assert is_computed(tmp_path, split, NUM, Counting())
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(*difference)
        assert is_computed(tmp_path, split, NUM, Counting())
        assert not is_computed(tmp_path, split, NUM, Counting())
    assert not is_computed(tmp_path, split, NUM, Counting())  # theirs has not taken the place of ours
    assert len(list(tmp_path.iterdir())) == 2


def test_the_number_of_threads_is_not_in_the_key(split):
    threads, before = torch.get_num_threads(), cache_key(split, NUM, Counting())
    try:
        torch.set_num_threads(threads + 1)
        assert cache_key(split, NUM, Counting()) == before
    finally:
        torch.set_num_threads(threads)


def test_two_processes_may_make_an_entry_at_once(split, tmp_path, caplog):
    """The second begins and ends while the first computes."""

    class Overtaken(Counting):
        def __call__(self, *given: Any, **others: Any) -> Features:
            if not list(tmp_path.iterdir()):
                assert is_computed(tmp_path, split, NUM, Counting())
            return super().__call__(*given, **others)

    first = Overtaken()
    made = real_features(tmp_path, split, NUM, first)
    assert first.calls == 1
    assert same(made, real_features(tmp_path, split, NUM, Counting()))
    assert not is_computed(tmp_path, split, NUM, Counting())
    assert caplog.records == []
    entry_of(tmp_path)  # the only file


# --- where it is ----------------------------------------------------------------------------------------------


def test_the_folder_is_the_users_and_may_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compose()["evaluation"]["cache"] == str(tmp_path / "xdg" / "fmvae" / "features")
    assert compose(["run=x"], "evaluate")["evaluation"]["cache"] == compose()["evaluation"]["cache"]
    assert compose(["evaluation.cache=here"])["evaluation"]["cache"] == "here"
    assert compose(["evaluation.cache=null"])["evaluation"]["cache"] is None


@pytest.mark.parametrize("given", ["", "relative"])  # the specification demands that a relative path is ignored
def test_without_a_cache_directory_it_is_in_the_home(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert user_cache() == tmp_path / ".cache" / "fmvae"
    monkeypatch.delenv("HOME")
    assert user_cache() == Path(tempfile.gettempdir(), ".cache", "fmvae")


def test_tests_leave_the_users_own_cache_alone():
    """Also in processes that they start."""
    code = "from fmvae.config.project import user_cache; print(user_cache())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(said.stdout.strip()) == user_cache()
    assert "fmvae-tests-" in str(user_cache())


# --- damage ---------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_the_features(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def put_an_entry_of_another_key_there(path: Path) -> None:
    tensors, meta, _ = load_checkpoint(path)
    wrong = {name: tensor + 1 for name, tensor in tensors.items()}
    save_checkpoint(path, wrong, {"key": meta["key"] | {"extractor_sha256": "other"}})


def put_a_checkpoint_of_something_else_there(path: Path) -> None:
    save_checkpoint(path, {"model.weight": torch.ones(3)}, {"epoch": 3})


def leave_out_the_logits(path: Path) -> None:
    tensors, meta, _ = load_checkpoint(path)
    save_checkpoint(path, {"features": tensors["features"]}, meta)


def put_a_checkpoint_with_a_list_there(path: Path) -> None:
    meta: Any = [1]
    save_checkpoint(path, {"features": torch.ones(3)}, meta)


DAMAGES = [
    truncate,
    empty,
    flip_a_bit_of_the_features,
    put_an_entry_of_another_key_there,
    put_a_checkpoint_of_something_else_there,
    leave_out_the_logits,
    put_a_checkpoint_with_a_list_there,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_computed_again_with_a_warning_and_replaced(damage, split, tmp_path, caplog):
    assert is_computed(tmp_path, split, NUM, Counting())
    path = entry_of(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    with caplog.at_level(logging.WARNING, "fmvae"):
        assert is_computed(tmp_path, split, NUM, Counting())
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "computed again" in record.getMessage()
    assert entry_of(tmp_path).read_bytes() == whole
    caplog.clear()
    assert not is_computed(tmp_path, split, NUM, Counting())
    assert caplog.records == []


# --- without a cache ------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_to_is_done_without(split, tmp_path, caplog):
    """A file stands where the directory should be: not even root can write there."""
    (tmp_path / "cache").write_text("mine")
    for directory in (tmp_path / "cache", tmp_path / "cache" / "deeper"):
        caplog.clear()
        for _ in range(2):
            assert is_computed(directory, split, NUM, Counting())
        assert len(caplog.records) == 2
        assert "are not kept" in caplog.text
        assert str(directory) in caplog.text
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_folder_that_cannot_even_be_looked_into_is_done_without(split, tmp_path, caplog):
    """Its name is too long for any file system; a home of another user gives another OSError at the same place."""
    directory = tmp_path / ("long" * 100)
    with pytest.raises(OSError):
        (directory / "entry").exists()
    assert is_computed(directory, split, NUM, Counting())
    assert "are not kept" in caplog.text


def test_an_entry_that_cannot_be_read_or_replaced_is_done_without(split, tmp_path, caplog):
    """A directory stands where the file should be."""
    assert is_computed(tmp_path, split, NUM, Counting())
    path = entry_of(tmp_path)
    path.unlink()
    path.mkdir()
    assert is_computed(tmp_path, split, NUM, Counting())
    assert "computed again" in caplog.text
    assert "are not kept" in caplog.text
    assert list(tmp_path.iterdir()) == [path]  # no half-written file beside it


def test_none_keeps_nothing(split, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = Counting()
    for _ in range(2):
        real_features(None, split, NUM, features)
    assert features.calls == 2
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_never_kept(split, tmp_path):
    made = real_features(tmp_path, split, NUM, Pixels())
    assert np.array_equal(made.features, Pixels()(iter([split.images[:NUM].float() / 255])).features)
    assert list(tmp_path.iterdir()) == []


# --- records --------------------------------------------------------------------------------------------------

KEY = {"of": "something", "num": 3}
FOUND = {"change": -0.1 / 3, "num_images": 2}


def record_in(directory: Path | None, key: Mapping[str, Any] = KEY) -> tuple[int, dict[str, Any]]:
    """How often the numbers were made, and what was given."""
    made: list[int] = []
    found = kept_record(directory, "numbers", key, lambda: made.append(1) or dict(FOUND))
    return len(made), found


def test_a_record_is_made_once_for_each_key(tmp_path):
    assert record_in(tmp_path / "new") == (1, FOUND)
    assert record_in(tmp_path / "new") == (0, FOUND)
    assert record_in(tmp_path / "new", {**KEY, "num": 4}) == (1, FOUND)
    assert record_in(tmp_path / "new") == (0, FOUND)
    assert record_in(None) == record_in(None) == (1, FOUND)


def another_record(path: Path) -> None:
    write_record(path, {"key": {**KEY, "num": 4}, "found": {"change": 9}})


def a_list(path: Path) -> None:
    path.write_bytes(b"[1]")


def no_key(path: Path) -> None:
    write_record(path, {"found": {"change": 9}})


def changed_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.03", b"0.04"))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("damage", [half, empty, another_record, a_list, no_key, changed_digit])
def test_a_damaged_record_is_made_again_with_a_warning(damage, tmp_path, caplog):
    record_in(tmp_path)
    path = entry_of(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert record_in(tmp_path) == (1, FOUND)
    assert f"{path}: " in caplog.text
    assert "computed again" in caplog.text
    assert path.read_bytes() == whole
    assert record_in(tmp_path) == (0, FOUND)


def test_a_record_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "cache").write_text("mine")
    assert record_in(tmp_path / "cache") == (1, FOUND)
    assert "are not kept" in caplog.text
