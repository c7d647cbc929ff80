"""fmvae.rng: draws depend on (seed, role, epoch), and on nothing that happened before."""

import hashlib
import itertools
import subprocess
import sys
from typing import Any, get_args

import pytest
import torch
from torch import nn

from fmvae.rng import ROLES, Role, seeded, seeded_init, stream, stream_seed


def draws(seed: int, role: Role, epoch: int = 0) -> torch.Tensor:
    return torch.randn(8, generator=stream(seed, role, epoch))


def test_the_roles_are_those_of_the_design():
    of_design = {"init", "split", "shuffle", "noise", "augmentation", "evaluation", "sampling"}
    assert set(ROLES) == of_design | {"samplers", "binarize", "binarize_held_out"}
    assert get_args(Role) == ROLES


@pytest.mark.parametrize(
    ("seed", "role", "epoch", "expected"),
    [
        (0, "init", 0, 3546334589),
        (0, "split", 0, 275006070),
        (42, "shuffle", 7, 4138308546),
        (0, "augmentation", 1, 2930555814),
        (0, "binarize", 1, 1957689322),
        (0, "binarize_held_out", 1, 1669928489),
    ],
)
def test_stream_seeds_are_pinned(seed, role, epoch, expected):
    """A change here changes every number of every run: it needs a reason, and new reference results."""
    assert stream_seed(seed, role, epoch) == expected


def test_stream_seed_is_the_head_of_a_sha256():
    expected = int(hashlib.sha256(b"3/noise/5").hexdigest()[:8], 16)
    assert stream_seed(3, "noise", 5) == expected


def test_stream_seeds_do_not_depend_on_the_process():
    """As the built-in hash() of strings would."""
    code = "from fmvae.rng import stream_seed; print(stream_seed(0, 'noise', 3))"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(answer.stdout) == stream_seed(0, "noise", 3)


def test_no_two_streams_of_a_study_share_a_seed():
    seeds = [stream_seed(*key) for key in itertools.product(range(10), ROLES, range(100))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_same_stream_draws_the_same(seed):
    assert torch.equal(draws(seed, "noise", 3), draws(seed, "noise", 3))


@pytest.mark.parametrize("other", [(1, "noise", 3), (0, "shuffle", 3), (0, "noise", 4), (-1, "noise", 3)])
def test_streams_differ_by_seed_role_and_epoch(other):
    assert not torch.equal(draws(0, "noise", 3), draws(*other))


def test_a_stream_starts_afresh_however_much_others_drew():
    first = draws(0, "noise", 3)
    torch.randn(1000, generator=stream(0, "noise", 2))
    torch.randn(1000, generator=stream(0, "noise", 3))
    assert torch.equal(first, draws(0, "noise", 3))


def test_high_bits_of_a_seed_would_be_lost_on_the_cpu():
    """Why stream_seed keeps to 32 bits: the Mersenne twister ignores the others."""
    a, b = (torch.Generator().manual_seed(seed) for seed in (7, 7 + 2**32))
    assert torch.equal(torch.rand(4, generator=a), torch.rand(4, generator=b))


def test_an_unknown_role_is_an_error_that_lists_the_roles():
    role: Any = "dropout"
    with pytest.raises(ValueError, match=r"'dropout'.*init, split, shuffle, noise, augmentation, evaluation"):
        stream(0, role)


def test_streams_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    draws(0, "noise")
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(1)  # what a draw without a stream would do
    assert not torch.equal(torch.get_rng_state(), before)


def test_seeded_init_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    with seeded_init(0):
        nn.Linear(3, 3)
        inside = torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(inside, before)


def test_seeded_init_restores_the_global_generator_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="negative dimension"), seeded_init(0):
        nn.Sequential(nn.Linear(3, 3), nn.Linear(-1, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_init_leaves_the_generators_of_accelerators_alone(monkeypatch):
    """``torch.manual_seed`` reseeds them all, and forking the CPU's generator does not undo that."""
    reseeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    with seeded_init(0):
        nn.Linear(3, 3)
    assert reseeded == []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
    assert reseeded == [0]


def test_seeded_init_gives_layers_that_depend_on_the_seed_alone():
    def weights(seed: int) -> torch.Tensor:
        torch.randn(seed + 1)  # the global generator is elsewhere each time
        with seeded_init(seed):
            return nn.Linear(3, 3).weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_seeded_init_draws_from_the_init_stream():
    with seeded_init(5):
        inside = torch.randn(8)
    assert torch.equal(inside, draws(5, "init"))


# --- the global generator, for what takes no other ------------------------------------------------------------


def test_seeded_gives_the_global_generator_the_stream_of_its_role_and_epoch():
    keys: list[tuple[int, Role, int]] = [(5, "augmentation", 3), (5, "augmentation", 4), (6, "noise", 3)]
    for key in keys:
        with seeded(*key):
            inside = torch.randn(8)
        assert torch.equal(inside, draws(*key))


def test_seeded_gives_the_global_generator_back_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="negative dimension"), seeded(0, "augmentation", 1):
        nn.Sequential(nn.Linear(3, 3), nn.Linear(-1, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_can_be_entered_within_itself():
    with seeded(0, "augmentation", 1):
        first = torch.randn(4)
        with seeded(0, "init"):
            torch.randn(100)
        second = torch.randn(4)
    assert torch.equal(torch.cat([first, second]), draws(0, "augmentation", 1))


def test_seeded_knows_the_roles_too():
    role: Any = "dropout"
    with pytest.raises(ValueError, match="'dropout'"), seeded(0, role):
        pass
