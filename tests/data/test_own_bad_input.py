"""Bad input as one's own images: one line that names what is wrong and the way out, in bounded memory."""

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fmvae.assembly import assemble
from fmvae.config import compose
from fmvae.data import npy
from fmvae.data.decoding import read_header
from fmvae.errors import FmvaeError
from tests.data.own_images import drawn, encoded, folder, huge_png, npz

BOUND = 30 * 2**20  # bytes that a refusal may take at most
IMAGES, LABELS = drawn()
FLOATS = IMAGES / 255


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def replaced(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed[7, 3, 3] = value
    return changed


def raw_npy(shape: tuple[int, ...], content: bytes, descr: str = "|u1") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


Make = Callable[[Path], Path]
ARRAYS: dict[str, tuple[Make, list[str]]] = {
    "a float of 255": (
        lambda p: npz(p, images=IMAGES.astype(np.float32)),
        ["(images): float32 with 255", "divide by"],
    ),
    "a float below 0": (
        lambda p: npz(p, images=replaced(FLOATS, -0.5)),
        ["float64 with -0.5", "bring it to [0, 1]"],
    ),
    "NaN": (lambda p: npz(p, images=replaced(FLOATS, np.nan)), ["float64 with nan", "numpy.nan_to_num"]),
    "infinity": (lambda p: npz(p, images=replaced(FLOATS, np.inf)), ["float64 with inf", "numpy.nan_to_num"]),
    "int64 of 256": (
        lambda p: npz(p, images=replaced(IMAGES.astype(int), 256)),
        ["int64 with 256", "0 to 255", "uint8"],
    ),
    "int8 of -1": (lambda p: npz(p, images=replaced((IMAGES // 2).astype(np.int8), -1)), ["int8 with -1"]),
    "few labels": (
        lambda p: npz(p, images=IMAGES, labels=LABELS[:-5]),
        ["(labels): 115 labels for 120 images", "one"],
    ),
    "float labels": (lambda p: npz(p, images=IMAGES, labels=LABELS * 1.0), ["(labels): float64 120", "as int64"]),
    "named labels": (lambda p: npz(p, images=IMAGES, labels=LABELS.astype(str)), ["(labels): <U", "numpy.unique"]),
    "one-hot labels": (lambda p: npz(p, images=IMAGES, labels=np.eye(3, dtype=int)[LABELS]), ["labels.argmax(1)"]),
    "negative labels": (lambda p: npz(p, images=IMAGES, labels=LABELS - 1), ["(labels): label -1", "from 0"]),
    "an empty class": (
        lambda p: npz(p, images=IMAGES, labels=LABELS * 2),
        ["no image of class 1", "data.num_classes=5"],
    ),
    "no test": (lambda p: npz(p, x_train=IMAGES, y_train=LABELS), ["has x_train, but no x_test", "add x_test"]),
    "no test labels": (
        lambda p: npz(p, x_train=IMAGES, y_train=LABELS, x_test=IMAGES),
        ["has y_train, and no", "neither"],
    ),
    "other test shape": (
        lambda p: npz(p, x_train=IMAGES, x_test=IMAGES[:, 1:]),
        ["(x_test): its images are [1, 11, 12]"],
    ),
    "other names": (lambda p: npz(p, arr_0=IMAGES), ["has the arrays 'arr_0'", "x_train"]),
    "both forms": (
        lambda p: npz(p, images=IMAGES, x_train=IMAGES, x_test=IMAGES),
        ["has the arrays 'images', 'x_"],
    ),
    "rows of pixels": (lambda p: npz(p, images=IMAGES.reshape(120, -1)), ["an array of 120x144", "reshape(-1"]),
    "four channels": (
        lambda p: npz(p, images=np.zeros((9, 8, 8, 4), np.uint8)),
        ["9x8x8x4: 1 channel", "C = 1 or 3"],
    ),
    "either axis": (
        lambda p: npz(p, images=np.zeros((9, 3, 8, 1), np.uint8)),
        ["either axis may be that of the channels"],
    ),
    "no image": (lambda p: npz(p, images=IMAGES[:0]), ["0x12x12 holds nothing", "one image at least"]),
    "one image": (lambda p: npz(p, images=IMAGES[:1]), ["data.num_test", "two at least"]),
    "complex": (lambda p: npz(p, images=IMAGES * 1j), ["complex128, which is no number", "uint8"]),
    "an empty file": (lambda p: written(p, b""), ["the file is empty", "data.root"]),
    "text": (lambda p: written(p, b"label,pixel1\n"), ["is neither a .npz nor a .npy file", "set data.root"]),
    "a bare pickle": (lambda p: written(p, pickle.dumps(Evil())), ["is neither a .npz nor a .npy file"]),
    "a truncated zip": (
        lambda p: cut(npz(p, images=IMAGES, labels=LABELS), 0.6),
        ["is damaged or cut off", "data.root"],
    ),
    "a truncated .npy": (lambda p: cut(saved(p.with_suffix(".npy"), IMAGES), 0.6), ["it ends before all numbers"]),
    "no literal header": (lambda p: written(p, b"\x93NUMPY\x01\x00\x10\x00__import__('os')\n"), ["is damaged"]),
    "a bomb": (
        lambda p: zipped(p, images=raw_npy((2**40, 100, 100), bytes(10**6))),
        ["GB, more than a third", "fewer"],
    ),
    "an announced bomb": (
        lambda p: zipped(p, images=raw_npy((10**5, 100, 100), bytes(10**6))),
        ["is damaged or cannot be read (it ends before all numbers that its header announces)"],
    ),
    "a hidden bomb": (
        lambda p: zipped(p, images=raw_npy((10, 10, 10), bytes(10**8))),
        ["it holds more than its header announces"],
    ),
    "a bomb of labels": (
        lambda p: zipped(p, images=raw_npy((10, 10, 10), bytes(1000)), labels=raw_npy((10**8,), bytes(10**6))),
        ["(labels): 100000000 labels for 10 images"],
    ),
}


def refusal(*overrides: str) -> str:
    """The line in which composing, or building what was composed, ends."""
    with pytest.raises(FmvaeError) as caught:
        assemble(compose([*overrides, "device=cpu"]), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module", autouse=True)
def composed_once():
    """What composing needs is loaded, and counts for no peak of memory."""
    compose()


@pytest.fixture(autouse=True)
def memory_of_a_small_machine(monkeypatch):
    monkeypatch.setattr(npy, "most_bytes", lambda: 2 * 10**9)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.one_in(3)
def test_an_array_is_refused_in_one_line_and_bounded_memory(tmp_path, name):
    make, words = ARRAYS[name]
    path = make(tmp_path / "images.npz")
    tracemalloc.start()
    try:
        said = refusal("data=arrays", f"data.root={path}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(word in said for word in words), said
    assert peak < BOUND + 10**9 * (name == "an announced bomb"), peak  # which is promised, and never touched


def loaded(path: Path) -> Any:
    """What NumPy finds in a file if it may unpickle."""
    found = np.load(path, allow_pickle=True)
    return found["images"]


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickled_objects_are_refused_and_never_run(tmp_path, save):
    path = tmp_path / ("images.npy" if save is np.save else "images.npz")
    evil = np.array([Evil()], dtype=object)
    save(path, evil) if save is np.save else save(path, images=evil)
    with pytest.raises(SystemExit, match="executed"):  # the control
        loaded(path)
    assert "array of Python objects, which would have to be unpickled" in refusal(
        "data=arrays", f"data.root={path}"
    )


def test_where_there_is_no_file(tmp_path):
    assert refusal("data=arrays") == "data.root: no file is named; give data.root=<file.npz or .npy>"
    assert "data.root: there is no '/nope.npz'; give" in refusal("data=arrays", "data.root=/nope.npz")
    assert "is no file; " in refusal("data=arrays", f"data.root={tmp_path}")
    assert refusal("data=image_folder") == "data.root: no folder is named; give data.root=<folder of images>"
    path = npz(tmp_path / "a.npz", images=IMAGES)
    assert "is no folder; " in refusal("data=image_folder", f"data.root={path}")


def test_a_size_that_a_model_does_not_take(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES[:, :-2])
    said = refusal("data=arrays", f"data.root={path}", "model=conv")
    assert "model: height and width must be multiples of 4, got 10x12" in said
    assert "model=base" in said


# --- folders ---------------------------------------------------------------------------------------------------


def one_more(root: Path, content: bytes, name: str = "cat/zz.png") -> Path:
    written(folder(root) / name, content)
    return root


def grey(side: int = 8) -> Image.Image:
    return Image.fromarray(np.zeros((side, side), np.uint8))


def frames(kind: str) -> bytes:
    return encoded(grey(), kind, save_all=True, append_images=[Image.fromarray(np.full((8, 8), 9, np.uint8))])


def linked(root: Path, name: str, to: Any) -> Path:
    folder(root)
    (root / name).symlink_to(to)
    return root


def emptied(root: Path) -> Path:
    folder(root)
    (root / "emu").mkdir()
    return root


def texts(root: Path) -> Path:
    root.mkdir()
    for k in range(3):
        (root / f"{k}.txt").write_text("text")
    return root


def piped(root: Path) -> Path:
    folder(root)
    os.mkfifo(root / "cat" / "zz.png")
    return root


def badly_named(root: Path) -> Path:
    folder(root)
    folder(Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")), classes=())
    return root


def moved(root: Path, *names: str) -> Path:
    for name in names:
        folder(root / name)
    return root


FOLDERS: dict[str, tuple[Make, list[str]]] = {
    "a huge header": (
        lambda p: one_more(p, huge_png(60_000)),
        ["cat/zz.png: 3,600,000,000 pixels", "a smaller image"],
    ),
    "a large header": (lambda p: one_more(p, huge_png(9_000)), ["cat/zz.png: 9000x9000 pixels", "50,000,000"]),
    "frames": (
        lambda p: one_more(p, frames("GIF"), "cat/zz.gif"),
        ["zz.gif: is GIF with 2 frames", "a file of its own"],
    ),
    "frames of TIFF": (lambda p: one_more(p, frames("TIFF"), "cat/zz.tif"), ["is TIFF with 2 frames"]),
    "frames of PNG": (lambda p: one_more(p, frames("PNG")), ["is PNG with 2 frames"]),
    "mixed sizes": (
        lambda p: one_more(p, encoded(grey(9))),
        ["data.size: null, but", "zz.png has 9x9", "data.size=[8,8]"],
    ),
    "an empty class": (emptied, ["emu: has no images", "remove it, or add images"]),
    "text files": (texts, ["has no images among 3 files, as 0.txt", ".png"]),
    "an empty folder": (lambda p: (p.mkdir(), p)[1], ["has no images;"]),
    "text as an image": (lambda p: one_more(p, b"no image"), ["cat/zz.png: is no image that can be read", ".png"]),
    "an empty image": (lambda p: one_more(p, b""), ["cat/zz.png: the file is empty", "take it out"]),
    "a truncated image": (
        lambda p: one_more(p, encoded(grey(64))[:60]),
        ["cat/zz.png: is damaged", "correct the file"],
    ),
    "a link to nothing": (
        lambda p: linked(p, "cat/zz.png", "gone"),
        ["zz.png: is no file, or a link that leads to none"],
    ),
    "a link to itself": (lambda p: linked(p, "cat/zz.png", "zz.png"), ["cat/zz.png: "]),
    "a circle": (lambda p: linked(p, "emu", "."), ["emu: is a link that leads in a circle", "remove the link"]),
    "a pipe": (piped, ["cat/zz.png: is no file"]),
    "no UTF-8": (badly_named, [r"\xff\xfe: its name, a class, is no UTF-8", "rename the folder"]),
    "CMYK": (
        lambda p: one_more(p, encoded(Image.new("CMYK", (8, 8)), "JPEG"), "cat/zz.jpg"),
        ["zz.jpg: has pixels of kind CMYK", "save it as RGB or grey"],
    ),
    "float pixels": (
        lambda p: one_more(p, encoded(Image.new("F", (8, 8)), "TIFF"), "cat/zz.tif"),
        ["zz.tif: has pixels of kind F"],
    ),
    "transparent": (
        lambda p: one_more(p, encoded(Image.new("RGBA", (8, 8)))),
        ["zz.png: has transparent pixels", "background"],
    ),
    "beside classes": (
        lambda p: one_more(p, encoded(grey()), "zz.png"),
        ["zz.png lies beside the class folder 'cat'"],
    ),
    "no test": (lambda p: moved(p, "train"), ["has a folder train, and no folder test", "add test"]),
    "no train": (lambda p: moved(p, "test"), ["has a folder test, and no folder train"]),
    "other classes": (
        lambda p: (folder(p / "train"), folder(p / "test", classes=("cat", "emu")), p)[2],
        ["class 'dog' is not in both train and test", "same class folders"],
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.one_in(3)
def test_a_folder_is_refused_in_one_line_and_bounded_memory(tmp_path, name, capfd):
    make, words = FOLDERS[name]
    path = make(tmp_path / "images")
    said = refusal("data=image_folder", f"data.root={path}", "data.cache=" + str(tmp_path / "cache"))
    assert all(word in said for word in words), said
    said.encode()  # can be shown
    assert "Warning" not in capfd.readouterr().err


def test_a_huge_header_takes_no_memory(tmp_path):
    path = written(tmp_path / "a.png", huge_png(60_000))
    with pytest.raises(FmvaeError):
        read_header(path, "a.png")  # loads Pillow
    tracemalloc.start()
    try:
        with pytest.raises(FmvaeError):
            read_header(path, "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("which", ["a folder", "a file"])
def test_what_may_not_be_read(tmp_path, which, monkeypatch):
    """A superuser may read everything, so the system's refusal is played."""
    root = folder(tmp_path / "images")
    barred = root / "cat" if which == "a folder" else root / "cat" / "003.png"
    opened, walked = Path.open, os.scandir

    def refuse(path: Any) -> None:
        if Path(path) == barred:
            raise PermissionError(13, "Permission denied", str(path))

    def open_(path: Path, *arguments: Any, **settings: Any) -> Any:
        refuse(path)
        return opened(path, *arguments, **settings)

    def scandir(path: Any) -> Any:
        refuse(path)
        return walked(path)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(os, "scandir", scandir)
    said = refusal("data=image_folder", f"data.root={root}")
    assert f"{barred}: cannot be read (Permission denied); " in said


@pytest.mark.parametrize("size", ["[8]", "[8,8,8]", "0", "banana"])
def test_a_size_that_is_none(tmp_path, size):
    assert "data.size: " in refusal(
        "data=image_folder", f"data.root={folder(tmp_path / 'i')}", f"data.size={size}"
    )
