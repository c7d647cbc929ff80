"""fmvae.runs.files: a reader sees the old file or the new one, and damage to a record shows."""

import builtins
import errno
import io
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmvae.common.digests import canonical_json, digest
from fmvae.errors import RunError
from fmvae.runs import files
from fmvae.runs.files import link, make_directory, read_record, remove_temporaries, write_bytes, write_record


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --- write_bytes ----------------------------------------------------------------------------------


def test_write_bytes_makes_the_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes(path, b"\x00content")
    assert path.read_bytes() == b"\x00content"
    assert names(path.parent) == {"file.bin"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others of the group can read results


def test_a_directory_that_another_process_makes_at_the_same_moment_will_do(tmp_path, monkeypatch):
    """Between the look and the call, another process makes it; a file in its place is still refused."""
    asked, is_dir = [], Path.is_dir

    def is_dir_late(path: Path) -> bool:
        there = is_dir(path)
        if path.name == "late" and not asked:
            asked.append(path)
            path.mkdir()  # by the other process
        return there

    monkeypatch.setattr(Path, "is_dir", is_dir_late)
    make_directory(tmp_path / "late")
    assert asked
    assert is_dir(tmp_path / "late")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(NotADirectoryError):
            make_directory(path)


def test_write_bytes_of_nothing_is_an_empty_file(tmp_path):
    write_bytes(tmp_path / "empty", b"")
    assert (tmp_path / "empty").read_bytes() == b""


def test_write_bytes_replaces_the_name_and_not_what_others_linked(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    os.link(tmp_path / "file", tmp_path / "second_name")
    write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "second_name").read_bytes() == b"old"


def write_in_place(path: Path, content: bytes) -> None:
    """What write_bytes must not be: durable in the end, but half there in between."""
    with open(path, "wb") as file:
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            file.write(part)
            file.flush()
            os.fsync(file.fileno())


def seen_by_a_reader(write: Callable[[Path, bytes], None], directory: Path, monkeypatch) -> set[bytes]:
    """What the file holds whenever its writer reaches for the disk."""
    path = directory / "file"
    path.write_bytes(b"old" * 1000)
    seen = set()

    def looking_first(function):
        def looked(*arguments, **keywords):
            seen.add(path.read_bytes())
            return function(*arguments, **keywords)

        return looked

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", looking_first(os.fsync))
        patch.setattr(os, "replace", looking_first(os.replace))
        write(path, b"new" * 1000)
    return seen | {path.read_bytes()}


def test_a_reader_never_sees_a_part(tmp_path, monkeypatch):
    assert seen_by_a_reader(write_bytes, tmp_path, monkeypatch) == {b"old" * 1000, b"new" * 1000}


def test_a_reader_would_see_a_part_of_a_file_written_in_place(tmp_path, monkeypatch):
    seen = seen_by_a_reader(write_in_place, tmp_path, monkeypatch)
    assert not seen <= {b"old" * 1000, b"new" * 1000}


def test_a_reader_in_another_thread_sees_whole_files_only(tmp_path):
    path, contents = tmp_path / "file", [bytes([n]) * 300_000 for n in range(4)]
    write_bytes(path, contents[0])
    done, torn, reads = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            content = path.read_bytes()
            reads.append(content[0])
            if content not in contents:
                torn.append(len(content))

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(100):
        write_bytes(path, contents[n % 4])
    done.set()
    reader.join()
    assert not torn
    assert reads


class Full(io.BufferedWriter):
    """A file on a disk that runs full half way through a write."""

    def write(self, content) -> int:
        super().write(content[: len(content) // 2])
        self.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_at(step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    if step == "write":
        monkeypatch.setattr(builtins, "open", lambda descriptor, mode: Full(io.FileIO(descriptor, mode)))
    else:
        monkeypatch.setattr(os, step, fail)


@pytest.mark.parametrize("step", ["write", "fchmod", "fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(step, old, tmp_path, monkeypatch):
    path = tmp_path / "file"
    if old:
        write_bytes(path, old)
    with monkeypatch.context() as patch:
        fail_at(step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), patch)
        with pytest.raises(OSError, match="No space left"):
            write_bytes(path, b"new content")
    assert names(tmp_path) == ({"file"} if old else set())
    assert not old or path.read_bytes() == old


def test_an_interrupted_write_leaves_nothing_either(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at("fsync", KeyboardInterrupt(), patch)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "file", b"new")
    assert names(tmp_path) == set()


def lowest_free_descriptor() -> int:
    os.close(free := os.dup(1))
    return free


def test_failing_writes_leave_no_descriptor_open(tmp_path, monkeypatch):
    before = lowest_free_descriptor()
    for _ in range(5):
        with monkeypatch.context() as patch:
            fail_at("fsync", OSError("injected"), patch)
            with pytest.raises(OSError):
                write_bytes(tmp_path / "file", b"new")
    assert lowest_free_descriptor() == before


def recorded_calls(action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of what makes a write durable."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append(f"fsync {kind}")
        fsync(descriptor)

    def recorded_replace(source, target) -> None:
        calls.append("replace")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", recorded_fsync)
        patch.setattr(os, "replace", recorded_replace)
        action()
    return calls


DURABLE = ["fsync file", "replace", "fsync directory"]


def test_the_content_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    assert recorded_calls(lambda: write_bytes(tmp_path / "file", b"new"), monkeypatch) == DURABLE


def test_a_write_without_a_directory_sync_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "sync_directory", lambda directory: None)
    assert recorded_calls(lambda: write_bytes(tmp_path / "file", b"new"), monkeypatch) == DURABLE[:2]


def test_remove_temporaries_removes_what_a_killed_writer_left_and_only_that(tmp_path, monkeypatch):
    write_bytes(tmp_path / "deep" / "kept.tmp", b"a user's own")
    write_bytes(tmp_path / "kept.json", b"{}")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # killed: no clean-up happens
        fail_at("replace", OSError("injected"), patch)
        with pytest.raises(OSError):
            write_bytes(tmp_path / "deep" / "half", b"new")
    assert len(names(tmp_path / "deep")) == 2
    remove_temporaries(tmp_path)
    assert names(tmp_path / "deep") == {"kept.tmp"}
    assert names(tmp_path) == {"deep", "kept.json"}


# --- link -----------------------------------------------------------------------------------------


def test_link_gives_a_second_name_without_a_copy(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"content of a")
    write_bytes(b, b"what was there")
    link(a, b)
    assert a.samefile(b)
    assert b.read_bytes() == b"content of a"
    assert names(tmp_path) == {"a", "b"}


def test_link_twice_is_link_once(tmp_path):
    """rename() of two names of one file does nothing, and would leave the temporary name behind."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"content")
    link(a, b)
    link(a, b)
    assert a.samefile(b)
    assert names(tmp_path) == {"a", "b"}


def test_a_linked_file_outlives_the_replacement_of_the_first_name(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"first")
    link(a, b)
    write_bytes(a, b"second")
    assert b.read_bytes() == b"first"


def test_link_copies_where_there_are_no_hard_links(tmp_path, monkeypatch):
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"content")
    with monkeypatch.context() as patch:
        fail_at("link", OSError(errno.EPERM, os.strerror(errno.EPERM)), patch)
        link(a, b)
    assert not a.samefile(b)
    assert b.read_bytes() == b"content"
    assert names(tmp_path) == {"a", "b"}


def test_link_replaces_what_a_killed_process_left(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"content")
    (tmp_path / f".b.{os.getpid()}.tmp").write_bytes(b"left over")
    link(a, b)
    assert b.read_bytes() == b"content"
    assert names(tmp_path) == {"a", "b"}


def test_a_failed_link_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    a, b = tmp_path / "a", tmp_path / "b"
    write_bytes(a, b"content of a")
    write_bytes(b, b"content of b")
    with monkeypatch.context() as patch:
        fail_at("replace", OSError("injected"), patch)
        with pytest.raises(OSError, match="injected"):
            link(a, b)
    assert b.read_bytes() == b"content of b"
    assert names(tmp_path) == {"a", "b"}


def test_link_of_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    write_bytes(tmp_path / "b", b"kept")
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "missing", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"kept"


def test_link_syncs_the_directory_after_the_rename(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"content")
    calls = recorded_calls(lambda: link(tmp_path / "a", tmp_path / "b"), monkeypatch)
    assert calls == ["replace", "fsync directory"]


# --- canonical JSON -------------------------------------------------------------------------------

SCALARS = st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=12)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(child) for key, child in reversed(value.items())}
    return [reordered(child) for child in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_has_no_meaning(value):
    assert canonical_json(value) == canonical_json(reordered(value))


@given(VALUES)
def test_canonical_json_says_what_the_value_is(value):
    assert json.loads(canonical_json(value)) == value


@given(VALUES, VALUES)
def test_equal_bytes_are_equal_values(a, b):
    assert (canonical_json(a) == canonical_json(b)) == (a == b)


@given(st.integers(-(2**53), 2**53))
def test_1_and_1_0_are_the_same(number):
    assert canonical_json({"beta": number}) == canonical_json({"beta": float(number)})


def test_canonical_json_by_example():
    value = {"b": [1.0, 0.5, -0.0, (True, None)], "a": {"é": "text"}}
    assert canonical_json(value) == b'{"a":{"\\u00e9":"text"},"b":[1,0.5,0,[true,null]]}'
    assert json.dumps(value) != json.dumps(reordered(value))  # as it is without the canonical order
    assert canonical_json(True) != canonical_json(1)
    assert canonical_json(0.1) != canonical_json(0.1 + 1e-16)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_no_canonical_form(number, tmp_path):
    with pytest.raises(ValueError):
        canonical_json({"deep": [number]})
    with pytest.raises(ValueError):
        write_record(tmp_path / "record.json", {"kl": number})
    assert names(tmp_path) == set()


# --- records --------------------------------------------------------------------------------------

RECORD = {"run": "a", "test": {"kl": 6.4375, "recon": 1e-05, "third": 1 / 3}, "n": [1, 2.0, True, None, "é"]}


@pytest.fixture
def record(tmp_path) -> Path:
    write_record(tmp_path / "record.json", RECORD)
    return tmp_path / "record.json"


def test_a_record_reads_back_as_it_was(record):
    assert read_record(record) == RECORD


def test_a_record_is_json_for_people(record):
    assert json.loads(record.read_text()) == {**RECORD, "content_sha256": digest(RECORD)}
    assert record.read_text().count("\n") > len(RECORD)


def test_every_flipped_bit_of_a_record_is_noticed_or_means_the_same(record):
    whole = record.read_bytes()
    harmless = set()
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        record.write_bytes(damaged)
        try:
            assert read_record(record) == RECORD
        except RunError:
            continue
        harmless.add((chr(whole[place // 8]), chr(damaged[place // 8])))
    # 1e-05 may be written 1E-05, an escape \u00E9, and the last digit of 17 may round to the same number
    assert harmless <= {("e", "E")} | {(a, b) for a in "0123456789" for b in "0123456789"}
    assert len(harmless) < 10


def test_every_truncation_of_a_record_is_noticed(record):
    whole = record.read_bytes()
    for length in range(len(whole.rstrip())):
        record.write_bytes(whole[:length])
        with pytest.raises(RunError):
            read_record(record)


def test_an_edited_number_is_noticed_by_the_digest_alone(record):
    edited = {**RECORD, "run": "b"}
    record.write_text(record.read_text().replace('"run": "a"', '"run": "b"'))
    with pytest.raises(RunError, match="does not match its digest"):
        read_record(record)
    record.write_text(json.dumps({**edited, "content_sha256": digest(edited)}))
    assert read_record(record) == edited


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b'"text"', b"{}", b"\xff\xfe", b"[" * 100_000, b'{"content_sha256": 1e999}']
)
def test_what_is_not_a_record_is_a_run_error_that_names_the_file(content, record):
    record.write_bytes(content)
    with pytest.raises(RunError, match=r"record\.json"):
        read_record(record)


def test_a_missing_record_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="there is no such file"):
        read_record(tmp_path / "record.json")
