"""Models trained as a stack are those that each trainer would have made alone; what pads them stays zero."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from fmvae.data import split
from fmvae.errors import NumericsError
from fmvae.models import (
    VAE,
    BaseVAE,
    BetaVAE,
    ConditionalVAE,
    ConvVAE,
    GatedVAE,
    LatentAxis,
    ResidualVAE,
    convolution,
)
from fmvae.objectives import Capacity, Constant, Cyclical, Warmup
from fmvae.training import VAETrainer
from fmvae.training.engines.padding import can_widen, narrow, widen
from fmvae.training.engines.stack import Stack
from fmvae.training.vae import Epoch
from tests.training.cases import Case, data_of

MODELS: dict[str, Callable[[int], VAE]] = {
    "base": lambda z: BaseVAE(z, hidden_dim=16),
    "conv": ConvVAE,
    "gated": lambda z: GatedVAE(z, hidden_dim=16),
    "batch_norm": BetaVAE,
    "residual": lambda z: ResidualVAE(z, width=4, depth=2),
    "residual_group_norm": lambda z: ResidualVAE(z, width=8, norm="group"),
    "conditional_conv": lambda z: ConditionalVAE(z, backbone="conv"),  # 5 s in float64, so not in a quick place
    "conditional": lambda z: ConditionalVAE(z, hidden_dim=16),
    "conditional_residual": lambda z: ConditionalVAE(z, backbone="residual", width=8),
    "learned_prior": lambda z: ConditionalVAE(z, hidden_dim=16, prior="learned"),
}
LATENT_DIMS = (2, 5, 3)


def cases(kind: str) -> list[Case]:
    """Three runs that differ in all that runs of a stack may differ in.

    A bias that batch norm takes out again has a gradient of rounding errors, which Adam with the usual eps would
    scale up to its learning rate, however it is computed.
    """
    make, eps = MODELS[kind], 1e-5
    first = Case(
        lambda: make(LATENT_DIMS[0]), lambda p: Adam(p, lr=1e-3, eps=eps, fused=True), lambda: Constant(0.5)
    )
    second = Case(
        lambda: make(LATENT_DIMS[1]),
        lambda p: AdamW(p, lr=3e-4, eps=eps, weight_decay=0.1),
        lambda: Warmup(4.0, fraction=0.5),
        lambda optimizer: CosineAnnealingLR(optimizer, 3),
        {"max_grad_norm": 20.0, "seed": 7},
    )
    third = Case(
        lambda: make(LATENT_DIMS[2]),
        lambda p: SGD(p, lr=1e-5, momentum=0.9, weight_decay=0.01),
        lambda: Cyclical(5.0, 3),
        lambda optimizer: StepLR(optimizer, 1, gamma=0.5),
        {"seed": 8},
    )
    return [first, second, third]


def trainers(kind: str, data: Any, dtype: torch.dtype, given: Sequence[Case] | None = None) -> list[VAETrainer]:
    found = []
    for seed, case in enumerate(given or cases(kind)):
        double = replace(case, model=lambda case=case: case.model().to(dtype))
        found.append(double.trainer(data, init_seed=seed))
    return found


def train_epoch(stack: Stack, look: Callable[[Stack], None] = lambda stack: None) -> list[Any]:
    """An epoch of all; returns what each step gave."""
    stack.load()
    epochs = [Epoch(trainer, trainer.epoch + 1) for trainer in stack.trainers]
    taken = []
    for steps in zip(*epochs, strict=True):
        numbers = stack.step(steps)
        taken.append(numbers)
        for epoch, step, own in zip(epochs, steps, numbers, strict=True):
            assert not isinstance(own, NumericsError)
            epoch.took(own, len(step.batch.x))
        look(stack)
    stack.unload()
    for trainer, epoch in zip(stack.trainers, epochs, strict=True):
        trainer.end_epoch(epoch.row())
    return taken


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of a tensor, relative to its norm."""
    assert ours.keys() == theirs.keys()
    pairs = [(ours[name].double(), theirs[name].double()) for name in ours if name.startswith("model.")]
    assert all(a.shape == b.shape for a, b in pairs)
    # what begins at zero, as a learned prior, is small beside its own rounding
    return max(((a - b).norm() / b.norm().clamp(min=1e-3 * b.numel() ** 0.5)).item() for a, b in pairs)


@pytest.fixture(params=[True, False], ids=["batched", "in turn"])
def batched(request, monkeypatch) -> bool:
    """Whether one pass goes through all models, as on a GPU, where channels_last does nothing."""
    if request.param:
        monkeypatch.setattr(convolution, "channels_last", lambda x: x)
    return request.param


@pytest.fixture
def in_dtype(monkeypatch) -> Callable[[torch.dtype], None]:
    """Images as floats of this type."""

    def use(dtype: torch.dtype) -> None:
        monkeypatch.setattr(split, "to_float", lambda images: images.to(dtype) / 255)

    return use


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.one_in(5)
def test_each_is_the_run_it_would_be_alone(kind, dtype, bound, small_data, in_dtype, batched):
    in_dtype(dtype)
    data = data_of(small_data)
    alone, stacked = trainers(kind, data, dtype), trainers(kind, data, dtype)
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked, batched)
    for _ in range(3):
        train_epoch(stack)
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= bound
        for a, b in zip(ours.history, theirs.history, strict=True):
            assert a == pytest.approx(b, rel=bound)


def test_runs_that_hold_the_kl_at_a_capacity_are_stacked_with_each_other_alone(small_data, in_dtype):
    in_dtype(torch.float64)
    data = data_of(small_data)
    first, second, _ = cases("base")
    held = [replace(case, beta=lambda: Capacity(5.0, 3.0)) for case in (first, second)]
    alone, stacked = (trainers("base", data, torch.float64, held) for _ in range(2))
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked, batched=True)
    for _ in range(3):
        train_epoch(stack)
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-10
    with pytest.raises(ValueError, match="objectives of one formula"):
        Stack([stacked[0], *trainers("base", data, torch.float64)], batched=True)


def test_negative_control_another_draw_is_another_run(small_data, in_dtype, monkeypatch):
    in_dtype(torch.float64)
    data = data_of(small_data)
    alone, stacked = trainers("base", data, torch.float64), trainers("base", data, torch.float64)
    for trainer in alone:
        trainer.train()
    step = Stack.step

    def shifted(stack: Stack, steps: Any) -> Any:
        batches = [s.batch._replace(noise=s.batch.noise + 1e-4) for s in steps]
        return step(stack, [s._replace(batch=batch) for s, batch in zip(steps, batches, strict=True)])

    monkeypatch.setattr(Stack, "step", shifted)
    stack = Stack(stacked)
    for _ in range(3):
        train_epoch(stack)
    assert all(
        worst(ours.state().tensors, theirs.state().tensors) > 1e-10
        for ours, theirs in zip(stacked, alone, strict=True)
    )


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.one_in(3)
def test_what_pads_a_model_is_zero_and_so_is_its_every_gradient(kind, small_data, batched):
    stack = Stack(trainers(kind, data_of(small_data), torch.float32), batched)
    pads = 0

    def look(stack: Stack) -> None:
        nonlocal pads
        for trainer, z, slices in zip(stack.trainers, stack.latent_dims, stack.slices, strict=True):
            for name, own in ((f"model.{n}", p) for n, p in trainer.model.named_parameters()):
                for dim, (size, wide) in enumerate(zip(own.shape, slices[name].shape, strict=True)):
                    if size != wide:
                        grad = slices[name].grad
                        assert grad is not None
                        assert not slices[name].narrow(dim, z, wide - size).any()
                        assert not grad.narrow(dim, z, wide - size).any()
                        pads += 1

    train_epoch(stack, look)
    assert pads


def test_one_that_is_not_finite_stops_and_leaves_the_others_as_they_are(small_data, in_dtype):
    in_dtype(torch.float64)
    data = data_of(small_data)
    alone, stacked = trainers("base", data, torch.float64), trainers("base", data, torch.float64)
    with torch.no_grad():
        next(stacked[1].model.parameters()).fill_(float("nan"))
    for trainer in (alone[0], alone[2]):
        trainer._train_epoch(1)
    before = {name: tensor.clone() for name, tensor in stacked[1].state().tensors.items()}
    stack = Stack(stacked)
    stack.load()
    epochs = [Epoch(stacked[i], 1) for i in (0, 2)]
    for first, third in zip(*epochs, strict=True):
        numbers = stack.step([first, first, third])
        assert [isinstance(own, NumericsError) for own in numbers] == [False, True, False]
        for epoch, step, own in zip(epochs, (first, third), (numbers[0], numbers[2]), strict=True):
            assert not isinstance(own, NumericsError)
            epoch.took(own, len(step.batch.x))
    stack.unload()
    for ours, theirs in ((stacked[0], alone[0]), (stacked[2], alone[2])):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-10
    for name, tensor in stacked[1].state().tensors.items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num())


def test_a_stack_of_trainers_that_have_begun_goes_on(small_data, in_dtype):
    in_dtype(torch.float64)
    data = data_of(small_data)
    alone, stacked = trainers("batch_norm", data, torch.float64), trainers("batch_norm", data, torch.float64)
    for trainer in alone:
        trainer.train()
    for trainer in stacked:
        trainer.end_epoch(trainer._train_epoch(1))
    for _ in range(2):
        train_epoch(Stack(stacked))  # made anew, as when one has left it
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-10


@pytest.mark.parametrize(
    ("shape", "axis", "z", "width"),
    [
        ((3, 4), LatentAxis(0), 3, 5),  # of a head
        ((4, 13), LatentAxis(1), 3, 6),  # z, and ten labels behind it
        ((2,), LatentAxis(0), 2, 7),
        ((6, 4), LatentAxis(0, 2), 3, 5),  # of a joint head
        ((4, 8), LatentAxis(1, 2), 3, 5),  # two blocks, and two columns behind them
        ((3, 4), None, 2, 5),
        ((3, 4), LatentAxis(0), 3, 3),
    ],
)
def test_widening_puts_zeros_in_and_narrowing_takes_them_out(shape, axis, z, width):
    tensor = torch.randn(shape)
    widened = widen(tensor, axis, z, width)
    added = axis.blocks * (width - z) if axis else 0
    assert widened.numel() - tensor.numel() == added * (tensor.numel() // tensor.shape[axis.dim] if axis else 0)
    assert (widened != 0).sum() == tensor.numel()
    assert torch.equal(narrow(widened, axis, z, width), tensor)
    for block in range(axis.blocks if axis else 0):  # each where a model of that width has it
        assert axis
        ours, wide = tensor.narrow(axis.dim, block * z, z), widened.narrow(axis.dim, block * width, width)
        assert torch.equal(wide.narrow(axis.dim, 0, z), ours)
        assert not wide.narrow(axis.dim, z, width - z).any()


# --- what a model says of its latents -----------------------------------------------------------------------


class JointHead(BaseVAE):
    """One layer for mu and logvar, as many people write it, and what it says of that."""

    says: ClassVar[Any] = {
        "head.weight": LatentAxis(0, 2),
        "head.bias": LatentAxis(0, 2),
        "decoder.0.weight": LatentAxis(1),
    }

    def __init__(self, latent_dim: int):
        super().__init__(latent_dim, hidden_dim=16)
        del self.mu, self.logvar
        self.head = nn.Linear(16, 2 * latent_dim)

    def latent_axes(self) -> Any:
        return self.says

    def encode(self, x, labels=None):
        return self.head(self.encoder(x)).chunk(2, dim=1)


class WrongHead(JointHead):
    """Says that its joint layer has the latents once, as its shape alone would have it guessed."""

    says: ClassVar[Any] = {**JointHead.says, "head.weight": LatentAxis(0), "head.bias": LatentAxis(0)}


class MuteHead(JointHead):
    says: ClassVar[Any] = None


class Forgetful(BaseVAE):
    """Has one layer of latents more than its parent told of."""

    def __init__(self, latent_dim: int):
        super().__init__(latent_dim, hidden_dim=16)
        self.scale = nn.Parameter(torch.ones(latent_dim))


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "in turn"])
def test_a_joint_head_is_paired_as_the_model_says(small_data, in_dtype, batched, monkeypatch):
    monkeypatch.setitem(MODELS, "joint", JointHead)
    in_dtype(torch.float64)
    data = data_of(small_data)
    alone, stacked = trainers("joint", data, torch.float64), trainers("joint", data, torch.float64)
    for trainer in alone:
        trainer.train()
    stack = Stack(stacked, batched)
    for _ in range(3):
        train_epoch(stack)
    for ours, theirs in zip(stacked, alone, strict=True):
        assert worst(ours.state().tensors, theirs.state().tensors) <= 1e-10


def test_it_is_the_models_word_that_pairs_them():
    """The control: zeros behind the whole layer, as guessed from shapes, move logvar to other latents."""
    model, x = JointHead(2), torch.rand(5, 1, 28, 28)
    right, wrong = JointHead(4), JointHead(4)
    with torch.no_grad():
        for wide, blocks in ((right, 2), (wrong, 1)):
            for name in ("weight", "bias"):
                own = getattr(model.head, name)
                axis = LatentAxis(0, blocks)
                padded = widen(own, axis, own.shape[0] // blocks, 8 // blocks)
                getattr(wide.head, name).copy_(padded)
            wide.encoder.load_state_dict(model.encoder.state_dict())
    mu, logvar = model.encode(x)
    assert torch.equal(right.encode(x)[1][:, :2], logvar)
    assert torch.equal(right.encode(x)[0][:, :2], mu)
    assert not torch.equal(wrong.encode(x)[1][:, :2], logvar)


@pytest.mark.parametrize("kind", MODELS)
def test_our_models_say_where_their_latents_are(kind):
    assert can_widen(MODELS[kind], 2)
    assert can_widen(MODELS[kind], 10)


@pytest.mark.parametrize(
    ("make", "can"), [(JointHead, True), (WrongHead, False), (MuteHead, False), (Forgetful, False)]
)
def test_what_a_model_says_is_compared_with_a_wider_one(make, can):
    assert can_widen(make, 3) == can


def test_models_that_say_nothing_are_stacked_at_one_latent_dim_only(small_data, monkeypatch):
    monkeypatch.setitem(MODELS, "mute", MuteHead)
    data = data_of(small_data)
    with pytest.raises(ValueError, match="one latent_dim"):
        Stack(trainers("mute", data, torch.float32))
    monkeypatch.setattr("tests.training.test_stack.LATENT_DIMS", (3, 3, 3))
    train_epoch(Stack(trainers("mute", data, torch.float32)))
