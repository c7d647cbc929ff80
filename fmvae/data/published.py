"""dSprites and 3D Shapes: published files of images with factors, identified by their digests.

Nothing in them is unpickled: dSprites keeps its description as a pickled object, which is never read.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch

from fmvae.common.text import typed_path
from fmvae.config.project import install, user_cache
from fmvae.data.factors import FactorData
from fmvae.data.grid import Grid
from fmvae.data.tables import Source, open_table
from fmvae.errors import ConfigError, DataError

BLOCK = 4096  # images read at a time: 50 MB of 64x64 RGB
CHUNK = 2**20


class PublishedFactors(FactorData):
    """Images of a file that holds one for every combination of factors, in lexicographic order.

    The images are copied into the cache once, uncompressed, as they are read in random order. After that the file
    is no longer needed.

    Args:
        root: the file, or a folder that has it under its published name; None means ``<name>`` in the cache.
        sha256: digest of a file of the user's own; None means the published file.
        cache: folder for the copy; None means the user's cache.
        apart, num_train, val_size, num_test, seed: as for ``Grid.split``.
        image_shape, num_classes: what the config says of the images, for models; checked against the data.
        batch_size, device: as for ``ImageData``.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    source: ClassVar[str]  # address to get the file from
    published: ClassVar[Mapping[str, str]]  # digests of the file by method, see ``digests``

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        sha256: str | None = None,
        cache: str | Path | None = None,
        apart: Sequence[str] | None = None,
        num_train: int | None = 50_000,
        val_size: int = 5000,
        num_test: int | None = 10_000,
        image_shape: Sequence[int] = (),
        num_classes: int = 0,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if sha256 is not None and not isinstance(sha256, str):
            raise ConfigError("data.sha256", f"{sha256!r} is no text", "give the file's SHA-256, or null")
        wanted = {"sha256": sha256.lower()} if sha256 else dict(self.published)
        super().__init__(
            open_table(cache, self.name, {"file": wanted}, lambda: self.read(self._found(root, wanted))),
            apart=apart,
            num_train=num_train,
            val_size=val_size,
            num_test=num_test,
            batch_size=batch_size,
            seed=seed,
            device=device,
        )

    @classmethod
    def _found(cls, root: str | Path | None, wanted: Mapping[str, str]) -> Path:
        """Return the file's path, after a check of its digests."""
        path = typed_path(str(root)).absolute() if root else user_cache() / cls.name
        path = path / cls.file if path.is_dir() or not root else path
        if not path.is_file():
            problem = f"there is no {str(path)!r}"
            raise DataError(
                "data.root", problem, f"get the file from {cls.source} and set data.root=<folder with it>"
            )
        found = digests(path, wanted)
        for method, digest in wanted.items():
            if found[method] != digest:
                problem = f"is not the file asked for ({method} {found[method][:8]}, expected {digest[:8]})"
                way_out = f"get it from {cls.source}, or give data.sha256 of a file of your own"
                raise DataError(path, problem, way_out)
        return path

    @classmethod
    def read(cls, path: Path) -> Source:
        """Open a verified file.

        Raises:
            DataError: it has another form.
        """
        raise NotImplementedError


def digests(path: Path, methods: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return digests (hex) of a file: ``sha256``, ``md5``, or ``git``, the name that git gives its content."""
    makers = {name: hashlib.new({"git": "sha1"}.get(name, name), usedforsecurity=False) for name in methods}
    try:
        if "git" in makers:
            makers["git"].update(f"blob {path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for maker in makers.values():
                    maker.update(chunk)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "correct data.root") from None
    return {name: maker.hexdigest() for name, maker in makers.items()}


class DSprites(PublishedFactors):
    """dSprites (Matthey et al. 2017): 3 shapes x 6 scales x 40 orientations x 32 x 32 places, black and white.

    Images are of 64x64 pixels. The sixth factor, the colour, has one value and is left out. The copy in the cache
    takes 0.4 GB.
    """

    name = "dsprites"
    file = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    source = "https://github.com/google-deepmind/dsprites-dataset"
    # both must match: its publisher's repository names it by git's digest, and others who use it by MD5
    published: ClassVar[Mapping[str, str]] = {
        "git": "d98996d3f8ee1550e06b9d4ed78d0beb478910d5",
        "md5": "7da33b31b13a06f4b04a70402ce90c2e",
    }
    factors_in_file: ClassVar[tuple[str, ...]] = ("color", "shape", "scale", "orientation", "x", "y")

    @classmethod
    def read(cls, path: Path) -> Source:
        with zipfile_of(path) as archive:
            with member(archive, path, "latents_classes") as file:
                classes = np.lib.format.read_array(file, allow_pickle=False)
            with member(archive, path, "imgs") as file:
                shape, dtype = header(file)
        if classes.ndim != 2 or classes.shape[1] != len(cls.factors_in_file) or classes.dtype.kind not in "iu":
            raise unlike(path, f"latents_classes is {classes.dtype} {classes.shape}")
        if len(shape) != 3 or shape[0] != len(classes) or dtype != np.uint8:
            raise unlike(path, f"imgs is {dtype} {shape} for {len(classes)} rows of latents_classes")
        grid = grid_of(path, classes, cls.factors_in_file)
        return Source(grid, (1, *shape[1:]), cls._blocks(path, shape), black_and_white=True)

    @classmethod
    def _blocks(cls, path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """Decompress the images one block after another; 3 GB at once would be too much for many machines."""
        num_pixels = prod(shape[1:])
        with zipfile_of(path) as archive, member(archive, path, "imgs") as file:
            header(file)
            for start in range(0, shape[0], BLOCK):
                num = min(BLOCK, shape[0] - start)
                content = file.read(num * num_pixels)
                if len(content) < num * num_pixels:
                    raise unlike(path, "imgs ends too early")
                block = np.frombuffer(content, np.uint8).reshape(num, 1, *shape[1:])
                if block.max() > 1:
                    raise unlike(path, f"imgs holds {block.max()}, and not only 0 and 1")
                yield block


class Shapes3D(PublishedFactors):
    """3D Shapes (Burgess & Kim 2018): a shape in a room, six factors, 480,000 RGB images of 64x64 pixels.

    The copy in the cache takes 5.9 GB. The library h5py reads the file.
    """

    name = "shapes3d"
    file = "3dshapes.h5"
    source = "https://github.com/google-deepmind/3d-shapes"
    published: ClassVar[Mapping[str, str]] = {
        "sha256": "0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"
    }
    factors_in_file: ClassVar[tuple[str, ...]] = (
        "floor_hue",
        "wall_hue",
        "object_hue",
        "scale",
        "shape",
        "orientation",
    )

    @classmethod
    def read(cls, path: Path) -> Source:
        try:
            import h5py  # pyright: ignore[reportMissingImports] - an extra
        except ImportError as error:
            problem = f"3D Shapes need the library h5py ({error})"
            raise ConfigError("data", problem, install("factors")) from None
        try:
            with h5py.File(path, "r") as file:
                images: Any = file["images"]  # h5py's types allow a group here, which has no shape
                labels = np.asarray(file["labels"])
                shape, dtype = tuple(images.shape), images.dtype
        except (OSError, KeyError, AttributeError) as error:
            raise unlike(path, str(error)) from None
        if labels.ndim != 2 or labels.shape[1] != len(cls.factors_in_file):
            raise unlike(path, f"labels is {labels.dtype} {labels.shape}")
        if len(shape) != 4 or shape[0] != len(labels) or shape[3] != 3 or dtype != np.uint8:
            raise unlike(path, f"images is {dtype} {shape} for {len(labels)} rows of labels")
        classes = np.stack([np.unique(column, return_inverse=True)[1] for column in labels.T], axis=1)
        grid = grid_of(path, classes, cls.factors_in_file)
        return Source(grid, (3, *shape[1:3]), cls._blocks(h5py, path, shape))

    @classmethod
    def _blocks(cls, h5py: Any, path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        try:
            with h5py.File(path, "r") as file:
                for start in range(0, shape[0], BLOCK):
                    block = np.asarray(file["images"][start : start + BLOCK])
                    yield block.transpose(0, 3, 1, 2)
        except (OSError, KeyError) as error:
            raise unlike(path, str(error)) from None


# --- the forms of files -----------------------------------------------------------------------------------------


def unlike(path: Path, problem: str) -> DataError:
    """Return the error for a file that has the right digest and another form, as of a user's own file."""
    return DataError(
        path, f"has another form than the published file: {problem}", "give data.root of another file"
    )


def grid_of(path: Path, classes: np.ndarray, names: Sequence[str]) -> Grid:
    """Return the grid of factors (N, K), without those that have one value, after a check of their order."""
    sizes = [int(column.max()) + 1 if len(column) else 0 for column in classes.T]
    kept = [k for k, size in enumerate(sizes) if size > 1]
    grid = Grid(tuple(names[k] for k in kept), tuple(sizes[k] for k in kept))
    if not kept or len(grid) != len(classes):
        raise unlike(path, f"{len(classes)} images for factors of {sizes} values")
    expected = grid.factors(torch.arange(len(grid))).numpy()
    if not np.array_equal(classes[:, kept], expected) or classes.min() < 0:
        raise unlike(path, "its images are not in lexicographic order of their factors")
    return grid


def zipfile_of(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise unlike(path, str(error)) from None


@contextmanager
def member(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open an array of an .npz file inside, with one line for whatever is wrong with it."""
    try:
        with archive.open(f"{name}.npy") as file:
            yield file
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise unlike(path, f"{name}: {error.args[0] if error.args else type(error).__name__}") from None


def header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of a .npy file in C order: shape and dtype. ValueError for another version or order."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = read(file)
    if fortran:
        raise ValueError("the array is in Fortran's order")
    return shape, dtype
