"""Find, download and verify the four IDX files of Fashion-MNIST; the bytes that are hashed are those parsed."""

import contextlib
import gzip
import hashlib
import logging
import math
import os
import shutil
import struct
import subprocess
import time
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fmvae.common import locks
from fmvae.common.disk import sync, sync_directory
from fmvae.common.text import typed_path
from fmvae.config.project import user_cache
from fmvae.errors import DataError

log = logging.getLogger("fmvae")

SHA256 = {  # of the decompressed files: mirrors compress differently, so hashes of the .gz files differ
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(SHA256)
SIZES = dict(zip(FILES, (47_040_016, 60_008, 7_840_016, 10_008), strict=True))  # bytes, decompressed
MAX_SIZE = 512 * 2**20  # bytes, for files of the user's own, whose size is not known beforehand

PACKAGE, PACKAGE_FOLDER = "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"  # Debian's and Ubuntu's
SYSTEM_ROOT = Path("/", PACKAGE_FOLDER)
LAYOUTS = ("", "raw", "FashionMNIST/raw")  # folders below a root; the last two are torchvision's

CONNECT_LIMIT, DOWNLOAD_LIMIT, APT_LIMIT = 15, 600, 300  # seconds
SET_ROOT = "set data.root=<folder with the four files>"
LOCKLESS = "have it fetched to another disk: data.download_to=<folder>"
GO_ON = "another source is needed"  # for errors that load_dataset only lists as reasons in its own message


def _default_root() -> Path:
    """Return ``data/fashion-mnist`` of the checkout, or the user's cache without a writable checkout."""
    project = Path(__file__).resolve().parents[2]
    kept = project / "data" / "fashion-mnist"
    nearest = next(folder for folder in (kept, kept.parent, project) if folder.exists())
    if (project / "pyproject.toml").is_file() and (os.access(nearest, os.W_OK) or (kept / FILES[0]).is_file()):
        return kept
    return user_cache() / "fashion-mnist"


DEFAULT_ROOT = _default_root()


@dataclass(frozen=True, eq=False)
class RawDataset:
    """The dataset as stored in ``root``: images ``(N, H, W)``, labels ``(N,)``, all uint8, 0 is black.

    ``sha256`` maps each of ``FILES`` to the hash of its decompressed content.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    sha256: dict[str, str]
    root: Path


class _AbsentError(DataError):
    """A folder lacks some of the four files; the files that it has are valid."""


def load_dataset(
    root: str | Path | None = None,
    *,
    download: bool = True,
    download_to: str | Path | None = None,
    sha256: Mapping[str, str] | None = None,
) -> RawDataset:
    """Load the dataset from the first folder that has it; download it if none has.

    The sources, in order: ``root``, ``download_to``, ``SYSTEM_ROOT``, torchvision's mirrors, the Debian package.

    Args:
        root: folder with the four files, plain or ``.gz``; ``None`` or empty for ``DEFAULT_ROOT``.
        download: whether to try the last two sources.
        download_to: folder to download into, created if missing; ``None`` or empty for ``root``.
        sha256: hash of each of ``FILES``, decompressed; ``None`` for those of Fashion-MNIST.

    Raises:
        DataError: an explicit ``root`` does not exist; no source has the files; a file in an explicit folder has
            a wrong hash (one in ``DEFAULT_ROOT`` is downloaded again); the downloaded files cannot be stored.
    """
    expected = {name: digest.lower() for name, digest in (sha256 or SHA256).items()}
    if expected.keys() != SHA256.keys():
        raise DataError("data.sha256", f"names {', '.join(expected)}", f"name {', '.join(FILES)}")
    ours = not root and not download_to
    given = [typed_path(str(folder)).absolute() for folder in (root, download_to) if folder]
    if root and not given[0].exists():
        way_out = f"correct it, or have the dataset fetched there: data.download_to={given[0]}"
        raise DataError("data.root", f"there is no {str(given[0])!r}", way_out)
    home = given[-1] if given else Path(DEFAULT_ROOT).absolute()
    reasons: list[str] = []
    for place in dict.fromkeys((*given, home, SYSTEM_ROOT)):
        missed = f"{reasons[-1]}: " if reasons and root else ""  # warn if the requested folder lacks files
        log.log(logging.WARNING if missed else logging.INFO, "%slooking for the dataset in %s", missed, place)
        try:
            return _load(place, expected)
        except DataError as error:
            if not isinstance(error, _AbsentError):  # damaged: always report it
                if place in given:
                    raise
                log.warning("%s %s: trying other sources", error.subject, error.problem)
            reasons.append(f"{error.subject} {error.problem}")
    if download and root and not download_to:
        log.warning("fetching the dataset into %s, which has not all of its files", home)
    if download and (fetched := _fetch(home, expected, ours, reasons)):
        return fetched
    problem = f"the dataset was not found ({'; '.join(reasons)})"
    network = "connect to the network" if download else "allow the download"
    raise DataError("data.root", problem, f"{SET_ROOT}, `sudo apt-get install {PACKAGE}`, or {network}")


def _load(root: Path, expected: Mapping[str, str]) -> RawDataset:
    """Read, verify and parse the files in ``root``; raise ``_AbsentError`` if some are missing."""
    arrays = {}
    for name in FILES:
        if path := _find(root, name):
            arrays[name] = parse_idx(path, _read(path, name, expected[name]), 3 if "images" in name else 1)
    if missing := [name for name in FILES if name not in arrays]:
        problem = f"lacks {', '.join(missing)}" if arrays else "has none of the files"
        raise _AbsentError(root, problem, SET_ROOT)
    data = RawDataset(*(arrays[name] for name in FILES), sha256=dict(expected), root=root)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        if len(images) != len(labels) or images.shape[1:] != data.train_images.shape[1:]:
            raise DataError(root, f"images {images.shape} do not fit the other arrays", SET_ROOT)
    return data


def _find(root: Path, name: str) -> Path | None:
    """Return the file's path below ``root`` (plain before ``.gz``), or None; a dangling link counts as a file."""
    candidates = [root / layout / file for layout in LAYOUTS for file in (name, f"{name}.gz")]
    try:
        return next((path for path in candidates if path.is_file() or path.is_symlink()), None)
    except OSError as error:
        raise DataError(root, f"cannot be read ({error.strerror})", SET_ROOT) from None


def _read(path: Path, name: str, sha256: str) -> bytearray:
    """Return the decompressed, verified content of ``path``; stop reading beyond the expected size."""
    limit = SIZES[name] if sha256 == SHA256[name] else MAX_SIZE
    way_out = f"delete the file or {SET_ROOT}"
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"  # look at the content: browsers decompress and keep ".gz"
            file.seek(0)
            content = _read_at_most(limit + 1, gzip.GzipFile(fileobj=file) if packed else file)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(path, f"is damaged or cannot be read ({error})", way_out) from None
    if len(content) > limit:
        raise DataError(path, f"holds more than the {limit} bytes expected", way_out)
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        whose = "Fashion-MNIST's" if sha256 == SHA256[name] else "the one asked for"
        problem = f"is not {whose} (SHA-256 {found[:8]} of {len(content)} bytes, expected {sha256[:8]})"
        raise DataError(path, problem, way_out)
    return content


def _read_at_most(size: int, stream: BufferedIOBase, seconds: float = math.inf) -> bytearray:
    """Read up to ``size`` bytes, in chunks: ``read(size)`` would allocate all of them for a short stream too."""
    content, deadline = bytearray(), time.monotonic() + seconds
    while len(content) < size and (chunk := stream.read1(min(2**20, size - len(content)))):
        content += chunk
        if time.monotonic() > deadline:
            raise TimeoutError(f"not complete after {seconds:.0f} s")
    return content


def parse_idx(path: Path, content: bytes | bytearray, num_dims: int, dtype: str = "u1") -> np.ndarray:
    """Parse IDX: 0, 0, type (8: bytes, 12: int32), number of dimensions; each as big-endian uint32; data."""
    start, kind, size = 4 + 4 * num_dims, {"u1": 8, ">i4": 12}[dtype], np.dtype(dtype).itemsize
    if len(content) < start or content[:4] != bytes((0, 0, kind, num_dims)):
        raise DataError(path, f"is not an IDX file of {np.dtype(dtype)} in {num_dims} dimension(s)", SET_ROOT)
    shape = struct.unpack(f">{num_dims}I", content[4:start])
    if not all(shape) or math.prod(shape) * size != len(content) - start:
        raise DataError(path, f"announces shape {shape} but holds {len(content) - start} bytes", SET_ROOT)
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _fetch(root: Path, expected: Mapping[str, str], ours: bool, reasons: list[str]) -> RawDataset | None:
    """Download into ``root``; return None if no source has the files, with a reason for each in ``reasons``.

    One process downloads; others wait for its lock and then find the files.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locks.held(root / ".lock", LOCKLESS):
            with contextlib.suppress(DataError if ours else _AbsentError):
                return _load(root, expected)
            for stale in root.glob(".fetch-*"):  # left by a killed process: the lock is ours
                shutil.rmtree(stale, ignore_errors=True)
            for source, fetch in (("mirrors", _fetch_from_mirrors), ("Debian package", _fetch_from_debian)):
                log.info("fetching the dataset into %s: %s", root, source)
                with TemporaryDirectory(prefix=".fetch-", dir=root, ignore_cleanup_errors=True) as staging:
                    try:
                        _publish(fetch(Path(staging), expected), Path(staging), root, expected, replace=ours)
                        return _load(root, expected)
                    except DataError as error:
                        reasons.append(f"{source}: {error.subject} {error.problem}")
    except OSError as error:
        problem = f"has not all of the four files, and they cannot be kept there ({error.strerror or error})"
        raise DataError(root, problem, f"{SET_ROOT}, or one that can be written and has room") from None
    return None


def _publish(found: Path, staging: Path, root: Path, expected: Mapping[str, str], *, replace: bool) -> None:
    """Move the decompressed files into ``root``, each atomically, and only after all four are verified."""
    ready = staging / "ready"
    ready.mkdir()
    for name in FILES:
        if not (path := _find(found, name)):
            raise DataError(name, "was not among the files fetched", GO_ON)
        with (ready / name).open("wb") as file:
            file.write(_read(path, name, expected[name]))
            file.flush()
            sync(file.fileno())
    for name in FILES:
        if replace or not _find(root, name):
            (ready / name).replace(root / name)
    sync_directory(root)


def _fetch_from_mirrors(staging: Path, expected: Mapping[str, str]) -> Path:
    """Download each file from the first mirror that has it; return the folder with the files."""
    for name in FILES:
        problems = []
        for url in _mirror_urls(name):
            try:
                _download(url, staging / f"{name}.gz", 2 * SIZES[name])
                _read(staging / f"{name}.gz", name, expected[name])  # raises for a login page: next mirror
                break
            except DataError as error:
                problems.append(f"{url} {error.problem}")
        else:
            raise DataError(name, "; ".join(problems) or "has no mirror", GO_ON)
    return staging


def _mirror_urls(name: str) -> list[str]:
    try:
        from torchvision.datasets import FashionMNIST  # seconds to import, and only needed here
    except (ImportError, RuntimeError) as error:
        raise DataError("torchvision", f"cannot be imported ({error})", GO_ON) from None
    files = [file for file, _ in FashionMNIST.resources if name in file]
    return [mirror + file for mirror in FashionMNIST.mirrors for file in files]


def _download(url: str, path: Path, limit: int) -> None:
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_LIMIT) as response:  # the limit is per read
            path.write_bytes(_read_at_most(limit, response, seconds=DOWNLOAD_LIMIT))
    except (OSError, HTTPException) as error:
        raise DataError(url, f"cannot be fetched ({error})", GO_ON) from None


def _fetch_from_debian(staging: Path, expected: Mapping[str, str]) -> Path:
    """Download and unpack the Debian package, without root rights; return the folder with the files."""
    try:
        _run("apt-get", "download", PACKAGE, cwd=staging)
    except DataError:  # the machine's package lists are missing or stale: use fresh ones of our own
        (staging / "apt" / "partial").mkdir(parents=True)  # apt creates it in its default folder only
        private = [f"-oDir::{key}={staging}/apt" for key in ("State", "State::lists", "Cache")]
        with contextlib.suppress(DataError):  # fails if any archive fails, perhaps not the one needed
            _run("apt-get", *private, "update", cwd=staging)
        _run("apt-get", *private, "download", PACKAGE, cwd=staging)
    for package in staging.glob("*.deb"):
        _run("dpkg-deb", "-x", package.name, "unpacked", cwd=staging)
    return staging / "unpacked" / PACKAGE_FOLDER


def _run(*args: str, cwd: Path) -> None:
    try:
        done = subprocess.run(args, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=APT_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(args[0], f"failed ({error})", GO_ON) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").splitlines() or [f"exit status {done.returncode}"]
        why = next((line for line in said if line.startswith("E:")), said[-1])  # apt marks its errors so
        raise DataError(args[0], f"failed ({why})", GO_ON)
