"""Images of a file: every layout and type, the same splits as ever, and runs that are named by the content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmvae.config import compose
from fmvae.config.identity import RunIdentity
from fmvae.data import Arrays, ImageData, arrays
from fmvae.data.__main__ import main
from fmvae.errors import ConfigError, DataError
from fmvae.models import BaseVAE
from fmvae.objectives import ELBO, Bernoulli, Constant
from fmvae.training import ClassifierTrainer, VAETrainer
from tests.data.own_images import drawn, npz

IMAGES, LABELS = drawn(120, 12, 10)
COLOURED = drawn(40, 6, 5, 3)[0]
TYPES = {
    "uint8": lambda images: images,
    "int64": lambda images: images.astype(np.int64),
    ">i2": lambda images: images.astype(">i2"),
    "float16": lambda images: (images / 255).astype(np.float16),
    "float32": lambda images: (images / 255).astype(np.float32),
    ">f8": lambda images: (images / 255).astype(">f8"),
    "Fortran's order": np.asfortranarray,
    "not contiguous": lambda images: np.repeat(images, 2, axis=-1)[..., ::2],
}


def pixels(data: ImageData) -> dict[bytes, int]:
    """Each image of all splits, and its label."""
    return {
        image.numpy().tobytes(): int(label)
        for split in data.splits
        for image, label in zip(split.images, split.labels, strict=True)
    }


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where", ["npz", "npy", "compressed", "Python"])
def test_every_type_gives_the_same_pixels(tmp_path, kind, where):
    given, path = TYPES[kind](IMAGES), tmp_path / ("a.npy" if where == "npy" else "a.npz")
    if where == "Python":
        data = ImageData.from_arrays(given)
    else:
        {"npz": np.savez, "compressed": np.savez_compressed}.get(where, np.save)(
            path, **({"arr": given} if where == "npy" else {"images": given})
        )
        data = Arrays(path)
    assert data.image_shape == (1, 12, 10)
    assert {*pixels(data)} == {image.tobytes() for image in IMAGES}
    assert [len(split) for split in data.splits] == [98, 10, 12]
    assert not data.labelled


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["NHWC", "NCHW"])
def test_channels_are_found_first_and_last(tmp_path, axes):
    path = npz(tmp_path / "a.npz", images=COLOURED.transpose(axes))
    data = Arrays(path)
    assert data.image_shape == (3, 6, 5)
    assert {*pixels(data)} == {np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes() for image in COLOURED}
    grey = ImageData.from_arrays(IMAGES[..., None])
    assert pixels(grey) == pixels(ImageData.from_arrays(IMAGES)) == pixels(ImageData.from_arrays(IMAGES[:, None]))


def test_floats_become_the_nearest_of_256_levels_and_truth_values_black_and_white():
    rng = np.random.default_rng(0)
    given = rng.random((50, 4, 4))
    found = torch.cat([split.images for split in ImageData.from_arrays(given).splits]).flatten().tolist()
    by_hand = [min(range(256), key=lambda level: abs(level / 255 - value)) for value in given.flatten()]
    assert sorted(found) == sorted(by_hand)
    masks = ImageData.from_arrays(given > 0.5)
    assert masks.train.images.unique().tolist() == [0, 255]


def test_the_parts_of_a_file_keep_to_themselves(tmp_path):
    path = npz(
        tmp_path / "a.npz", x_train=IMAGES[:80], y_train=LABELS[:80, None], x_test=IMAGES[80:], y_test=LABELS[80:]
    )
    data = Arrays(path, val_size=20, class_names=["small", "middle", "large"])
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(IMAGES[80:]))
    assert torch.equal(data.test.labels, torch.from_numpy(LABELS[80:]))
    assert [len(split) for split in data.splits] == [60, 20, 40]
    assert data.class_names == ("small", "middle", "large")
    assert pixels(data) == {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    few = Arrays(path, val_size=20, num_train=50, num_test=9)
    assert [len(split) for split in few.splits] == [30, 20, 9]
    assert few.test.labels.bincount().tolist() == [3, 3, 3]


def test_test_images_are_held_out_the_same_for_all_seeds(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    first, second = (Arrays(path, num_test=30, val_size=9, seed=seed) for seed in (0, 1))
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.val.images, second.val.images)
    assert first.test.labels.bincount().tolist() == [10, 10, 10]  # of each class as many
    assert len(pixels(first)) == 120  # none in two splits
    assert Arrays(path, num_classes=0).num_classes == 0
    assert Arrays(path, num_classes=5).num_classes == 5


def test_one_class_tells_nothing(tmp_path, caplog):
    path = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS * 0)
    caplog.set_level("INFO")
    config = compose(["data=arrays", f"data.root={path}"])
    assert config["data"]["num_classes"] == 0
    assert "all labels are of one class, so the images are taken as images without labels" in caplog.text
    assert not Arrays(path).labelled


# --- what composing fills in -----------------------------------------------------------------------------------


def composed(path: Path, *overrides: str) -> dict[str, Any]:
    return compose(["data=arrays", f"data.root={path}", *overrides])


def name(path: Path, *overrides: str) -> str:
    return RunIdentity.of(composed(path, *overrides)).name


def test_models_get_the_shape_that_only_the_file_knows(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    config = composed(path, "model=conditional", "data.num_test=20")
    assert config["data"]["image_shape"] == config["model"]["image_shape"] == [1, 12, 10]
    assert config["data"]["num_classes"] == config["model"]["num_classes"] == 3
    assert (config["data"]["val_size"], config["data"]["num_test"]) == (10, 20)
    given = composed(path, "data.image_shape=[1,2,3]", "data.num_classes=7", "data.val_size=5")
    assert given["model"]["image_shape"] == [1, 2, 3]  # and is refused when the data are there
    assert (given["data"]["num_classes"], given["data"]["val_size"]) == (7, 5)


def test_a_run_is_named_by_the_content_of_its_file(tmp_path, monkeypatch):
    path = npz(tmp_path / "a.npz", images=IMAGES)
    before = name(path)
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "b.npz"
    moved.write_bytes(path.read_bytes())
    assert name(moved) == before
    monkeypatch.chdir(tmp_path)
    assert name(Path("a.npz")) == before
    assert composed(Path("a.npz"))["data"]["root"] == str(path)
    changed = IMAGES.copy()
    changed[50, 3, 3] ^= 1
    assert name(npz(tmp_path / "a.npz", images=changed)) != before
    monkeypatch.setattr(arrays, "sha256_of", lambda _: "0" * 64)  # the control: no digest, no difference
    arrays._outline.cache_clear()
    assert name(moved) == name(path)
    arrays._outline.cache_clear()


def test_the_name_of_a_run_stays(tmp_path):
    """As those in tests/golden, of a file whose bytes are here."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (30, 4, 4), }".ljust(117) + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(k % 251 for k in range(480)))
    assert name(path) == "base-b1-z2-s0-26427c85"


def test_other_content_than_the_one_composed_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES)
    node = dict(composed(path)["data"])
    assert node.pop("_target_") == "fmvae.data.Arrays"
    Arrays(**node)
    npz(path, images=IMAGES[::-1])
    with pytest.raises(
        DataError, match=r"a.npz: is not the file that the run was named by \(SHA-256 .*put the file"
    ):
        Arrays(**node)


def test_a_sweep_reads_a_file_once(tmp_path, monkeypatch):
    path, asked, digest = npz(tmp_path / "once.npz", images=IMAGES), [], arrays.sha256_of
    monkeypatch.setattr(arrays, "sha256_of", lambda file: asked.append(file.name) or digest(file))
    for seed in range(3):
        composed(path, f"seed={seed}")
    assert asked == [str(path)]
    npz(path, images=IMAGES[1:])
    composed(path)
    assert asked == [str(path)] * 2


def test_the_command_fetches_and_shows_them(tmp_path, capsys):
    path = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    assert main(["fetch", "data=arrays", f"data.root={path}"]) == 0
    digest = composed(path)["data"]["sha256"]
    assert capsys.readouterr().out.split() == ["Arrays", "is", "in", f"{path},", "verified:", "file", digest]
    assert main(["stats", "data=arrays", f"data.root={path}"]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["train", "98", "32"], ["val", "10", "3"], ["test", "12", "4"]]


# --- from Python -----------------------------------------------------------------------------------------------


def test_arrays_in_memory_are_those_of_a_file(tmp_path):
    path = npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    ours, theirs = (
        ImageData.from_arrays(torch.from_numpy(IMAGES), LABELS, list("abc"), seed=3),
        Arrays(path, seed=3),
    )
    for split, other in zip(ours.splits, theirs.splits, strict=True):
        assert torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)
    assert ours.class_names == ("a", "b", "c")
    own_test = ImageData.from_arrays(IMAGES[:80], LABELS[:80], test=(IMAGES[80:], LABELS[80:]))
    assert torch.equal(own_test.test.images[:, 0], torch.from_numpy(IMAGES[80:]))


def test_what_is_no_array_is_refused():
    objects: Any = [object()]
    ragged: Any = [[1], [2, 3]]
    with pytest.raises(DataError, match=r"^labels of images: 119 labels for 120 images; give one label for each"):
        ImageData.from_arrays(IMAGES, LABELS[1:])
    with pytest.raises(DataError, match=r"^images: an array of Python objects"):
        ImageData.from_arrays(objects)
    with pytest.raises(DataError, match=r"^images: list is no array"):
        ImageData.from_arrays(ragged)


@pytest.mark.parametrize("given", [IMAGES, torch.from_numpy(IMAGES), [], None, torch.utils.data.TensorDataset()])
def test_a_trainer_that_is_handed_something_else_says_what_it_needs(given):
    model: Any = BaseVAE(2, hidden_dim=4, image_shape=(1, 12, 10))
    optimizer = torch.optim.Adam(model.parameters())
    objective: Any = ELBO(Bernoulli(), Constant(1.0))
    message = rf"^data: a {type(given).__name__} is given, .*ImageData.from_arrays\(images, labels\) makes one$"
    with pytest.raises(ConfigError, match=message):
        VAETrainer(model, objective, given, optimizer, epochs=1)
    settings: dict[str, Any] = {"label_smoothing": 0, "warmup": 0.5, "shift": 0, "flip": False, "blur": 0}
    with pytest.raises(ConfigError, match=message):
        ClassifierTrainer(
            model,
            given,
            optimizer,
            epochs=1,
            sides=[12],
            prune=0,
            precision="fp32",
            **settings,
        )
    trainer = VAETrainer(model, objective, ImageData.from_arrays(IMAGES), optimizer, epochs=1)
    assert np.isfinite(trainer.train()[0]["train/recon"])
