"""Fetching published archives: whole or absent, several at once, resumed, and one line without a network."""

import errno
import hashlib
import http.server
import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmvae.data import archives
from fmvae.data.archives import PART, Published, found_in
from fmvae.errors import DataError

CONTENT = {"first.gz": np.random.default_rng(0).bytes(700_000), "second.gz": b"second" * 1000}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the archives of the server's ``files``, with ranges; may end within one, or give something else."""

    def do_GET(self) -> None:
        server: Any = self.server
        name, asked = self.path.rpartition("/")[2], self.headers.get("Range")
        server.asked.append((name, asked))
        content = server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        end = time.monotonic() + server.patience
        while len(server.asked) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        ends = server.ends.pop(name, None)
        self.wfile.write(content[start:ends])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.asked, made.ends, made.ranges, made.patience = dict(CONTENT), [], {}, True, 0
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The folder where they are kept unless another is named."""
    monkeypatch.setattr(archives, "DEFAULT_ROOT", tmp_path / "data" / "fashion-mnist")
    return tmp_path / "data" / "letters"


def letters(*ports: int) -> Published:
    urls = {name: [f"http://127.0.0.1:{port}/files/{name}" for port in ports] for name in CONTENT}
    return Published("Letters", "letters", ("", "raw"), MD5, lambda: urls)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def put(folder: Path, **others: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**CONTENT, **others}.items():
        (folder / name).write_bytes(content)
    return folder


def test_they_are_fetched_once_and_kept_as_they_are_published(server, home):
    published = letters(server.server_port)
    assert found_in(published) == home
    assert {name: (home / name).read_bytes() for name in CONTENT} == CONTENT
    assert names_in(home) == {*CONTENT, ".lock"}
    assert found_in(published) == home
    assert [name for name, _ in server.asked] == list(CONTENT)


def test_folders_are_tried_in_order_and_nothing_is_fetched_that_is_there(server, home, tmp_path):
    published = letters(server.server_port)
    root = put(tmp_path / "root" / "raw").parent
    assert found_in(published, root) == root
    put(home)
    assert found_in(published) == home
    other = tmp_path / "other"
    assert found_in(published, root, download_to=other) == root  # no need to
    assert not server.asked
    assert not other.exists()
    (root / "raw" / "first.gz").unlink()
    assert found_in(published, root, download_to=other) == other
    assert names_in(root / "raw") == {"second.gz"}
    assert found_in(published, root) == root  # only what is missing
    assert (root / "first.gz").read_bytes() == CONTENT["first.gz"]
    assert [name for name, _ in server.asked] == [*CONTENT, "first.gz"]


def test_what_is_whole_is_kept_and_only_the_rest_is_fetched(server, home):
    put(home)
    (home / "second.gz").unlink()
    found_in(letters(server.server_port))
    assert [name for name, _ in server.asked] == ["second.gz"]


def test_one_that_is_not_whole_leaves_none(server, home):
    server.files["second.gz"] = b"<html>Sign in</html>"
    with pytest.raises(DataError) as caught:
        found_in(letters(server.server_port))
    said = str(caught.value)
    assert re.search(
        r"^data.root: Letters was not found \(.*letters has none of its files; http://.*second.gz", said
    )
    assert "gives another file (MD5 " in said
    assert said.endswith("set data.root=<folder with first.gz, second.gz>, or connect to the network")
    assert "\n" not in said
    assert not names_in(home) & {*CONTENT}
    server.files["second.gz"] = CONTENT["second.gz"]
    found_in(letters(server.server_port))
    assert names_in(home) >= {*CONTENT}


def test_a_fetch_that_ended_early_goes_on_where_it_ended(server, home):
    server.ends["first.gz"] = 300_000
    with pytest.raises(DataError, match=r"first.gz cannot be fetched \(it ended after 300000 of 700000 bytes\)"):
        found_in(letters(server.server_port))
    assert (home / f"{PART}first.gz").stat().st_size == 300_000
    server.asked.clear()
    found_in(letters(server.server_port))
    assert server.asked[0] == ("first.gz", "bytes=300000-")
    assert (home / "first.gz").read_bytes() == CONTENT["first.gz"]
    assert not [name for name in names_in(home) if name.startswith(PART)]


@pytest.mark.parametrize("left", ["another", "longer", "whole"])
@pytest.mark.parametrize("ranges", [True, False])
def test_what_an_earlier_fetch_left_is_used_only_if_it_fits(server, home, left, ranges):
    server.ranges = ranges
    first = CONTENT["first.gz"]
    home.mkdir(parents=True)
    kept = {"another": b"x" * 1000, "longer": first + b"y", "whole": first}[left]
    (home / f"{PART}first.gz").write_bytes(kept)
    found_in(letters(server.server_port))
    assert (home / "first.gz").read_bytes() == first


def test_another_mirror_is_asked_when_one_fails(server, home):
    other: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    other.files, other.asked, other.ends, other.ranges = {"first.gz": b"damaged"}, [], {}, True
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    try:
        found_in(letters(other.server_port, server.server_port))
    finally:
        other.shutdown()
        other.server_close()
        thread.join()
    assert [name for name, _ in other.asked] == list(CONTENT)
    assert {name: (home / name).read_bytes() for name in CONTENT} == CONTENT


def closed_port() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        return server.server_port


def test_without_a_network_one_line_says_so_and_the_way_out(home):
    with pytest.raises(DataError) as caught:
        found_in(letters(closed_port()))
    assert re.search(r"first.gz cannot be fetched \(.*refused.*; set data.root=<folder", str(caught.value))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"allow the download \(data.download=true\)$"):
        found_in(letters(closed_port()), download=False)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"^data.root: there is no '.*none'; correct it, or have .*download_to="):
        found_in(letters(closed_port()), tmp_path / "none")


def test_damage_where_one_asked_for_them_is_an_error_and_in_ours_is_fetched_again(server, home, tmp_path, caplog):
    published, damaged = letters(server.server_port), bytes(700_000)
    root = put(tmp_path / "root", **{"first.gz": damaged})
    with pytest.raises(DataError, match=r"first.gz: is not that of Letters \(MD5 .*; delete the file"):
        found_in(published, root)
    assert (root / "first.gz").read_bytes() == damaged
    put(home, **{"first.gz": damaged})
    caplog.set_level(logging.WARNING)
    assert found_in(published) == home
    assert "fetched again" in caplog.text
    assert (home / "first.gz").read_bytes() == CONTENT["first.gz"]
    assert [name for name, _ in server.asked] == ["first.gz"]


def test_a_disk_that_is_full_is_said_so(server, home, monkeypatch):
    def full(file: Any, part: Path, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left", str(part))

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(
        DataError, match=r"letters: has not all files of Letters, .*\(No space left\); set data.down"
    ):
        found_in(letters(server.server_port))
    assert not names_in(home) & {*CONTENT}


def test_an_endless_archive_does_not_fill_the_disk(server, home, monkeypatch):
    monkeypatch.setattr(archives, "MOST", 100_000)
    monkeypatch.setattr(archives, "CHUNK", 10_000)
    with pytest.raises(DataError, match="more than 100000 bytes"):
        found_in(letters(server.server_port))
    assert sum(path.stat().st_size for path in home.iterdir()) <= 110_000


# --- several processes -----------------------------------------------------------------------------------------

FETCHER = """
import json, os, signal, sys
from pathlib import Path
from fmvae.data import archives
given = json.loads(sys.argv[1])
archives.DEFAULT_ROOT = given["home"]
if not given["lock"]:
    import contextlib
    archives.locks.held = lambda *_: contextlib.nullcontext()
if given["die"]:
    count = 0
    def write(file, part, chunk, write=archives._write):
        global count
        count += 1
        write(file, part, chunk)
        file.flush()
        if count == given["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
    archives._write, archives.CHUNK = write, 100_000
published = archives.Published("Letters", "letters", ("",), given["md5"], lambda: given["urls"])
print("ready", flush=True)
sys.stdin.readline()
print(archives.found_in(published))
"""


def start(server: Any, tmp_path: Path, die: int = 0, lock: bool = True) -> "subprocess.Popen[str]":
    published = letters(server.server_port)
    given = {"home": str(tmp_path / "data" / "fashion-mnist"), "md5": MD5, "urls": published.urls()}
    given |= {"die": die, "lock": lock}
    pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, json.dumps(given)], cwd=Path(__file__).parents[2], text=True, **pipes
    )


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.slow
def test_several_at_once_fetch_it_once(server, home, tmp_path, lock):
    """Without the lock, which is the control, they fetch it each: the server waits until two have asked."""
    server.patience = 0.5 if lock else 60
    processes = [start(server, tmp_path, lock=lock) for _ in range(3)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all of them, before any is waited for
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate() for process in processes]
    if not lock:
        assert len(server.asked) > len(CONTENT)
        return
    assert [out.strip() for out, _ in said] == [str(home)] * 3
    assert sorted(name for name, _ in server.asked) == sorted(CONTENT)


@pytest.mark.slow
def test_one_that_is_killed_while_it_fetches_leaves_no_archive_and_is_continued(server, home, tmp_path):
    process = start(server, tmp_path, die=3)
    process.communicate("\n")
    assert process.returncode == -signal.SIGKILL
    assert not names_in(home) & {*CONTENT}
    left = (home / f"{PART}first.gz").stat().st_size
    assert 0 < left < 700_000
    server.asked.clear()
    out, _ = start(server, tmp_path).communicate("\n")
    assert out.splitlines() == ["ready", str(home)]
    assert server.asked[0] == ("first.gz", f"bytes={left}-")
    assert (home / "first.gz").read_bytes() == CONTENT["first.gz"]
