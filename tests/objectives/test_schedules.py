"""fmvae.objectives.schedules: the weight of the KL over training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmvae.objectives import BetaSchedule, Capacity, Constant, Cyclical, Warmup

SCHEDULES = [Constant, Warmup, Cyclical, Capacity]
progresses = st.floats(0, 1)
fractions = st.floats(0, 1)
values = st.floats(0, 1e6)
cycles = st.integers(1, 20)


# --- ranges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("value", [-1.0, -1e-9, math.nan, math.inf, -math.inf])
def test_a_negative_or_infinite_beta_is_an_error_that_names_it(schedule, value):
    with pytest.raises(ValueError, match=f"beta must be finite and >= 0, got {value}"):
        schedule(value)


@pytest.mark.parametrize("schedule", [Warmup, Cyclical, Capacity])
@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf])
def test_a_fraction_outside_0_1_is_an_error_that_names_it(schedule, fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \[0, 1\], got {fraction}"):
        schedule(fraction=fraction)


@pytest.mark.parametrize("num_cycles", [0, -1])
def test_no_cycles_are_an_error(num_cycles):
    with pytest.raises(ValueError, match=f"num_cycles must be >= 1, got {num_cycles}"):
        Cyclical(num_cycles=num_cycles)


@pytest.mark.parametrize("max_capacity", [-1.0, math.nan, math.inf])
def test_an_impossible_capacity_is_an_error_that_names_it(max_capacity):
    with pytest.raises(ValueError, match=f"max_capacity must be finite and >= 0, got {max_capacity}"):
        Capacity(max_capacity=max_capacity)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beta_zero_is_allowed(schedule):
    assert schedule(0).weight(1.0) == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_integer_beta_is_the_float(schedule):
    assert isinstance(schedule(1).value, float)


def test_beta_schedule_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        BetaSchedule()  # pyright: ignore[reportAbstractUsage]


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(value=values)
def test_the_end_of_training_has_the_final_weight(schedule, value):
    assert schedule(value).weight(1.0) == value


@given(values, progresses, fractions, cycles)
def test_weights_stay_between_0_and_the_final_value(value, progress, fraction, num_cycles):
    for schedule in (
        Constant(value),
        Warmup(value, fraction),
        Cyclical(value, num_cycles, fraction),
        Capacity(value, 25.0, fraction),
    ):
        assert 0 <= schedule.weight(progress) <= value


@pytest.mark.parametrize("schedule", [Constant(2.0), Warmup(2.0), Cyclical(2.0)])
@given(progress=progresses)
def test_the_penalty_is_the_weight_times_the_kl(schedule, progress):
    assert schedule.penalty(3.0, schedule.numbers(progress)) == schedule.weight(progress) * 3.0


# --- each ---------------------------------------------------------------------------------------------------


@given(values, progresses)
def test_constant_is_constant(value, progress):
    assert Constant(value).weight(progress) == value


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.05, 0.8), (0.125, 2), (0.25, 4), (0.6, 4), (1, 4)])
def test_warmup_rises_linearly_then_stays(progress, expected):
    assert Warmup(4.0, fraction=0.25).weight(progress) == pytest.approx(expected)


@given(values, fractions, progresses, progresses)
def test_warmup_never_falls(value, fraction, a, b):
    schedule = Warmup(value, fraction)
    assert schedule.weight(min(a, b)) <= schedule.weight(max(a, b))


@given(values, progresses)
def test_warmup_over_nothing_is_constant(value, progress):
    assert Warmup(value, fraction=0).weight(progress) == value


@given(progresses)
def test_warmup_over_everything_is_a_line(progress):
    assert Warmup(3.0, fraction=1).weight(progress) == pytest.approx(3 * progress)


def fu_et_al(step: int, num_steps: int, num_cycles: int, fraction: float) -> float:
    """Equation 6 for the 1-based step t: tau = mod(t - 1, ceil(T / M)) / (T / M); min(tau / R, 1)."""
    tau = (step - 1) % math.ceil(num_steps / num_cycles) / (num_steps / num_cycles)
    return 1.0 if tau > fraction else tau / fraction


@pytest.mark.parametrize("num_cycles", [1, 2, 4, 5])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_cyclical_is_equation_6_of_fu_et_al(num_cycles, fraction):
    schedule = Cyclical(1.0, num_cycles, fraction)
    for step in range(1, 201):
        expected = fu_et_al(step, 200, num_cycles, fraction)
        assert schedule.weight((step - 1) / 200) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("num_cycles", [1, 3, 4, 7])
def test_cyclical_ends_at_the_final_value_where_the_plain_modulo_says_0(num_cycles):
    schedule = Cyclical(2.0, num_cycles)
    assert schedule.weight(1.0) == 2.0
    assert schedule.ramp.weight(1.0 * num_cycles % 1) == 0  # what would measure every objective without KL


def test_cyclical_restarts_at_0_in_every_cycle():
    schedule = Cyclical(1.0, num_cycles=4)
    assert [schedule.weight(k / 4) for k in range(4)] == [0, 0, 0, 0]
    assert [schedule.weight(k / 4 - 1e-6) for k in range(1, 5)] == [1, 1, 1, 1]


@given(progresses)
def test_one_cycle_is_a_warmup(progress):
    assert Cyclical(3.0, 1, 0.4).weight(progress) == Warmup(3.0, 0.4).weight(progress)


@pytest.mark.parametrize(
    ("progress", "capacity"), [(0, 0), (0.15, 5), (0.375, 12.5), (0.75, 25), (0.9, 25), (1, 25)]
)
@pytest.mark.parametrize("kl", [0.0, 4.0, 12.5, 40.0])
def test_capacity_is_equation_8_of_burgess_et_al(progress, capacity, kl):
    """gamma * |KL - C|, C rising linearly from 0 to its maximum."""
    schedule = Capacity(100.0, max_capacity=25.0, fraction=0.75)
    penalty = schedule.penalty(kl, schedule.numbers(progress))
    assert penalty == pytest.approx(100 * abs(kl - capacity))


@given(kl=st.floats(0, 100), progress=progresses, gamma=st.floats(0, 1000))
def test_capacity_is_never_negative(kl, progress, gamma):
    assert Capacity(gamma).penalty(kl, Capacity(gamma).numbers(progress)) >= 0


def test_capacity_pushes_the_kl_towards_the_capacity_from_both_sides():
    for kl, sign in ((10.0, -1), (30.0, 1)):
        tensor = torch.tensor(kl, requires_grad=True)
        schedule = Capacity(100.0, max_capacity=20.0)
        schedule.penalty(tensor, schedule.numbers(1.0)).backward()
        assert tensor.grad is not None
        assert tensor.grad.item() == sign * 100


def test_capacity_of_0_is_a_constant_beta():
    held, constant = Capacity(4.0, max_capacity=0.0), Constant(4.0)
    assert held.penalty(3.0, held.numbers(0.5)) == constant.penalty(3.0, constant.numbers(0.5))
