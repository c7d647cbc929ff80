"""fmvae.data.tables: made once, whole or not at all, by one of many; damage is noticed and mended."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fmvae.data import tables
from fmvae.data.grid import Grid
from fmvae.data.tables import Source, Table, open_table
from fmvae.errors import DataError
from fmvae.runs.files import read_record, write_record

GRID, SHAPE = Grid(("a", "b"), (5, 8)), (3, 4, 2)
FORK = multiprocessing.get_context("fork")


def pictures(black_and_white: bool = False) -> np.ndarray:
    draws = np.random.default_rng(0).integers(0, 2 if black_and_white else 256, (40, *SHAPE))
    return draws.astype(np.uint8)


def opened(folder: Path, made: Path | None = None, pause: float = 0, black_and_white: bool = False) -> Table:
    """Open the table; whoever makes it adds a line to a file, and pauses between two blocks."""

    def blocks() -> Iterator[np.ndarray]:
        for block in np.split(pictures(black_and_white), 4):
            if made:
                with made.open("a", encoding="utf-8") as file:
                    file.write("block\n")
            time.sleep(pause)
            yield block

    return open_table(folder, "test", {"version": 1}, lambda: Source(GRID, SHAPE, blocks(), black_and_white))


def file_of(folder: Path) -> Path:
    (path,) = folder.glob("test-*.npy")
    return path


def wait_for(made: Path) -> None:
    until = time.monotonic() + 60
    while not made.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("black_and_white", [False, True])
def test_images_come_back_as_they_were_in_any_order(tmp_path, black_and_white):
    expected = torch.from_numpy(pictures(black_and_white)) * (255 if black_and_white else 1)
    for _ in range(2):  # made, and read
        table = opened(tmp_path, black_and_white=black_and_white)
        assert (table.grid, table.image_shape) == (GRID, SHAPE)
        for index in (torch.arange(40), torch.randperm(40), torch.tensor([7, 7, 3]), torch.zeros(0).long()):
            assert torch.equal(table.images(index), expected[index])


def test_it_is_made_once_and_its_file_is_opened_by_numpy(tmp_path):
    made = tmp_path / "made"
    opened(tmp_path / "cache", made)
    opened(tmp_path / "cache", made)
    assert made.read_text().split() == ["block"] * 4
    assert np.array_equal(np.load(file_of(tmp_path / "cache")), pictures().reshape(40, -1))


def test_another_definition_is_another_table(tmp_path):
    opened(tmp_path)
    open_table(tmp_path, "test", {"version": 2}, lambda: Source(GRID, SHAPE, iter([255 - pictures()])))
    assert len(list(tmp_path.glob("test-*.npy"))) == 2
    assert torch.equal(opened(tmp_path).images(torch.arange(40)), torch.from_numpy(pictures()))


def test_a_killed_process_leaves_nothing_half(tmp_path):
    cache, made = tmp_path / "cache", tmp_path / "made"
    child = FORK.Process(target=opened, args=(cache, made, 60))
    child.start()
    wait_for(made)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert list(cache.glob(".*.tmp"))  # it was in the middle
    assert not list(cache.glob("*.npy"))
    assert not list(cache.glob("*.json"))
    table = opened(cache)
    assert torch.equal(table.images(torch.arange(40)), torch.from_numpy(pictures()))
    assert not list(cache.glob(".*.tmp"))


def test_an_interruption_removes_what_is_half(tmp_path):
    def blocks() -> Iterator[np.ndarray]:
        yield pictures()[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_table(tmp_path, "test", {"version": 1}, lambda: Source(GRID, SHAPE, blocks()))
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def two_at_once(cache: Path, made: Path) -> tuple[int, list[int | None]]:
    """Let two processes open a table, the second while the first makes it; return blocks made, and exit codes."""
    children = [FORK.Process(target=opened, args=(cache, made, 0.3)) for _ in range(2)]
    children[0].start()
    wait_for(made)
    children[1].start()
    for child in children:
        child.join()
    return len(made.read_text(encoding="utf-8").split()), [child.exitcode for child in children]


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path):
    assert two_at_once(tmp_path / "cache", tmp_path / "made") == (4, [0, 0])


def test_negative_control_without_the_lock_both_make_it(tmp_path, monkeypatch):
    @contextmanager
    def unheld(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(tables.locks, "held", unheld)
    assert two_at_once(tmp_path / "cache", tmp_path / "made")[0] > 4


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda path: flip(path),
    "a short file": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "an empty file": lambda path: path.write_bytes(b""),
    "other numbers": lambda path: np.save(path, np.zeros((40, 24))),
    "a pickle": lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
    "a flipped bit in the record": lambda path: flip(path.with_suffix(".json")),
    "the record of another": lambda path: write_record(
        path.with_suffix(".json"), {**read_record(path.with_suffix(".json")), "key": {}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_made_again(tmp_path, damage, caplog):
    opened(tmp_path)
    DAMAGE[damage](file_of(tmp_path))
    made = tmp_path / "made"
    table = opened(tmp_path, made)
    assert made.exists()
    assert torch.equal(table.images(torch.arange(40)), torch.from_numpy(pictures()))
    (warning,) = {r.getMessage() for r in caplog.records if r.levelname == "WARNING"}
    assert warning.endswith("made again")
    assert "\n" not in warning


@pytest.mark.parametrize("lost", [".npy", ".json"])
def test_half_of_a_table_is_none(tmp_path, lost):
    opened(tmp_path)
    file_of(tmp_path).with_suffix(lost).unlink()
    opened(tmp_path, made := tmp_path / "made")
    assert made.exists()


def test_negative_control_a_flipped_bit_is_another_image(tmp_path, monkeypatch):
    """If the digest were not compared."""
    digest = opened(tmp_path).sha256
    flip(file_of(tmp_path))
    monkeypatch.setattr(tables, "_sha256", lambda rows: digest)
    assert not torch.equal(opened(tmp_path).images(torch.arange(40)), torch.from_numpy(pictures()))


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"/file: the images of test cannot be kept there \(.+\); give data\.cache="
    ):
        opened(tmp_path / "file")
