"""Every source in its order, every kind of damage, and fetchers that race or die.

A small generated dataset stands in for Fashion-MNIST: its hashes and sizes are patched in as the published
ones, so that what runs here is what runs for users.
"""

import errno
import fcntl
import functools
import gzip
import hashlib
import http.server
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmvae.data import sources
from fmvae.data.sources import FILES, load_dataset
from fmvae.errors import DataError
from tests.idx import draw, pack, write_idx_dataset

NUM_TRAIN, NUM_TEST = 30, 20
IMAGES = "train-images-idx3-ubyte"


class World:
    """Four sources that can be stocked, and a record of the fetches."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        self.stock, self.root = tmp_path / "stock", tmp_path / "root"  # the user's root
        self.default, self.system = tmp_path / "default", tmp_path / "system"
        self.hashes = write_idx_dataset(self.stock, NUM_TRAIN, NUM_TEST)
        self.fetched: list[str] = []
        self.online: set[str] = set()
        self.originals = {name: getattr(sources, name) for name in ("_fetch_from_mirrors", "_fetch_from_debian")}
        monkeypatch.setattr(sources, "SHA256", self.hashes)
        monkeypatch.setattr(sources, "SIZES", {name: (self.stock / name).stat().st_size for name in FILES})
        monkeypatch.setattr(sources, "DEFAULT_ROOT", self.default)
        monkeypatch.setattr(sources, "SYSTEM_ROOT", self.system)
        monkeypatch.setattr(sources, "_fetch_from_mirrors", functools.partial(self._fetch, "mirrors"))
        monkeypatch.setattr(sources, "_fetch_from_debian", functools.partial(self._fetch, "debian"))

    def _fetch(self, source: str, staging: Path, expected) -> Path:
        self.fetched.append(source)
        if source not in self.online:
            raise DataError(source, "is offline", "go on")
        return Path(shutil.copytree(self.stock, staging / "copy"))

    def fill(self, folder: Path, gz: bool = False) -> Path:
        write_idx_dataset(folder, NUM_TRAIN, NUM_TEST, gz=gz)
        return folder


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    return World(tmp_path, monkeypatch)


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Reading


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("layout", ["", "raw", "FashionMNIST/raw"])
def test_loads_the_very_arrays_written(world, gz, layout):
    world.fill(world.root / layout, gz)
    data = load_dataset(world.root)
    rng = np.random.default_rng(0)
    for images, labels, num in (
        (data.train_images, data.train_labels, NUM_TRAIN),
        (data.test_images, data.test_labels, NUM_TEST),
    ):
        expected_images, expected_labels = draw(num, rng)
        assert images.dtype == labels.dtype == np.uint8
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)
        assert images.flags.writeable  # torch.from_numpy warns of arrays that are not
    assert data.sha256 == world.hashes
    assert data.root == world.root


def test_reading_leaves_no_trace(world):
    world.fill(world.root)
    before = names_below(world.root)
    load_dataset(world.root)
    assert names_below(world.root) == before == set(FILES)  # no lock either: roots may be read-only


@pytest.mark.parametrize("gz", [False, True])
def test_the_name_may_lie_about_compression(world, gz):
    world.fill(world.root, gz)
    for name in FILES:
        plain, packed = world.root / name, world.root / f"{name}.gz"
        packed.rename(plain) if gz else plain.rename(packed)
    assert load_dataset(world.root).sha256 == world.hashes


def cut(position: int):
    return lambda content: content[:position]


def flip(position: int):
    def damage(content: bytes) -> bytes:
        position_ = position % len(content)
        return content[:position_] + bytes([content[position_] ^ 1]) + content[position_ + 1 :]

    return damage


def foreign(content: bytes) -> bytes:
    return pack(draw(NUM_TRAIN, np.random.default_rng(1))[0])


PLAIN_DAMAGE = {
    "empty": cut(0),
    "cut in the magic": cut(3),
    "cut in the header": cut(10),
    "cut in the middle": cut(9000),
    "last byte lost": cut(-1),
    "one byte more": lambda content: content + b"\0",
    "first byte": flip(0),
    "header byte": flip(7),
    "pixel": flip(5000),
    "last byte": flip(-1),
    "other images": foreign,
    "a web page": lambda content: b"<!DOCTYPE html><title>Sign in</title>",
}
GZ_DAMAGE = {f"cut at {position}": cut(position) for position in (0, 1, 2, 9, 10, 11, 500, -9, -8, -5, -1)}
GZ_DAMAGE |= {f"flip at {position}": flip(position) for position in (2, 10, 12, 700, -12, -6, -2)}
GZ_DAMAGE |= {
    "garbage after the end": lambda content: content + b"garbage",
    "other images": lambda content: gzip.compress(foreign(content), mtime=0),
    "text": lambda content: b"not gzip at all",
}


@pytest.mark.parametrize(
    ("gz", "damage"),
    [pytest.param(False, damage, id=f"plain: {name}") for name, damage in PLAIN_DAMAGE.items()]
    + [pytest.param(True, damage, id=f"gz: {name}") for name, damage in GZ_DAMAGE.items()],
)
def test_damage_in_the_users_root_is_an_error_that_names_the_file(world, gz, damage):
    world.fill(world.system)
    world.online = {"mirrors", "debian"}
    path = world.fill(world.root, gz) / (f"{IMAGES}.gz" if gz else IMAGES)
    content = path.read_bytes()
    assert load_dataset(world.root).root == world.root  # whole, it is used
    path.write_bytes(damage(content))
    with pytest.raises(DataError) as caught:
        load_dataset(world.root)
    assert caught.value.subject == str(path)
    assert "data.root" in caught.value.way_out
    assert "\n" not in str(caught.value)
    assert world.fetched == []
    assert path.read_bytes() == damage(content)  # the user's file stays


def test_the_error_shows_both_hashes_and_whose_file_it_is_not(world):
    path = world.fill(world.root) / IMAGES
    path.write_bytes(foreign(b""))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match="not Fashion-MNIST's") as caught:
        load_dataset(world.root)
    assert found[:8] in str(caught.value)
    assert world.hashes[IMAGES][:8] in str(caught.value)


def test_it_is_the_hash_that_rejects_damage(world):
    path = world.fill(world.root) / IMAGES
    path.write_bytes(flip(5000)(path.read_bytes()))
    with pytest.raises(DataError, match="SHA-256"):
        load_dataset(world.root)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    load_dataset(world.root, sha256=world.hashes | {IMAGES: found.upper()})  # otherwise it would pass


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\0\0\x08\x03\0\0\0\x1e", "not an IDX file"),  # the header's end is missing
        (pack(np.zeros((30, 784), np.uint8)), "not an IDX file"),  # two dimensions
        (b"\0\0\x0d" + pack(np.zeros((30, 28, 28), np.uint8))[3:], "not an IDX file"),  # floats
        (pack(np.zeros((30, 28, 28), np.uint8))[:-1], "announces shape"),
        (pack(np.zeros((30, 28, 28), np.uint8)) + b"\0", "announces shape"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + bytes(100), "announces shape"),
        (pack(np.zeros((0, 28, 28), np.uint8)), "announces shape"),
        (pack(np.zeros((29, 28, 28), np.uint8)), "do not fit"),  # 30 labels
        (pack(np.zeros((30, 28, 27), np.uint8)), "do not fit"),  # test images are 28 x 28
    ],
)
def test_files_of_the_users_own_must_still_be_idx_and_agree(world, content, problem):
    (world.fill(world.root) / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_dataset(world.root, sha256=world.hashes | {IMAGES: hashlib.sha256(content).hexdigest()})


def test_files_of_the_users_own(world, tmp_path):
    hashes = write_idx_dataset(tmp_path / "own", 7, 5, gz=True, seed=3)
    assert load_dataset(tmp_path / "own", sha256=hashes).train_images.shape == (7, 28, 28)
    with pytest.raises(DataError, match=r"data\.sha256.*train-images"):
        load_dataset(tmp_path / "own", sha256={IMAGES: hashes[IMAGES]})
    world.fill(world.root)
    with pytest.raises(DataError, match="not the one asked for"):
        load_dataset(world.root, sha256=hashes)


@pytest.mark.parametrize("own", [False, True], ids=["published", "own"])
def test_a_gzip_bomb_is_not_inflated(world, monkeypatch, own):
    bomb = gzip.compress(bytes(64 * 2**20))
    (world.fill(world.root, gz=True) / f"{IMAGES}.gz").write_bytes(bomb)
    monkeypatch.setattr(sources, "MAX_SIZE", 2**20)
    hashes = world.hashes | {IMAGES: "0" * 64} if own else None

    def peak(act) -> int:
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def load():
        with pytest.raises(DataError, match="holds more than"):
            load_dataset(world.root, sha256=hashes)

    assert peak(load) < 8 * 2**20
    assert peak(lambda: gzip.decompress(bomb)) >= 64 * 2**20  # the measure does see it


def test_a_short_file_is_read_in_memory_of_its_own_size(world, tmp_path):
    hashes = write_idx_dataset(tmp_path / "own", 7, 5)
    tracemalloc.start()
    try:
        load_dataset(tmp_path / "own", sha256=hashes)  # bounded by MAX_SIZE, not allocating it
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", ["dangling link", "link to a folder"])
def test_a_link_that_leads_to_no_file_is_damage_and_stays(world, make):
    world.online = {"mirrors"}
    path = world.fill(world.root) / IMAGES
    path.unlink()
    path.symlink_to(world.root if make == "link to a folder" else world.root / "gone")
    with pytest.raises(DataError) as caught:
        load_dataset(world.root)
    assert caught.value.subject == str(path)
    assert path.is_symlink()


def test_a_folder_named_like_a_file_is_passed_over(world):
    """Some archives unpack each file into a folder of the same name."""
    (world.fill(world.root, gz=True) / IMAGES).mkdir()
    assert load_dataset(world.root).sha256 == world.hashes


# The order of the sources


@pytest.mark.parametrize("given", [{}, {"root": None}, {"root": ""}, {"root": "given"}, {"download_to": "given"}])
def test_sources_are_tried_in_order(world, given: dict[str, Any], caplog):
    caplog.set_level(logging.INFO, logger="fmvae")
    home, asked = world.default, given.get("root")
    if any(given.values()):
        home = world.root
        given = dict.fromkeys(given, home)
    if asked:  # a root that is asked for has to be there, and is not passed over in silence
        home.mkdir()
    with pytest.raises(DataError):
        load_dataset(**given)
    assert world.fetched == ["mirrors", "debian"]
    tried = [(str(home), "INFO"), (str(world.system), "INFO"), ("mirrors", "INFO"), ("Debian", "INFO")]
    if asked:
        tried[1:2] = [(str(world.system), "WARNING"), (str(home), "WARNING")]  # that it is fetched into there
    assert len(caplog.records) == len(tried)
    for (source, level), record in zip(tried, caplog.records, strict=True):
        assert source in record.message
        assert record.levelname == level

    for online, expected in (({"debian"}, ["mirrors", "debian"]), ({"mirrors", "debian"}, ["mirrors"])):
        world.fetched, world.online = [], online
        assert load_dataset(**given).root == home
        assert world.fetched == expected
        assert names_below(home) == {*FILES, ".lock"}  # stored plain, nothing else left
        for name in FILES:
            (home / name).unlink()

    world.fill(world.system)
    world.fetched = []
    assert load_dataset(**given).root == world.system
    world.fill(home)
    assert load_dataset(**given).root == home
    assert world.fetched == []


def test_a_root_that_is_not_there_is_refused_and_not_made(world):
    """As a mistyped one, whatever else has the files."""
    world.online = {"mirrors", "debian"}
    world.fill(world.system)
    world.fill(world.default)
    choices: list[dict[str, Any]] = [{}, {"download": False}, {"download_to": world.stock.parent / "elsewhere"}]
    for given in choices:
        with pytest.raises(DataError, match="there is no") as caught:
            load_dataset(world.root, **given)
        assert caught.value.subject == "data.root"
        assert str(world.root) in caught.value.problem
        assert f"data.download_to={world.root}" in caught.value.way_out
    assert not world.root.exists()
    assert not (world.stock.parent / "elsewhere").exists()
    assert world.fetched == []


def test_a_relative_root_with_a_tilde(world, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    world.fill(world.root)
    assert load_dataset("~/root").root == load_dataset("root").root == world.root
    with pytest.raises(DataError):
        load_dataset("~no-such-user-here/root", download=False)


def test_download_false_stays_on_this_machine(world):
    world.online = {"mirrors", "debian"}
    with pytest.raises(DataError, match="allow the download"):
        load_dataset(download_to=world.root, download=False)
    assert not world.root.exists()
    world.root.mkdir()
    with pytest.raises(DataError, match="allow the download"):
        load_dataset(world.root, download=False)
    assert world.fetched == []
    assert names_below(world.root) == set()
    world.fill(world.system)
    assert load_dataset(world.root, download=False).root == world.system
    assert load_dataset(download_to=world.root, download=False).root == world.system


def test_missing_files_are_fetched_beside_the_users_own(world):
    world.online = {"mirrors"}
    kept = world.fill(world.root, gz=True) / f"{IMAGES}.gz"
    for name in FILES[1:]:
        (world.root / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=f"lacks {', '.join(FILES[1:])}"):
        load_dataset(world.root, download=False)
    assert load_dataset(world.root).root == world.root
    assert names_below(world.root) == {kept.name, *FILES[1:], ".lock"}


def test_damage_beside_missing_files_is_still_an_error(world):
    world.online = {"mirrors"}
    world.root.mkdir()
    (world.root / FILES[-1]).write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        load_dataset(world.root)
    assert caught.value.subject == str(world.root / FILES[-1])
    assert world.fetched == []


@pytest.mark.parametrize("gz", [False, True])
def test_damage_in_our_own_folder_is_fetched_again_with_a_warning(world, caplog, gz):
    damaged = world.fill(world.default, gz) / (f"{IMAGES}.gz" if gz else IMAGES)
    damaged.write_bytes(b"damaged")
    with pytest.raises(DataError, match=str(damaged)):
        load_dataset(download=False)
    world.online = {"debian"}
    caplog.clear()
    assert load_dataset().root == world.default
    assert world.fetched == ["mirrors", "debian"]
    assert [r.levelname for r in caplog.records if str(damaged) in r.message] == ["WARNING"]
    caplog.clear()
    load_dataset(download=False)
    assert "WARNING" not in [r.levelname for r in caplog.records]


def test_damage_in_the_systems_folder_is_passed_over_with_a_warning(world, caplog):
    world.online = {"mirrors"}
    (world.fill(world.system) / IMAGES).write_bytes(b"damaged")
    assert load_dataset(download_to=world.root).root == world.root
    assert "WARNING" in [r.levelname for r in caplog.records if IMAGES in r.message]


# What cannot be


@pytest.mark.parametrize("key", ["root", "download_to"])
def test_all_failing_says_in_one_line_what_was_tried_and_the_ways_out(world, key):
    if key == "root":
        world.root.mkdir()
    with pytest.raises(DataError) as caught:
        load_dataset(**{key: world.root})
    message = str(caught.value)
    assert caught.value.subject == "data.root"
    reasons = [
        f"{world.root} has none",
        f"{world.system} has none",
        "mirrors is offline",
        "debian is offline",
    ]
    ways_out = ["data.root=<", "sudo apt-get install dataset-fashion-mnist", "network"]
    places = [message.find(part) for part in reasons + ways_out]
    assert -1 not in places
    assert places == sorted(places)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "place"), [("download_to", "below a file"), ("download_to", "a file"), ("root", "a file")]
)
def test_a_root_that_cannot_be_written(world, tmp_path, key, place):
    world.online = {"mirrors"}
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "root" if place == "below a file" else tmp_path / "file"
    with pytest.raises(DataError, match="cannot be kept there") as caught:
        load_dataset(**{key: root})
    assert caught.value.subject == str(root)


def test_a_full_disk_leaves_nothing_behind(world, monkeypatch):
    world.online = {"mirrors"}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        load_dataset(download_to=world.root)
    assert names_below(world.root) == {".lock"}


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_nothing_of_a_bad_fetch_is_kept(world, damage):
    """One bad file of four, and the last, so that three have been verified before it."""
    world.online = {"mirrors", "debian"}
    last = world.stock / FILES[-1]
    last.unlink() if damage == "missing" else last.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"mirrors: .*Debian package: "):
        load_dataset(download_to=world.root)
    assert world.fetched == ["mirrors", "debian"]
    assert names_below(world.root) == {".lock"}


def test_files_are_synced_before_they_get_their_name_and_the_folder_after(world, monkeypatch):
    world.online = {"mirrors"}
    events = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("sync folder" if is_folder else "sync file")
        fsync(descriptor)

    def spy_replace(path, target):
        events.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    load_dataset(download_to=world.root)
    assert events == ["sync file"] * 4 + ["replace"] * 4 + ["sync folder"]


@pytest.mark.parametrize("key", ["root", "download_to"])
def test_damage_that_appears_while_waiting_for_the_lock_is_an_error_too(world, monkeypatch, key):
    world.online = {"mirrors"}
    if key == "root":
        world.root.mkdir()
    monkeypatch.setattr(fcntl, "flock", lambda *args: (world.root / IMAGES).write_bytes(b"damaged"))
    with pytest.raises(DataError) as caught:
        load_dataset(**{key: world.root})
    assert caught.value.subject == str(world.root / IMAGES)
    assert world.fetched == []


# Fetchers that race or die

FETCHER = """
import fcntl, json, os, shutil, signal, sys, time
from pathlib import Path
from typing import Any

sys.path.append("fmvae/data")  # on its own: its package imports torch, seconds for each process
import sources

args = json.loads(sys.argv[1])
stock = Path(args["stock"])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def fetch(staging, expected):
    with open(args["record"], "a") as record:
        record.write("fetch ")
    for name in sources.FILES:
        content = (stock / name).read_bytes()
        (staging / name).write_bytes(content[: len(content) // 2])
        if args["die"] == "fetching":
            die()
        (staging / name).write_bytes(content)
    time.sleep(1)
    return staging

num_replaced = 0
def replace(path, target):
    global num_replaced
    num_replaced += 1
    os.replace(path, target)
    if num_replaced == args["die"]:
        die()

sources._fetch_from_mirrors = fetch
sources.SYSTEM_ROOT = stock / "none"
Path.replace = replace
if not args["lock"]:
    fcntl.flock = lambda *args: None
print("ready", flush=True)
sys.stdin.readline()
data = sources.load_dataset(download_to=args["root"], sha256=args["sha256"])
print(int(data.train_images.sum()), int(data.test_labels.sum()))
"""


class Fetchers:
    def __init__(self, world: World, num: int, die: str | int = "never", lock: bool = True):
        self.record = world.stock.parent / "record"
        self.record.write_text("")
        paths = {"root": str(world.root), "stock": str(world.stock), "record": str(self.record)}
        args = json.dumps(paths | {"sha256": world.hashes, "die": die, "lock": lock})
        start = functools.partial(
            subprocess.Popen,
            cwd=Path(__file__).parents[2],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.processes = [start([sys.executable, "-c", FETCHER, args]) for _ in range(num)]

    def run(self) -> list[tuple[int, str]]:
        """Release all at once; returns each one's status and output."""
        try:
            for process in self.processes:
                assert process.stdout
                assert process.stdout.readline() == "ready\n"
            for process in self.processes:
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
            outputs = [process.communicate(timeout=60)[0] for process in self.processes]
            return [(process.returncode, out) for process, out in zip(self.processes, outputs, strict=True)]
        finally:
            for process in self.processes:
                process.kill()
                process.communicate()

    @property
    def num_fetches(self) -> int:
        return self.record.read_text().count("fetch")


def test_of_eight_processes_one_fetches_and_all_load_the_same(world):
    fetchers = Fetchers(world, 8)
    results = fetchers.run()
    assert [status for status, _ in results] == [0] * 8
    assert len({output for _, output in results}) == 1
    assert fetchers.num_fetches == 1
    assert names_below(world.root) == {*FILES, ".lock"}


def test_it_is_the_lock_that_makes_them_one(world):
    fetchers = Fetchers(world, 8, lock=False)
    fetchers.run()
    assert fetchers.num_fetches > 1


@pytest.mark.parametrize("die", ["fetching", 1, 3])
@pytest.mark.one_in(3)
def test_a_killed_fetcher_leaves_whole_files_or_none_and_the_next_one_succeeds(world, die):
    assert Fetchers(world, 1, die=die).run()[0][0] == -signal.SIGKILL
    left = names_below(world.root)
    published = left & set(FILES)
    assert len(published) == (0 if die == "fetching" else die)
    for name in published:
        assert hashlib.sha256((world.root / name).read_bytes()).hexdigest() == world.hashes[name]
    assert any(name.startswith(".fetch-") for name in left)  # it did die in the middle of things
    next_one = Fetchers(world, 1)
    assert next_one.run()[0][0] == 0
    assert next_one.num_fetches == 1
    assert names_below(world.root) == {*FILES, ".lock"}  # the dead one's files are gone


# The mirrors


class Mirror(http.server.BaseHTTPRequestHandler):
    """/<behaviour>/<file>: serves ``stock``, each behaviour with its own fault."""

    stock: Path

    def do_GET(self):
        behaviour, name = self.path.strip("/").split("/")
        if behaviour == "missing":
            return self.send_error(404)
        if behaviour == "garbled":
            return self.wfile.write(b"this is not HTTP\r\n\r\n")
        content = gzip.compress((self.stock / Path(name).stem).read_bytes())
        content = {"login": b"<html>Sign in</html>", "endless": bytes(10**7)}.get(behaviour, content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if behaviour == "silent":
            time.sleep(2)
        if behaviour == "short":
            content = content[: len(content) // 2]
        step = 1 if behaviour == "slow" else len(content)
        for start in range(0, len(content), step):
            try:
                self.wfile.write(content[start : start + step])
            except OSError:
                return None  # the client has had enough
            time.sleep(0.02 if behaviour == "slow" else 0)
        return None

    def log_message(self, format, *args):
        pass


@pytest.fixture
def mirror(world, monkeypatch):
    """A mirror's address; the real ``_fetch_from_mirrors`` is in place, and impatient."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sources, "_fetch_from_mirrors", world.originals["_fetch_from_mirrors"])
    monkeypatch.setattr(sources, "CONNECT_LIMIT", 0.5)
    handler = type("Handler", (Mirror,), {"stock": world.stock})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FAULTS = [
    "missing",
    "login",
    "endless",
    "silent",
    "short",
    "slow",
    "garbled",
    "refused",
    "no scheme",
    "no such host",
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.one_in(4)
def test_mirrors_are_tried_in_turn(world, mirror, monkeypatch, fault):
    if fault == "slow":  # never silent for long, so it is the whole download that must have a limit
        monkeypatch.setattr(sources, "DOWNLOAD_LIMIT", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = {
            "refused": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "no scheme": "nonsense://mirror",
            "no such host": "http://mirror.invalid",
        }.get(fault, f"{mirror}/{fault}")
        urls = [address]
        monkeypatch.setattr(sources, "_mirror_urls", lambda name: [f"{url}/{name}.gz" for url in urls])
        with pytest.raises(DataError, match=f"mirrors: {IMAGES}.*debian is offline") as caught:
            load_dataset(download_to=world.root)
        assert address in str(caught.value)
        assert names_below(world.root) == {".lock"}
        urls.append(f"{mirror}/good")
        assert load_dataset(download_to=world.root).root == world.root
        assert world.fetched == ["debian"]  # asked in the first call, not needed in the second


def test_a_download_is_cut_at_its_limit(mirror, tmp_path):
    sources._download(f"{mirror}/endless/{IMAGES}.gz", tmp_path / "got", 1000)
    assert (tmp_path / "got").stat().st_size == 1000


def test_the_mirrors_are_torchvisions():
    for name in FILES:
        urls = sources._mirror_urls(name)
        assert urls
        assert all(url.startswith("http") and url.endswith(f"/{name}.gz") for url in urls)


def test_a_broken_torchvision_is_one_reason_among_others(world, mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"mirrors: torchvision cannot be imported.*debian is offline"):
        load_dataset(download_to=world.root)


# The Debian package, with commands that stand in for apt's

APT_GET = """#!/bin/sh
echo "$*" >> "$RECORD"
case "$*" in
  *-oDir::State::lists=*update*) touch lists-of-our-own; echo "E: one archive failed" >&2; exit 100 ;;
  *-oDir::State::lists=*download*) test -e lists-of-our-own || exit 100 ;;
  update) exit 1 ;;
  download*) test "$LISTS" = no && exit 100 ;;
esac
test "$LISTS" = never && exec sleep 30
read -r line && exit 1  # standard input is empty
echo noise
touch dataset-fashion-mnist_0_all.deb
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/share/datasets/fashion-mnist" && cp "$STOCK"/* "$3/usr/share/datasets/fashion-mnist"
"""


@pytest.fixture
def apt(world, tmp_path, monkeypatch) -> Path:
    """The record of apt-get's arguments; the real ``_fetch_from_debian`` is in place."""
    monkeypatch.setattr(sources, "_fetch_from_debian", world.originals["_fetch_from_debian"])
    for name, script in (("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("STOCK", str(world.stock))
    return tmp_path / "record"


def test_debian_uses_the_machines_package_lists(world, apt, capfd):
    assert load_dataset(download_to=world.root).root == world.root
    assert apt.read_text().splitlines() == ["download dataset-fashion-mnist"]
    assert names_below(world.root) == {*FILES, ".lock"}
    assert capfd.readouterr() == ("", "")


def test_debian_without_package_lists_fetches_its_own_into_private_folders(world, apt, monkeypatch):
    monkeypatch.setenv("LISTS", "no")
    assert load_dataset(download_to=world.root).root == world.root
    plain, *private = apt.read_text().splitlines()
    assert plain == "download dataset-fashion-mnist"
    assert [line.split()[-1] for line in private] == ["update", "dataset-fashion-mnist"]
    for line in private:
        for key in ("State", "State::lists", "Cache"):
            assert f"-oDir::{key}={world.root}/.fetch-" in line
    assert names_below(world.root) == {*FILES, ".lock"}


@pytest.mark.parametrize("case", ["no apt-get", "apt-get hangs", "apt-get fails", "bad package"])
def test_debian_failing_is_an_error_with_its_reason(world, apt, monkeypatch, tmp_path, case):
    if case == "no apt-get":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    elif case == "apt-get hangs":
        monkeypatch.setenv("LISTS", "never")
        monkeypatch.setattr(sources, "APT_LIMIT", 0.3)
    elif case == "apt-get fails":
        (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\necho 'E: broken' >&2\necho 'W: more' >&2\nexit 100")
    else:
        (tmp_path / "bin" / "dpkg-deb").write_text("#!/bin/sh\nexit 2")
    reason = {
        "no apt-get": "No such file",
        "apt-get hangs": "timed out",
        "apt-get fails": "E: broken",
        "bad package": "dpkg-deb failed .exit status 2",
    }[case]
    with pytest.raises(DataError, match=f"Debian package: .*{reason}"):
        load_dataset(download_to=world.root)
    assert names_below(world.root) == {".lock"}


# Where fetched files are kept


def test_the_default_root_is_the_checkouts_and_otherwise_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "project" / "fmvae" / "data" / "sources.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "project").mkdir()
    in_cache = tmp_path / "cache" / "fmvae" / "fashion-mnist"
    in_project = tmp_path / "project" / "data" / "fashion-mnist"
    assert sources._default_root() == in_cache  # site-packages: writable in a virtual environment, yet no place
    (tmp_path / "project" / "pyproject.toml").write_text("")
    assert sources._default_root() == in_project
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a checkout of another user
    assert sources._default_root() == in_cache
    write_idx_dataset(in_project, 1, 1)
    assert sources._default_root() == in_project  # which already has the files
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    (tmp_path / "project" / "pyproject.toml").unlink()
    assert sources._default_root().is_absolute()


@pytest.mark.real_data
def test_the_real_files():
    try:
        data = load_dataset(download=False)
    except DataError as error:
        pytest.skip(str(error))
    assert data.train_images.shape == (60_000, 28, 28)
    assert data.test_images.shape == (10_000, 28, 28)
    for labels, num in ((data.train_labels, 6000), (data.test_labels, 1000)):
        np.testing.assert_array_equal(np.bincount(labels), [num] * 10)
    assert data.sha256 == sources.SHA256
