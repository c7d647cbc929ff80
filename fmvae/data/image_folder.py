"""Images of a folder of the user's own, one file each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmvae.common.text import typed_path
from fmvae.config.project import user_cache
from fmvae.data.arrays import Outline, filled
from fmvae.data.binarize import Binarize
from fmvae.data.decoding import decode
from fmvae.data.grid import Grid
from fmvae.data.images import ImageData
from fmvae.data.listing import Headers, Listing, folder_at, headers, in_threads, listed
from fmvae.data.npy import most_bytes
from fmvae.data.split import a_tenth, choose
from fmvae.data.tables import Source, Table, open_table
from fmvae.errors import ConfigError, DataError

VERSION = 1  # of how files become pixels; a change of any pixel needs another
log = logging.getLogger("fmvae")


class ImageFolder(ImageData):
    """Images of a folder: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP, one frame, grey or RGB.

    The folder has a folder for each class, or images only. It may have two such folders ``train`` and ``test``;
    otherwise test images are held out, the same for all seeds. Files are decoded once, in parallel, into the
    cache, by the digest of their names and contents.

    A run is named by this digest. What is null in the config, and follows from the files, is filled in while
    composing (``completed``). Pixels may depend on the version of Pillow, so checkpoints hold their digest.

    Args:
        root: the folder.
        sha256: of all names and contents; None takes any.
        size: height and width to which all images are brought, or one number for both; None needs equal sizes.
        grey: True makes all images grey, False all RGB; None is grey if all files are.
        cache: folder for the decoded images; None means the user's cache.
        image_shape: what the config says of the images, for models; checked against the data.
        num_classes: checked against the folders; None means as many as there are. 0 leaves labels out.
        class_names: None means the names of the folders.
        val_size, num_train, num_test, stratified, seed: as for ``choose``; None for ``val_size`` is a tenth.
        batch_size, device, binarize: as for ``ImageData``.

    Raises:
        DataError: the folder is missing, a file cannot be taken, or the images are too large for this machine.
        ConfigError: a number does not fit.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        sha256: str | None = None,
        size: int | Sequence[int] | None = None,
        grey: bool | None = None,
        cache: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        val_size: int | None = None,
        stratified: bool = True,
        num_train: int | None = None,
        num_test: int | None = None,
        batch_size: int = 128,
        seed: int = 0,
        device: torch.device | str = "cpu",
        binarize: Binarize | None = None,
    ):
        listing = listed(folder_at(root))
        self.root = listing.root
        known = headers(listing)
        if sha256 is not None and known.sha256 != sha256.lower():
            problem = f"holds other images than the run's (SHA-256 {known.sha256[:8]}, not {sha256[:8]})"
            way_out = "put them back as they were, or set data.root to where they are"
            raise DataError(self.root, problem, way_out)
        shape = _shape(listing, known, size, grey)
        table = _table(listing, known, shape, cache)
        labels = np.array([entry.label for entry in listing.entries])
        chosen = choose(
            labels[: listing.num_train],
            labels[listing.num_train :] if listing.own_test else None,
            val_size=a_tenth(listing.num_train) if val_size is None else val_size,
            num_train=num_train,
            num_test=num_test,
            stratified=stratified,
            seed=seed,
        )
        labelled = bool(listing.classes) and num_classes != 0

        def part(index: torch.Tensor, offset: int = 0) -> tuple[torch.Tensor, np.ndarray | None]:
            return table.images(index + offset), labels[index.numpy() + offset] if labelled else None

        super().__init__(
            train=part(chosen.train),
            val=part(chosen.val),
            test=part(chosen.test, listing.num_train if listing.own_test else 0),
            num_classes=len(listing.classes) if labelled else None,
            class_names=class_names or (listing.classes if labelled else None),
            sha256={"files": known.sha256, "images": table.sha256},
            batch_size=batch_size,
            device=device,
            binarize=binarize,
            seed=seed,
        )

    @classmethod
    def completed(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        listing = listed(folder_at(node.get("root")))
        known = headers(listing)
        shape = _shape(listing, known, node.get("size"), node.get("grey"))
        count = 0 if node.get("num_classes") == 0 else len(listing.classes)
        outline = Outline(known.sha256, shape, listing.num_train, listing.own_test, count)
        values = {"root": str(listing.root), **filled(node, outline)}
        if node.get("grey") is None:
            values["grey"] = shape[0] == 1
        if node.get("size") is not None:
            values["size"] = list(shape[1:])  # 32 and [32,32] are the same run
        return values


def _shape(
    listing: Listing, known: Headers, size: int | Sequence[int] | None, grey: bool | None
) -> tuple[int, int, int]:
    """Return (C, H, W) of the images.

    Raises:
        DataError: they differ in size, and ``size`` is None; or they are too many for this machine.
        ConfigError: ``size`` is no size.
    """
    if size is not None:
        sides = [size, size] if isinstance(size, int) else list(size)
        if len(sides) != 2 or min(sides) < 1:
            raise ConfigError("data.size", f"{size} is no height and width", "give one number, or two as [32,32]")
        height, width = sides
    else:
        height, width = known.of[0].size
        for entry, header in zip(listing.entries, known.of, strict=True):
            if header.size != (height, width):
                first = listing.name(listing.entries[0])
                problem = f"null, but {listing.name(entry)} has {header.size[0]}x{header.size[1]} pixels"
                way_out = f"give data.size=[{height},{width}] to bring all images to one size"
                raise DataError("data.size", f"{problem} and {first} {height}x{width}", way_out)
    channels = 1 if (all(header.grey for header in known.of) if grey is None else grey) else 3
    if (need := len(known.of) * prod((channels, height, width))) > most_bytes():
        problem = f"{len(known.of):,} images of {channels}x{height}x{width} are {need / 1e9:,.1f} GB"
        problem += ", more than a third of this machine's memory"
        raise DataError(listing.root, problem, "give data.size=[32,32], or fewer images")
    return channels, height, width


def _table(listing: Listing, known: Headers, shape: tuple[int, int, int], cache: str | Path | None) -> Table:
    """Return the decoded images, from the cache if it has them."""
    import PIL

    channels, *size = shape

    def one(at: int) -> np.ndarray:
        entry, header = listing.entries[at], known.of[at]
        return decode(listing.root / entry.path, listing.name(entry), header.sha256, (size[0], size[1]), channels)

    def blocks() -> Iterator[np.ndarray]:
        for block in in_threads(range(len(known.of)), one):
            yield np.stack(block)

    definition = {"version": VERSION, "pillow": PIL.__version__, "files": known.sha256, "image_shape": list(shape)}
    home = typed_path(str(cache)) if cache else user_cache() / "images"
    grid = Grid(("image",), (len(known.of),))
    return open_table(home, "images", definition, lambda: Source(grid, shape, blocks()))
