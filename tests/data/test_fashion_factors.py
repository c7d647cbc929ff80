"""fmvae.data.fashion_factors: garments that are moved, scaled, turned and dimmed as their factors say."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from fmvae.data import CLASS_NAMES, FashionFactors, fashion_factors
from fmvae.data.fashion_factors import (
    DEGREES,
    GRID,
    ONE,
    QUARTERS,
    ROOM,
    SAMPLES,
    SCALES,
    SHIFTS,
    chosen_garments,
    positions,
    warped,
)
from fmvae.data.sources import RawDataset, load_dataset
from fmvae.errors import ConfigError, DataError
from tests.factor_files import factors_of
from tests.idx import write_idx_dataset

# SHA-256 of sums that every machine must find
WARPED = "4e51059ac7dd641e078fa4c1162027c8d21932ecd232e31c7d25d28b267ac005"
SMALL = {"num_train": 500, "val_size": 50, "num_test": 100, "download": False}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("garments")
    return root, write_idx_dataset(root, 200, 20)


@pytest.fixture(scope="module")
def data(files) -> FashionFactors:
    root, sha256 = files
    return FashionFactors(root, sha256=sha256, **SMALL)


def rows(num: int, **changed: torch.Tensor | int) -> torch.Tensor:
    """Factors of a garment in the middle of all ranges, with some changed."""
    factors = torch.tensor([[40, 1, 2, 3, 2, 2]]).repeat(num, 1)
    for name, value in changed.items():
        factors[:, GRID.names.index(name)] = torch.as_tensor(value)
    return factors


# --- rendering ---------------------------------------------------------------------------------------------------


def blots(num: int = 3) -> np.ndarray:
    """Garments of whole numbers, the same on every machine, without symmetry."""
    place = np.arange(28 * 28).reshape(28, 28)
    images = np.stack([(place * (7919 + n) // 13) % 256 for n in range(num)]).astype(np.uint8)
    images[:, 20:, :9] = 0
    return images


def reference(image: np.ndarray, scale: float, degrees: float) -> np.ndarray:
    """Grey values (ROOM, ROOM) of an image by scipy's bilinear interpolation at samples of complex numbers."""
    steps = (np.arange(ROOM * SAMPLES) + 0.5) / SAMPLES - ROOM / 2
    there = (steps[None, :] - 1j * steps[:, None]) * np.exp(-1j * np.radians(degrees)) / scale
    padded = np.pad(image.astype(float), 1)
    sampled = map_coordinates(padded, [14.5 - there.imag, 14.5 + there.real], order=1, mode="constant")
    return sampled.reshape(ROOM, SAMPLES, ROOM, SAMPLES).mean((1, 3))


@pytest.mark.parametrize(("scale", "degrees"), [(SCALES[0], DEGREES[0]), (SCALES[3], DEGREES[3]), (SCALES[2], 0)])
def test_garments_are_warped_as_scipy_warps_them(scale, degrees):
    images = blots()
    ours = warped(images, scale, degrees) / (SAMPLES**2 * ONE**2)
    expected = np.stack([reference(image, scale, degrees) for image in images])
    furthest = np.abs(ours - expected).max()
    print(f"largest difference from scipy: {furthest:.3f} grey levels of 255")
    assert furthest < 1  # positions are rounded to 1/256 pixel
    if degrees:
        wrong = np.stack([reference(image, scale, -degrees) for image in images])
        assert np.abs(ours - wrong).max() > 50


def test_whole_numbers_are_the_same_on_every_machine():
    content = hashlib.sha256()
    for scale, degrees in ((SCALES[0], DEGREES[0]), (SCALES[1], 0), (SCALES[3], DEGREES[3])):
        content.update(warped(blots(), scale, degrees).astype("<i8").tobytes())
    assert content.hexdigest() == WARPED


def test_no_position_is_so_near_a_tie_that_rounding_decides():
    ties = [
        np.abs(at - np.floor(at) - 0.5).min()
        for scale in SCALES
        for degrees in DEGREES
        for at in positions(scale, degrees)
    ]
    print(f"nearest position to a tie: {min(ties):.1e} of 1/256 pixel")
    assert min(ties) > 1e-9


# --- factors -----------------------------------------------------------------------------------------------------


def test_all_images_are_distinct_and_there_are_at_most_100_000(data):
    images = data.render(GRID.factors(torch.arange(len(GRID))))
    assert len(GRID) == 96_000 <= 100_000
    assert images.shape == (96_000, 1, 32, 32)
    assert len({image.tobytes() for image in images.numpy()}) == 96_000


def test_the_images_of_splits_are_those_of_their_factors(data):
    for split in data.splits:
        assert torch.equal(data.render(split.factors), split.images)
        assert torch.equal(split.labels, split.factors[:, 0] // 10)
    other = data.test.factors.clone()
    other[:, 5] = (other[:, 5] + 1) % 3
    assert not torch.equal(data.render(other), data.test.images)


@pytest.mark.parametrize(("name", "axis"), [("x", -1), ("y", -2)])
def test_shifts_move_every_pixel_and_cut_nothing_off(data, name, axis):
    turned = torch.tensor([0, 1, 3, 4])
    for factors in (rows(4), rows(4, rotation=turned), rows(4, scale=0, garment=7, brightness=0)):
        images = [data.render(_with(factors, name, value)) for value in range(4)]
        for shift, image in zip(SHIFTS, images, strict=True):
            assert torch.equal(images[0].roll(shift - SHIFTS[0], axis), image)
            assert image.flatten(1).any(1).all()


def _with(factors: torch.Tensor, name: str, value: int) -> torch.Tensor:
    changed = factors.clone()
    changed[:, GRID.names.index(name)] = value
    return changed


def test_brightness_scales_every_pixel_and_scale_the_area(data):
    dimmed = data.render(rows(3, brightness=torch.arange(3))).double()
    for image, quarters in zip(dimmed, QUARTERS, strict=True):
        assert (image - dimmed[2] * quarters / 4).abs().max() <= 1
    mass = data.render(rows(4, scale=torch.arange(4))).double().sum((1, 2, 3))
    assert (mass.diff() > 0).all()
    assert mass / mass[-1] == pytest.approx((np.array(SCALES) / SCALES[-1]) ** 2, rel=0.02)


def test_rotations_turn_counterclockwise(data):
    """The main axis of a bar turns by the degrees said."""

    def axis(image: torch.Tensor) -> float:
        weight = image[0].double() / image.double().sum()
        steps = torch.arange(32, dtype=torch.float64)
        x, y = steps[None, :].expand(32, 32), -steps[:, None].expand(32, 32)
        x, y = x - (weight * x).sum(), y - (weight * y).sum()
        xx, yy, xy = (weight * x * x).sum(), (weight * y * y).sum(), (weight * x * y).sum()
        return float(torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy)))

    angles = [axis(image) for image in data.render(rows(5, rotation=torch.arange(5)))]
    turned = [(angle - angles[2] + 90) % 180 - 90 for angle in angles]
    assert turned == pytest.approx(DEGREES, abs=2)


# --- garments and config -----------------------------------------------------------------------------------------


def test_garments_are_the_first_ten_of_each_class_of_the_training_file(files):
    root, sha256 = files
    raw = load_dataset(root, download=False, sha256=sha256)
    garments = chosen_garments(raw)
    for c in range(10):
        own = raw.train_images[raw.train_labels == c][:10]
        assert np.array_equal(garments[10 * c : 10 * c + 10], own)


def test_garments_can_be_kept_apart(files):
    root, sha256 = files
    data = FashionFactors(root, sha256=sha256, apart=["garment"], **SMALL)
    seen = [set(factors_of(split)[:, 0].tolist()) for split in data.splits]
    assert not (seen[0] & seen[1])
    assert not (seen[0] & seen[2])
    assert not (seen[1] & seen[2])
    assert len(seen[2]) == 1


def test_negative_control_without_it_garments_are_in_several_splits(data):
    assert set(data.train.factors[:, 0].tolist()) & set(data.test.factors[:, 0].tolist())


def test_names_of_garments_are_only_for_the_published_files(data):
    assert data.class_names == tuple("0123456789") != CLASS_NAMES
    assert data.content == ""


def made_of(images: np.ndarray, labels: np.ndarray) -> RawDataset:
    return RawDataset(images, labels, images, labels, {}, Path("there"))


def test_too_few_garments_or_others_are_told_in_one_line():
    labels = np.repeat(np.arange(10), 10)[:-1]
    with pytest.raises(
        DataError, match=r"^there: has 9 training images of class 9, of which 10 are needed; set da"
    ):
        chosen_garments(made_of(np.zeros((99, 28, 28), np.uint8), labels))
    with pytest.raises(DataError, match=r"^there: holds images of 16x16 pixels, not 28x28; set data\.root"):
        chosen_garments(made_of(np.zeros((99, 16, 16), np.uint8), labels))


def test_another_version_is_refused(files):
    with pytest.raises(ConfigError, match=r"^data\.version: 3, but this program makes version 1; "):
        FashionFactors(files[0], sha256=files[1], version=3)


def test_the_files_are_needed_only_once(files, data, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(fashion_factors, "load_dataset", unreachable)
    again = FashionFactors(None, sha256=files[1], **SMALL)
    assert again.sha256 == data.sha256
    with pytest.raises(AssertionError):  # other garments are another table
        FashionFactors(None, sha256={**files[1], "train-images-idx3-ubyte": 64 * "0"}, **SMALL)


@pytest.mark.real_data
def test_the_real_garments_give_96_000_distinct_images():
    data = FashionFactors(download=False)
    assert data.class_names == CLASS_NAMES
    assert data.sha256 == {"images": "16cfe68618072739ad7eb0d927549727d5730b3fbe5a3b1b8a404bdddda2d035"}
