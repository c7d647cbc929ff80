"""The tests' own draws: the same whichever tests ran before, so a test that passes here passes anywhere."""

import random

import pytest
import torch

from tests.conftest import seed_global_draws


def drawn() -> list[float]:
    return [random.random(), float(torch.rand(()))]


@pytest.fixture
def disturbed() -> None:
    """What a test before may have done to the global generators."""
    random.seed(1)
    torch.manual_seed(1)


@pytest.mark.parametrize("again", [False, True])
def test_a_test_draws_what_its_name_says(request, disturbed, again):
    first = drawn()
    seed_global_draws(request.node.nodeid)
    assert drawn() == first


def test_negative_control_without_a_seed_the_draws_are_those_of_the_tests_before(request, disturbed):
    seed_global_draws(request.node.nodeid)
    first = drawn()
    assert drawn() != first
    seed_global_draws(request.node.nodeid + "of another name")
    assert all(one != other for one, other in zip(drawn(), first, strict=True))
