"""fmvae.data.split: bytes in memory, exact floats in batches, every image once per epoch."""

import ast
import dataclasses
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import to_tensor

from fmvae.config.project import PROJECT_ROOT
from fmvae.data.split import Split, to_float

PACKAGE = PROJECT_ROOT / "fmvae"


def numbered(num: int) -> Split:
    """Image i holds i in every pixel, and its label is i mod 10."""
    images = torch.arange(num, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3).clone()
    return Split("train", images, torch.arange(num) % 10)


def numbers(images: torch.Tensor) -> list[int]:
    """Which images of ``numbered`` a batch holds."""
    return [round(255 * value) for value in images[:, 0, 0, 0].tolist()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- floats ---------------------------------------------------------------------------------------------------


def test_to_float_is_torchvisions_to_tensor_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    found = to_float(torch.from_numpy(levels[None, ..., 0])[:, None])
    assert found.dtype == torch.float32
    assert torch.equal(found[0], to_tensor(levels))
    assert np.array_equal(found[0, 0].numpy(), levels[..., 0].astype(np.float32) / np.float32(255))
    assert found.min() == 0
    assert found.max() == 1
    # negative control: multiplying by 1 / 255 is not the same
    assert not torch.equal(torch.from_numpy(levels[..., 0]).float() * (1 / 255), found[0, 0])


def test_to_float_leaves_the_images_alone():
    images = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    to_float(images)
    assert images.dtype == torch.uint8
    assert (images == 255).all()


# --- batches --------------------------------------------------------------------------------------------------


def test_the_length_is_the_number_of_images():
    assert len(numbered(23)) == 23


def test_a_split_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbered(3).name = "test"  # pyright: ignore[reportAttributeAccessIssue]


def test_without_a_generator_the_order_is_that_stored():
    batches = list(numbered(23).batches(10))
    assert [numbers(images) for images, _ in batches] == [[*range(10)], [*range(10, 20)], [20, 21, 22]]


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_floats_with_integer_labels_and_leave_the_split_alone(shuffled):
    split = numbered(23)
    before = split.images.clone()
    for images, labels in split.batches(10, generator() if shuffled else None):
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 2, 3)
        assert labels.dtype == torch.int64
        images.zero_()
    assert split.images.dtype == torch.uint8
    assert torch.equal(split.images, before)


@given(
    num=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 2**32 - 1), shuffled=st.booleans()
)
def test_every_image_comes_once_per_epoch_with_its_own_label(num, batch_size, seed, shuffled):
    batches = list(numbered(num).batches(batch_size, generator(seed) if shuffled else None))
    seen = [number for images, _ in batches for number in numbers(images)]
    labels = [label for _, batch in batches for label in batch.tolist()]
    assert sorted(seen) == list(range(num))
    assert labels == [number % 10 for number in seen]
    sizes = [len(images) for images, _ in batches]
    assert sizes == [batch_size] * (num // batch_size) + [num % batch_size] * (num % batch_size > 0)


def test_the_order_is_a_permutation_that_depends_on_the_generator():
    def order(seed: int, batch_size: int = 7) -> list[int]:
        return [n for images, _ in numbered(50).batches(batch_size, generator(seed)) for n in numbers(images)]

    assert order(0) == order(0) != order(1)
    assert order(0) != list(range(50))
    assert order(0) == order(0, batch_size=50)  # the batch size cuts the same order
    assert order(0) == torch.randperm(50, generator=generator()).tolist()


def test_the_next_epoch_of_one_generator_has_another_order():
    shared, split = generator(), numbered(50)
    first, second = ([numbers(images) for images, _ in split.batches(50, shared)] for _ in range(2))
    assert first != second


def test_batches_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    list(numbered(23).batches(10, generator()))
    list(numbered(23).batches(10))
    assert torch.equal(torch.get_rng_state(), before)


# --- round robin ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_round_robin_takes_the_first_of_each_class_then_the_second(labels, num):
    expected, rest = [], list(range(len(labels)))
    while rest:
        turn = [next(i for i in rest if labels[i] == c) for c in sorted({labels[i] for i in rest})]
        expected += turn
        rest = [i for i in rest if i not in turn]
    split = Split("test", torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), torch.tensor(labels))
    assert split.round_robin(num).tolist() == expected[:num]


def test_a_part_of_a_split_keeps_all_that_is_known_of_its_images():
    whole = Split(
        "train", torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6), torch.arange(12).view(6, 2)
    )
    assert all(getattr(whole, field.name) is not None for field in fields(whole))  # so that none goes untested
    for which, indices in ((torch.tensor([4, 1]), [4, 1]), (slice(3), [0, 1, 2]), (slice(None), list(range(6)))):
        part = whole.take(which)
        assert (type(part), part.name, len(part)) == (Split, "train", len(indices))
        for field in fields(whole):
            if isinstance(known := getattr(whole, field.name), torch.Tensor):
                assert torch.equal(getattr(part, field.name), torch.stack([known[i] for i in indices])), field.name
    bare = Split("test", whole.images, whole.labels).take(slice(2))
    assert bare.factors is None


def test_every_part_of_a_split_is_taken_by_its_method():
    """A split that is made from parts of another one would lose what is known of the images."""

    def rebuilt(source: str) -> list[str]:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Split"]
        return [text for call in made if "[" in (text := ast.unparse(call)) and ".images[" in text]

    found = {path.name: rebuilt(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert not {name: calls for name, calls in found.items() if calls}
    assert rebuilt("Split(s.name, s.images[i], s.labels[i])")  # control
