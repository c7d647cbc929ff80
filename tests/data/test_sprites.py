"""fmvae.data.sprites: each combination has an image of its own, and each factor does what its name says."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline

from fmvae.data import Sprites, sprites
from fmvae.data.sprites import GRID, ORIENTATIONS, PATCH, SAMPLES, SCALES, corner, depths, patch, triangle
from fmvae.errors import ConfigError
from tests.factor_files import factors_of

# of the whole table, as every machine must make it: the pixels are whole numbers, and far from ties
SHA256 = "d2b1656db709ba2fa360b515b6e2916fc7857ebd418ec63fcd3ce27831b2571d"
PATCHES = list(product(range(3), range(6), range(ORIENTATIONS)))


@pytest.fixture(scope="module")
def data() -> Sprites:
    return Sprites()


def whole(data: Sprites) -> torch.Tensor:
    """All images (3, 6, 20, 16, 16, 32, 32)."""
    return data.render(GRID.factors(torch.arange(len(GRID)))).reshape(*GRID.sizes, 32, 32)


def distinct(images: np.ndarray) -> int:
    return len({image.tobytes() for image in images})


# --- one to one --------------------------------------------------------------------------------------------------


def test_all_images_are_the_ones_of_this_version_and_all_are_distinct(data):
    assert data.sha256 == {"images": SHA256}
    assert len(GRID) == distinct(whole(data).reshape(-1, 32 * 32).numpy()) == 92_160


def test_negative_control_a_square_looks_the_same_in_four_orientations(monkeypatch):
    def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 0.5 - np.maximum(np.abs(x), np.abs(y))

    def count() -> int:
        return distinct(np.stack([patch(2, 5, turn) for turn in range(ORIENTATIONS)]))

    assert count() == 20
    monkeypatch.setattr(sprites, "SHAPES", (triangle, triangle, square))
    assert count() == 5


def test_the_images_of_splits_are_those_of_their_factors_and_no_image_is_in_two(data):
    seen = []
    for split in data.splits:
        assert factors_of(split).shape == (len(split), 5)
        assert torch.equal(data.render(factors_of(split)), split.images)
        seen.append(GRID.index(factors_of(split)))
    assert sorted(torch.cat(seen).tolist()) == list(range(len(GRID)))
    assert data.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert data.factor_sizes == (3, 6, 20, 16, 16)
    assert torch.equal(data.factors, data.train.factors)
    assert data.renders


def test_negative_control_other_factors_are_other_images(data):
    factors = data.test.factors.clone()
    factors[:, 3] = (factors[:, 3] + 1) % 16
    assert not (data.render(factors) == data.test.images).flatten(1).all(1).any()


# --- what factors do ---------------------------------------------------------------------------------------------


def centres(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row of the centre of mass of images (..., H, W)."""
    mass = images.double() / images.double().sum((-1, -2), keepdim=True)
    steps = torch.arange(32, dtype=torch.float64)
    return mass.sum(-2) @ steps, mass.sum(-1) @ steps


def test_places_move_the_centre_of_mass_by_a_pixel_each_and_by_nothing_else(data):
    column, row = centres(whole(data))  # (3, 6, 20, 16, 16)
    steps = torch.arange(16, dtype=torch.float64)
    origin = column[..., :1, :1], row[..., :1, :1]
    assert (column - origin[0] - steps[:, None]).abs().max() < 1e-10
    assert (row - origin[1] - steps).abs().max() < 1e-10
    # x and y are those of the shape's centroid, within half a sample, whatever it is, however large and turned
    assert (origin[0] - 8).abs().max() < 0.05
    assert (origin[1] - 8).abs().max() < 0.05


def test_negative_control_orientation_moves_the_centre_of_mass_of_a_shape_that_is_off_its_centroid(monkeypatch):
    def off(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return triangle(x, y - 0.1)

    def spread() -> float:
        patches = np.stack([np.pad(patch(0, 5, turn), 8)[1:, 1:] for turn in range(ORIENTATIONS)])
        return float(centres(torch.from_numpy(patches))[0].std())

    assert spread() < 0.05
    monkeypatch.setattr(sprites, "SHAPES", (off, off, off))
    assert spread() > 0.3


def test_area_is_that_of_the_scale_for_all_shapes_and_orientations():
    areas = np.array([patch(*one).sum(dtype=np.int64) / 255 for one in PATCHES]).reshape(3, 6, ORIENTATIONS)
    expected = 60 * np.array(SCALES) ** 2
    assert np.abs(areas / expected[:, None] - 1).max() < 0.03  # upright edges lie between two rows of samples
    assert (np.diff(areas.max((0, 2))) > 0).all()
    assert (areas.min((0, 2))[1:] > areas.max((0, 2))[:-1]).all()  # no size of one scale is one of the next


# --- a second rendering ------------------------------------------------------------------------------------------


def complex_samples() -> np.ndarray:
    """The samples of a patch as complex numbers, in pixels from the middle, imaginary upwards."""
    steps = [(i + 0.5) / SAMPLES - PATCH / 2 for i in range(PATCH * SAMPLES)]
    return np.array([[complex(x, -y) for x in steps] for y in steps])


def outline(vertices: list[complex]) -> Callable[[complex, np.ndarray], np.ndarray]:
    """Whether samples are inside a polygon with these vertices, moved to its centroid and scaled to area 1."""
    ring = np.array(vertices)
    after = np.roll(ring, -1)
    cross = np.imag(ring.conj() * after)  # twice the triangles from the origin (the shoelace formula)
    area, centroid = cross.sum() / 2, ((ring + after) * cross).sum() / (3 * cross.sum())
    ring = (ring - centroid) / np.sqrt(abs(area))

    def inside(factor: complex, samples: np.ndarray) -> np.ndarray:
        turned = ring * factor
        path = Outline(np.stack([np.real(turned), np.imag(turned)], 1), closed=False)
        return path.contains_points(np.stack([np.real(samples).ravel(), np.imag(samples).ravel()], 1)).reshape(
            samples.shape
        )

    return inside


def half(factor: complex, samples: np.ndarray) -> np.ndarray:
    """Whether samples are in half a disc of area 1, turned and scaled by a factor."""
    radius = np.sqrt(2 / np.pi)
    back = samples / factor + 1j * 4 * radius / (3 * np.pi)
    return (np.abs(back) < radius) & (back.imag > 0)


REFERENCES = [outline([-5, 5, 12j]), half, outline([0, 2, 2 + 1j, 1 + 1j, 1 + 2j, 2j])]


@pytest.mark.parametrize(("scale", "orientation"), [(0, 0), (5, 1), (2, 7), (4, 13), (3, 10)])
def test_shapes_are_those_of_a_second_rendering(scale, orientation):
    factor = np.sqrt(60) * SCALES[scale] * np.exp(2j * np.pi * orientation / ORIENTATIONS)
    for shape, inside in enumerate(REFERENCES):
        counts = inside(factor, complex_samples()).reshape(PATCH, SAMPLES, PATCH, SAMPLES).sum((1, 3))
        assert np.array_equal(patch(shape, scale, orientation), np.rint(255 * counts / 64 + 1e-9))
    mirrored = REFERENCES[2](factor.conjugate() * 1j, complex_samples()).reshape(PATCH, SAMPLES, PATCH, SAMPLES)
    assert orientation == 0 or not np.array_equal(patch(2, scale, orientation) > 0, mirrored.sum((1, 3)) > 0)


def test_no_sample_is_so_near_an_edge_that_rounding_decides():
    """So machines whose sines differ in the last bit make the same images."""
    nearest = min(float(np.abs(depths(*one)).min()) for one in PATCHES)
    print(f"nearest sample to an edge: {nearest:.1e} pixels")
    assert nearest > 1e-9
    assert corner(np.array(0.0), np.array(0.0)) > 0  # the centroid is inside: distances have the right sign


# --- the config --------------------------------------------------------------------------------------------------


def test_combinations_are_kept_apart_if_the_config_says_so(data):
    apart = Sprites(apart=["shape", "orientation"], num_train=2000, val_size=500, num_test=500)
    pairs = [{tuple(row) for row in factors_of(split)[:, [0, 2]].tolist()} for split in apart.splits]
    assert not (pairs[0] & pairs[1])
    assert not (pairs[0] & pairs[2])
    assert not (pairs[1] & pairs[2])
    assert len({tuple(row) for row in data.train.factors[:, [0, 2]].tolist()}) == 60  # without, all are in each
    assert len({tuple(row) for row in data.test.factors[:, [0, 2]].tolist()}) == 60


def test_another_version_is_refused():
    with pytest.raises(ConfigError, match=r"^data\.version: 2, but this program makes version 1; give data\.ver"):
        Sprites(version=2)
