"""Find, fetch and verify the published archives of a dataset, as torchvision's classes name them.

They are kept as they are published and verified by MD5 whenever they are opened. One process fetches, and others
wait for its lock. What was fetched of an archive stays for the next attempt; an archive gets its name when it is
whole and verified, and only after all others that were missing.
"""

from __future__ import annotations

import hashlib
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from fmvae.common import locks
from fmvae.common.disk import make_readable, sync, sync_directory
from fmvae.common.streams import new_bar
from fmvae.common.text import typed_path
from fmvae.data.sources import CONNECT_LIMIT, DEFAULT_ROOT, LOCKLESS
from fmvae.errors import DataError
from fmvae.runs.files import make_directory

CHUNK = 2**20
MOST = 2**31  # bytes of an archive: a server that never ends must not fill the disk
PART = ".fetch-"  # the beginning of a name: an archive that is not whole
log = logging.getLogger("fmvae")
Urls = Callable[[], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Published:
    """The archives of a dataset.

    Attributes:
        name: of the dataset, for messages.
        folder: beside that of Fashion-MNIST, where they are kept unless a config names another.
        layouts: folders below that, in which torchvision or others may have put them.
        md5: of each archive, by the name of its file.
        urls: returns the addresses of each archive, by the name of its file; called before anything is fetched.
    """

    name: str
    folder: str
    layouts: tuple[str, ...]
    md5: Mapping[str, str]
    urls: Urls

    @property
    def home(self) -> Path:
        return Path(DEFAULT_ROOT).absolute().with_name(self.folder)

    @property
    def set_root(self) -> str:
        return f"set data.root=<folder with {', '.join(self.md5)}>"


class _AbsentError(DataError):
    """A folder lacks some of the archives; those that it has are intact."""


def found_in(
    published: Published,
    root: str | Path | None = None,
    *,
    download: bool = True,
    download_to: str | Path | None = None,
) -> Path:
    """Return the first folder that has all archives, intact; fetch them if none has.

    Args:
        root: a folder to look into; None or empty for ``published.home``.
        download: whether to fetch them.
        download_to: the folder to fetch them into, created if missing; None or empty for ``root``.

    Raises:
        DataError: ``root`` does not exist; no source has the archives; one in a folder that was asked for is
            not the published one (in ``published.home`` it is fetched again); they cannot be stored.
    """
    given = [typed_path(str(folder)).absolute() for folder in (root, download_to) if folder]
    if root and not given[0].exists():
        way_out = f"correct it, or have the dataset fetched there: data.download_to={given[0]}"
        raise DataError("data.root", f"there is no {str(given[0])!r}", way_out)
    home = given[-1] if given else published.home
    reasons: list[str] = []
    for place in dict.fromkeys((*given, home)):
        try:
            check(published, place)
            return place
        except DataError as error:
            if not isinstance(error, _AbsentError):
                if place in given:
                    raise
                log.warning("%s %s: fetched again", error.subject, error.problem)
            reasons.append(f"{error.subject} {error.problem}")
    if download:
        if root and not download_to:
            log.warning("%s: fetching the dataset into %s", reasons[-1], home)
        if _fetch(published, home, ours=not given, reasons=reasons):
            return home
    problem = f"{published.name} was not found ({'; '.join(reasons)})"
    network = "connect to the network" if download else "allow the download (data.download=true)"
    raise DataError("data.root", problem, f"{published.set_root}, or {network}")


def check(published: Published, root: Path) -> None:
    """Verify all archives in a folder.

    Raises:
        DataError: one is missing, or is not the published one.
    """
    missing = []
    for name in published.md5:
        if locate(published, root, name):
            verified(published, root, name).close()
        else:
            missing.append(name)
    if missing:
        problem = f"lacks {', '.join(missing)}" if len(missing) < len(published.md5) else "has none of its files"
        raise _AbsentError(root, problem, published.set_root)


def locate(published: Published, root: Path, name: str) -> Path | None:
    """Return the path of an archive below a folder, or None."""
    candidates = [root / layout / name for layout in published.layouts]
    try:
        return next((path for path in candidates if path.is_file() or path.is_symlink()), None)
    except OSError as error:
        raise DataError(root, f"cannot be read ({error.strerror})", published.set_root) from None


def verified(published: Published, root: Path, name: str) -> IO[bytes]:
    """Open an archive after a check of its MD5: what is read from the file is what was verified."""
    path, way_out = locate(published, root, name) or root / name, f"delete the file, or {published.set_root}"
    try:
        file = path.open("rb")
        found = _md5(file)
        file.seek(0)
    except OSError as error:
        raise DataError(path, f"is damaged or cannot be read ({error.strerror or error})", way_out) from None
    if found != published.md5[name]:
        file.close()
        problem = f"is not that of {published.name} (MD5 {found[:8]}, expected {published.md5[name][:8]})"
        raise DataError(path, problem, way_out)
    return file


def _md5(file: IO[bytes]) -> str:
    content = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(CHUNK):
        content.update(chunk)
    return content.hexdigest()


# --- fetching ---------------------------------------------------------------------------------------------------


def _fetch(published: Published, root: Path, *, ours: bool, reasons: list[str]) -> bool:
    """Fetch what a folder lacks; return False if no source has it, with the reasons appended to ``reasons``."""
    try:
        make_directory(root)
        with locks.held(root / ".lock", LOCKLESS):
            missing = []
            for name in published.md5:  # another process may have fetched them meanwhile
                try:
                    if locate(published, root, name):
                        verified(published, root, name).close()
                        continue
                except DataError:
                    if not ours:
                        raise
                missing.append(name)
            ready = {}
            for name in missing:
                if not (path := _fetched(published, root, name, reasons)):
                    return False
                ready[name] = path
            for name, path in ready.items():
                path.replace(locate(published, root, name) or root / name)
            sync_directory(root)
    except OSError as error:
        problem = (
            f"has not all files of {published.name}, and they cannot be kept there ({error.strerror or error})"
        )
        way_out = "set data.download_to=<folder> that can be written and has room"
        raise DataError(root, problem, way_out) from None
    return True


def _fetched(published: Published, root: Path, name: str, reasons: list[str]) -> Path | None:
    """Fetch one archive from the first address that has it; return its path, still under a temporary name."""
    part = root / f"{PART}{name}"
    try:
        urls = published.urls()[name]
    except (ImportError, RuntimeError) as error:
        reasons.append(f"torchvision cannot be imported ({error})")
        return None
    for url in urls:
        begun = part.exists() and part.stat().st_size > 0
        for _ in range(1 + begun):  # what an earlier process left may be of no use: then from the start
            log.info("fetching %s from %s", name, url)
            try:
                _download(url, part)
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, OSError) and not isinstance(error, urllib.error.URLError) and error.filename:
                    raise  # of the disk
                reasons.append(f"{url} cannot be fetched ({error})")
                break
            with part.open("rb") as file:
                found = _md5(file)
            if found == published.md5[name]:
                return part
            part.unlink()
            if not begun:
                reasons.append(f"{url} gives another file (MD5 {found[:8]}, expected {published.md5[name][:8]})")
            begun = False
    return None


def _download(url: str, part: Path) -> None:
    """Fetch a file into ``part``, from where it ends if the server can begin there."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=CONNECT_LIMIT)  # the limit is per read
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing lies beyond: it is whole, or another file
            raise
        return
    with response:
        goes_on = response.status == 206 and _start(response) == done
        _append(response, part, done if goes_on else 0)


def _append(response: Any, part: Path, done: int) -> None:
    length = response.headers.get("Content-Length") or ""
    total = done + int(length) if length.isdecimal() else None
    name = part.name.removeprefix(PART)
    with (
        part.open("ab" if done else "wb") as file,
        new_bar(desc=name, total=total, initial=done, unit="B", unit_scale=True) as bar,
    ):
        make_readable(file.fileno())
        while chunk := response.read1(CHUNK):
            _write(file, part, chunk)
            done += len(chunk)
            bar.update(len(chunk))
            if done > MOST:
                raise ValueError(f"more than {MOST} bytes")
        file.flush()
        sync(file.fileno())
    if total is not None and done < total:
        raise ValueError(f"it ended after {done} of {total} bytes")


def _write(file: IO[bytes], part: Path, chunk: bytes) -> None:
    """Write a chunk; an error of the disk gets the file's name, by which it is told from one of the network."""
    try:
        file.write(chunk)
    except OSError as error:
        error.filename = str(part)
        raise


def _start(response: Any) -> int | None:
    """Return the first byte's place that a server answers a range with; None if it says none."""
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return int(said[1]) if said else None
