"""fmvae.data.grid: combinations and their indices, and splits that keep combinations apart or not."""

from itertools import combinations, product

import pytest
import torch

from fmvae.data.grid import Grid
from fmvae.errors import ConfigError, DataError

GRID = Grid(("shape", "scale", "x", "y"), (3, 4, 5, 6))
SIZES = {"num_train": None, "val_size": 40, "num_test": 70, "seed": 0}


def split(apart=None, **changed) -> dict[str, torch.Tensor]:
    return GRID.split(apart, **{**SIZES, **changed})


def values(index: torch.Tensor, *names: str) -> set[tuple[int, ...]]:
    """The combinations of some factors that occur."""
    columns = [GRID.names.index(name) for name in names]
    return {tuple(row) for row in GRID.factors(index)[:, columns].tolist()}


def shared(parts: dict[str, torch.Tensor], *names: str) -> int:
    """How many combinations of some factors occur in two splits."""
    return sum(len(values(a, *names) & values(b, *names)) for a, b in combinations(parts.values(), 2))


def test_combinations_are_in_lexicographic_order_and_indices_lead_back():
    everything = torch.arange(len(GRID))
    factors = GRID.factors(everything)
    assert factors.dtype == torch.int64
    assert [tuple(row) for row in factors.tolist()] == list(product(*map(range, GRID.sizes)))
    assert torch.equal(GRID.index(factors), everything)
    order = torch.randperm(len(GRID))
    assert torch.equal(GRID.index(factors[order]), order)


@pytest.mark.parametrize("apart", [None, ["shape"], ["scale", "x"], ["y", "shape"]])
def test_splits_are_of_the_sizes_asked_and_no_image_is_in_two(apart):
    parts = split(apart, num_train=100)
    assert {name: len(part) for name, part in parts.items()} == {"train": 100, "val": 40, "test": 70}
    assert len(torch.cat([*parts.values()]).unique()) == 210


def test_without_a_number_all_that_is_left_is_trained_on():
    assert sorted(torch.cat([*split().values()]).tolist()) == list(range(len(GRID)))
    parts = split(["x", "y"])
    assert len(values(torch.cat([*parts.values()]), "x", "y")) == 30
    assert len(parts["train"]) == (30 - 4 - 6) * 12  # 40 and 70 images are of 4 and 6 combinations of 12 each


@pytest.mark.parametrize("apart", [["shape"], ["scale", "x"], ["y", "shape"], ["shape", "scale", "x", "y"]])
def test_combinations_are_kept_apart(apart):
    assert shared(split(apart), *apart) == 0


def test_negative_control_combinations_are_shared_if_not_kept_apart():
    assert shared(split(), "scale", "x") > 20
    assert shared(split(["scale"], val_size=10, num_test=10), "x") > 5


def test_the_order_is_random():
    for part in split(["scale", "x"]).values():
        assert not torch.equal(part, part.sort().values)
        assert len(values(part[: len(part) // 2], "shape")) == 3  # not sorted by shape


def test_the_seed_chooses_val_and_train_but_never_test():
    for apart in (None, ["scale", "x"]):
        one, same, other = (split(apart, seed=seed) for seed in (0, 0, 1))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert torch.equal(one["test"], other["test"])
        assert not torch.equal(one["val"].sort().values, other["val"].sort().values)


@pytest.mark.parametrize(
    ("apart", "sizes", "message"),
    [
        (["hue"], {}, r"data\.apart: there is no factor 'hue'; give some of shape, scale, x, y$"),
        (["x", "x"], {}, r"data\.apart: \[x, x\] names a factor twice; give each once$"),
        (
            ["shape"],
            {"num_test": 130},
            r"data\.num_test: 2 and 1 of the 3 combinations of shape for test and val.*",
        ),
        (None, {"num_test": 320}, r"data\.num_test: 320 test and 40 validation images leave none of 360 to train"),
        (
            None,
            {"num_test": None},
            r"data\.num_test: null, but images are held out by number; give a whole number",
        ),
        (
            None,
            {"num_train": 251},
            r"data\.num_train: 251 images, but val and test leave 250; lower it, or give null",
        ),
    ],
)
def test_what_cannot_be_split_is_told_in_one_line(apart, sizes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        split(apart, **sizes)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (torch.zeros(2, 4), r"factors: float32 \(2, 4\) are no whole numbers; give the index"),
        (torch.zeros(2, 3, dtype=torch.int64), r"factors: int64 \(2, 3\) is not \(N, 4\); give a column for each"),
        (torch.tensor([[0, 0, 0, 0], [0, 4, 0, 0]]), "factors: scale = 4; give 0 to 3$"),
        (torch.tensor([[0, 0, -1, 0]]), "factors: x = -1; give 0 to 4$"),
    ],
)
def test_wrong_factors_are_told_in_one_line(factors, message):
    with pytest.raises(DataError, match=f"^{message}"):
        GRID.index(factors)


def test_no_combination_is_a_combination():
    assert GRID.index(torch.zeros(0, 4, dtype=torch.int64)).shape == (0,)
