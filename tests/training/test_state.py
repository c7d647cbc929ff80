"""An optimizer's and a scheduler's state come back from tensors and JSON as they were."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
    StepLR,
)

from fmvae.runs.optimizers import flatten_optimizer, unflatten_optimizer
from fmvae.training.state import from_json, to_json


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (2,))]


def step(optimizer: Optimizer, weights: list[nn.Parameter], n: int) -> None:
    for i, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, float(n + i))
    optimizer.step()


def through_json(meta: Any) -> Any:
    return json.loads(json.dumps(meta, allow_nan=False))


OPTIMIZERS = {
    "adam": lambda p: Adam(p, lr=1e-2),
    "adam_fused_amsgrad": lambda p: Adam(p, lr=1e-2, fused=True, amsgrad=True),
    "adamw": lambda p: AdamW(p, lr=1e-2),
    "sgd": lambda p: SGD(p, lr=1e-2),
    "sgd_momentum": lambda p: SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: RMSprop(p, centered=True, momentum=0.5),
    "adagrad": lambda p: Adagrad(p),
    "two_groups": lambda p: Adam([{"params": p[:1], "lr": 1e-1}, {"params": p[1:], "lr": 1e-2}]),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_restored_optimizer_steps_as_the_first_would_have(make):
    weights = parameters()
    optimizer = make(weights)
    for n in range(3):
        step(optimizer, weights, n)
    copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
    tensors, meta = flatten_optimizer(optimizer.state_dict())
    restored = make(copies)
    restored.load_state_dict(unflatten_optimizer({k: v.clone() for k, v in tensors.items()}, through_json(meta)))
    for n in range(3, 6):
        step(optimizer, weights, n)
        step(restored, copies, n)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies, strict=True))


def test_an_optimizer_that_forgets_would_step_differently():
    weights = parameters()
    optimizer = Adam(weights, lr=1e-2)
    step(optimizer, weights, 1)
    copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
    step(optimizer, weights, 2)
    step(Adam(copies, lr=1e-2), copies, 2)
    assert not torch.equal(weights[0], copies[0])


def test_tensors_are_named_by_parameter_and_key():
    weights = parameters()
    optimizer = Adam(weights)
    assert flatten_optimizer(optimizer.state_dict())[0] == {}
    step(optimizer, weights, 1)
    tensors, _ = flatten_optimizer(optimizer.state_dict())
    assert set(tensors) == {f"{n}.{key}" for n in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


def test_values_that_are_no_tensors_come_back_too():
    state = {"state": {0: {"step": 3, "buffer": None}, 7: {"a.b": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    tensors, meta = flatten_optimizer(state)
    assert set(tensors) == {"7.a.b"}
    back = unflatten_optimizer(tensors, through_json(meta))
    assert back["state"][0] == {"step": 3, "buffer": None}
    assert torch.equal(back["state"][7]["a.b"], torch.ones(2))
    assert back["param_groups"] == [{"lr": 0.1}]


# --- schedulers ----------------------------------------------------------------------------------------------

SCHEDULERS = {
    "cosine": lambda o: CosineAnnealingLR(o, 8),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, 3),
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "step": lambda o: StepLR(o, 2),
    "milestones": lambda o: MultiStepLR(o, [2, 6, 6]),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=1, factor=0.5),
}


def advance(scheduler: LRScheduler, times: int) -> list[float]:
    """The learning rates of so many epochs, in which nothing gets better."""
    rates = []
    for _ in range(times):
        scheduler.optimizer.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_restored_scheduler_goes_on_as_the_first_would_have(make, before):
    scheduler, restored = (make(SGD(parameters(), lr=1.0)) for _ in range(2))
    advance(scheduler, before)
    optimizer_meta = through_json(flatten_optimizer(scheduler.optimizer.state_dict())[1])
    restored.optimizer.load_state_dict(unflatten_optimizer({}, optimizer_meta))
    restored.load_state_dict(from_json(through_json(to_json(scheduler.state_dict()))))
    expected = advance(scheduler, 6)
    assert advance(restored, 6) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", ["milestones", "plateau"])
def test_plain_json_would_lose_what_these_schedulers_hold(name):
    state = SCHEDULERS[name](SGD(parameters(), lr=1.0)).state_dict()
    assert from_json(through_json(to_json(state))) == state
    if name == "plateau":
        with pytest.raises(ValueError):
            through_json(state)
    else:
        assert through_json(state) != state


NUMBERS = st.integers() | st.floats(allow_nan=False)
LEAVES = st.none() | st.booleans() | st.text() | NUMBERS
TEXTS = st.text() | st.sampled_from(("__items__", "__float__"))
KEYS = TEXTS | st.integers()


@given(st.recursive(LEAVES, lambda v: st.lists(v) | st.dictionaries(TEXTS, v) | st.dictionaries(KEYS, v)))
def test_to_json_is_undone_by_from_json(value):
    assert from_json(through_json(to_json(value))) == value


def test_not_a_number_comes_back_as_such():
    assert math.isnan(from_json(through_json(to_json({"best": math.nan})))["best"])


def test_what_cannot_be_said_is_an_error_and_not_forgotten():
    with pytest.raises(TypeError):
        through_json(to_json({"lr_lambda": lambda epoch: 1.0}))
