"""The classifier's training: its schedule, its augmentation, what it leaves out and how it makes up for that."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torchvision.transforms import v2

from fmvae import rng
from fmvae.data import FashionMNISTManager, Split
from fmvae.errors import ConfigError, NumericsError
from fmvae.evaluation.processor import has_bf16, has_fast_bf16
from fmvae.models.resnet import ClassifierOutput
from fmvae.runs.checkpoint import load_checkpoint, save_checkpoint
from fmvae.runs.observer import Observer
from fmvae.training import ClassifierTrainer
from fmvae.training import classifier as module
from fmvae.training.classifier import classify, one_cycle
from tests.training.cases import NUM_STEPS, NUM_TRAIN, data_of, same

LR, WARMUP = 0.2, 0.3


class Tiny(nn.Module):
    """As quick as a classifier can be; remembers what it was shown in training."""

    mean: Tensor
    std: Tensor

    def __init__(self, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.head = nn.Linear(4, 10)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.shown: list[Tensor] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> ClassifierOutput:
        if self.training:
            self.shown.append(x)
        hidden = self.conv((x - self.mean) / self.std)
        self.dtypes.add(hidden.dtype)
        features = self.norm(hidden).relu().amax((2, 3))
        return ClassifierOutput(self.head(features), features)


@pytest.fixture
def data(small_data) -> FashionMNISTManager:
    return data_of(small_data)


def trainer_of(
    data: FashionMNISTManager, *, init_seed: int = 0, norm: bool = True, lr: float = LR, **settings: Any
):
    with rng.seeded_init(init_seed):
        model: Any = Tiny(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    arguments: dict[str, Any] = {
        "epochs": 4,
        "label_smoothing": 0.1,
        "warmup": WARMUP,
        "shift": 2,
        "flip": True,
        "blur": 0.0,
        "sides": [28],
        "prune": 0.5,
        "precision": "fp32",
    }
    return ClassifierTrainer(model, data, optimizer, **arguments | settings)


def snapshot(trainer: ClassifierTrainer) -> dict[str, Tensor]:
    """A copy of every tensor of a trainer."""
    return {name: tensor.detach().clone() for name, tensor in trainer.state().tensors.items()}


def shown(trainer: ClassifierTrainer) -> list[Tensor]:
    model: Any = trainer.model
    return model.shown


class Watch(Observer):
    """Calls a function after every step."""

    def __init__(self, function: Callable[[Any, int], object]):
        self.function = function

    def on_step(self, trainer, step):
        self.function(trainer, step)


# --- the learning rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.1, 0.2, 0.5, 0.9])
def test_one_cycle_is_two_straight_lines_from_0_to_1_and_back(warmup):
    assert one_cycle(0, warmup) == 0
    assert one_cycle(warmup, warmup) == 1
    assert one_cycle(1, warmup) == 0
    grid = np.linspace(0, 1, 101)
    expected = np.interp(grid, [0, warmup, 1], [0, 1, 0])
    assert [one_cycle(p, warmup) for p in grid] == pytest.approx(expected, abs=1e-12)


def test_each_step_is_made_at_its_own_learning_rate(data):
    rates = []
    watch = Watch(lambda trainer, _: rates.append([group["lr"] for group in trainer.optimizer.param_groups]))
    trainer = trainer_of(data, epochs=3, prune=0, observers=[watch])
    trainer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0})
    trainer.peak_lr = [LR, 1.0]
    history = trainer.train()
    shares = np.interp(np.arange(3 * NUM_STEPS) / (3 * NUM_STEPS), [0, WARMUP, 1], [0, 1, 0])
    assert np.array(rates) == pytest.approx(np.outer(shares, [LR, 1.0]), abs=1e-12)
    assert [row["lr"] for row in history] == [rates[NUM_STEPS * e - 1][0] for e in (1, 2, 3)]


# --- pruning --------------------------------------------------------------------------------------------------


def test_no_image_is_left_out_in_the_first_epoch_or_in_the_last_eighth(data):
    history = trainer_of(data, epochs=16).train()
    numbers = [row["images"] for row in history]
    whole = [row["epoch"] for row in history if row["images"] == NUM_TRAIN]
    assert whole == [1, 15, 16]
    assert all(NUM_TRAIN * 0.4 < number < NUM_TRAIN for number in numbers[1:14])


def test_every_image_is_seen_in_the_last_epoch_however_few_there_are(data):
    for epochs in (1, 2, 3, 14):
        trainer = trainer_of(data, epochs=epochs)
        trainer.last_loss = torch.rand(NUM_TRAIN)
        order, weights = trainer._chosen(epochs)
        assert sorted(order.tolist()) == list(range(NUM_TRAIN))
        assert (weights == 1).all()


def test_without_pruning_every_epoch_takes_every_image_with_weight_one(data):
    trainer = trainer_of(data, epochs=9, prune=0.0)
    trainer.last_loss = torch.rand(NUM_TRAIN)
    for epoch in range(1, 10):
        order, weights = trainer._chosen(epoch)
        assert sorted(order.tolist()) == list(range(NUM_TRAIN))
        assert (weights == 1).all()


def test_only_images_below_the_mean_loss_are_left_out_and_count_for_more(data):
    trainer = trainer_of(data, epochs=100, prune=0.75)
    trainer.last_loss = torch.rand(NUM_TRAIN, generator=torch.Generator().manual_seed(0)) ** 3
    hard = set(torch.nonzero(trainer.last_loss >= trainer.last_loss.mean()).flatten().tolist())
    order, weights = trainer._chosen(5)
    assert hard < set(order.tolist())
    assert len(order) < NUM_TRAIN
    assert len(set(order.tolist())) == len(order)
    assert weights.tolist() == [1.0 if i in hard else 4.0 for i in order.tolist()]


@pytest.mark.parametrize("prune", [0.25, 0.8])
def test_weighted_losses_have_the_full_sum_as_their_expectation(prune, data):
    """Over seeds and epochs; without the weights they do not."""
    weighted, plain = [], []
    loss = torch.rand(NUM_TRAIN, generator=torch.Generator().manual_seed(0)).double()
    for seed in range(4):
        trainer = trainer_of(data, epochs=200, prune=prune, seed=seed)
        trainer.last_loss = loss.float()
        for epoch in range(2, 152):
            order, weights = trainer._chosen(epoch)
            weighted.append((weights * loss[order]).sum().item())
            plain.append(loss[order].sum().item())
    easy = loss[loss < loss.mean()]
    error = (easy**2).sum().mul(prune / (1 - prune)).sqrt().item() / math.sqrt(len(weighted))
    assert abs(np.mean(weighted) - loss.sum().item()) < 4 * error
    assert np.std(weighted) == pytest.approx(error * math.sqrt(len(weighted)), rel=0.15)
    assert abs(np.mean(plain) - loss.sum().item()) > 20 * error


def test_the_weights_are_those_of_the_gradient(data):
    """One batch of all that was chosen, without momentum or augmentation, by hand."""
    data.batch_size = NUM_TRAIN
    settings: dict[str, Any] = {"epochs": 20, "shift": 0, "flip": False, "norm": False}
    trainer, by_hand = trainer_of(data, **settings), trainer_of(data, **settings)
    for one in (trainer, by_hand):
        one.last_loss = torch.rand(NUM_TRAIN, generator=torch.Generator().manual_seed(0))
    order, weights = by_hand._chosen(5)
    assert weights.max() == 2
    trainer._train_epoch(5)
    x, labels = data.train.images[order].float() / 255, data.train.labels[order]
    losses = F.cross_entropy(by_hand.model(x).logits, labels, reduction="none", label_smoothing=0.1)
    gradient = torch.autograd.grad((weights * losses).mean(), by_hand.parameters)
    unweighted = torch.autograd.grad(
        F.cross_entropy(by_hand.model(x).logits, labels, label_smoothing=0.1), by_hand.parameters
    )
    found = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in gradient]))
    assert not torch.allclose(found, torch.cat([g.flatten() for g in unweighted]), rtol=1e-2)
    torch.testing.assert_close(trainer.last_loss[order], losses.detach())


def test_each_images_last_loss_is_remembered_and_only_if_it_was_seen(data):
    trainer = trainer_of(data, epochs=20, norm=False, lr=0.0, shift=0, flip=False)
    trainer._train_epoch(1)
    x, labels = data.train.images.float() / 255, data.train.labels
    with torch.no_grad():
        expected = F.cross_entropy(trainer.model(x).logits, labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(trainer.last_loss, expected)
    order, _ = trainer._chosen(2)
    unseen = ~torch.isin(torch.arange(NUM_TRAIN), order)
    assert unseen.any()
    before = trainer.last_loss[unseen].clone()
    trainer.optimizer.param_groups[0]["params"][0].data.add_(1)
    trainer._train_epoch(2)
    assert torch.equal(trainer.last_loss[unseen], before)
    assert not torch.isclose(trainer.last_loss[~unseen], expected[~unseen]).any()


# --- augmentation ---------------------------------------------------------------------------------------------


def with_images(data: FashionMNISTManager, image: Tensor) -> FashionMNISTManager:
    """The same data, but every training image is this one."""
    images = image.to(torch.uint8).expand(NUM_TRAIN, 1, *image.shape).contiguous()
    data.train = Split("train", images, data.train.labels)
    return data


def epoch_of(trainer: ClassifierTrainer, epoch: int) -> Tensor:
    """What the network is shown in one epoch, all steps together."""
    shown(trainer).clear()
    trainer._train_epoch(epoch)
    return torch.cat(shown(trainer))


def dot(data: FashionMNISTManager) -> FashionMNISTManager:
    """Images that are black but for one pixel, 10 down and 9 across."""
    image = torch.zeros(28, 28)
    image[10, 9] = 255
    return with_images(data, image)


def places(images: Tensor) -> list[tuple[int, int]]:
    assert torch.equal(images.flatten(1).sum(1), torch.ones(len(images)))
    return [divmod(int(image.argmax()), 28) for image in images.flatten(1)]


def test_each_image_is_moved_by_its_own_draw(data):
    found = places(epoch_of(trainer_of(dot(data), flip=False), 1))
    moves = {(row - 10, column - 9) for row, column in found}
    assert moves <= {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert len(moves) > 18  # of 25, in 100 draws
    assert len(set(found[:32])) > 5  # not one draw per batch


def test_half_of_the_images_are_mirrored_each_by_its_own_draw(data):
    found = places(epoch_of(trainer_of(dot(data), shift=0), 1))
    assert set(found) == {(10, 9), (10, 27 - 9)}
    assert 30 < found.count((10, 9)) < 70
    assert len(set(found[:32])) == 2


def test_a_share_of_the_images_is_blurred_each_by_its_own_draw(data):
    """Against SciPy's Gaussian filter: the width that each image was blurred with is found again."""
    order = torch.randperm(NUM_TRAIN, generator=rng.stream(0, "shuffle", 1))
    stored = data.train.images[order].float().div(255)
    images = epoch_of(trainer_of(data, shift=0, flip=False, blur=0.25), 1)
    blurred = [n for n in range(NUM_TRAIN) if not torch.equal(images[n], stored[n])]
    assert 0.12 < len(blurred) / NUM_TRAIN < 0.4
    widths = np.linspace(0.5, 2, 151)
    found = []
    for n in blurred:
        off = [
            np.abs(gaussian_filter(stored[n, 0].numpy(), w, mode="mirror", radius=4) - images[n, 0].numpy()).max()
            for w in widths
        ]
        assert min(off) < 5e-3
        found.append(widths[np.argmin(off)])
    assert max(found) > 1.7
    assert min(found) < 0.8
    assert len(set(found)) > len(found) / 2


def test_without_augmentation_images_are_as_stored_in_the_order_drawn(data):
    order = torch.randperm(NUM_TRAIN, generator=rng.stream(7, "shuffle", 1))
    images = epoch_of(trainer_of(data, shift=0, flip=False, seed=7), 1)
    assert torch.equal(images, data.train.images[order].float() / 255)


def test_draws_come_from_the_augmentation_stream_of_the_epoch(data):
    """Written out by hand, with torchvision's transforms on one image after another."""
    trainer = trainer_of(data, seed=3, prune=0)
    trainer._train_epoch(1)
    augment = v2.Compose([v2.RandomCrop((28, 28), padding=2), v2.RandomHorizontalFlip()])
    order = torch.randperm(NUM_TRAIN, generator=rng.stream(3, "shuffle", 2))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.stream_seed(3, "augmentation", 2))
        expected = torch.stack([augment(image) for image in data.train.images[order].float() / 255])
    assert torch.equal(epoch_of(trainer, 2), expected)


def test_equal_seeds_show_equal_images_and_epochs_and_seeds_differ(data):
    settings: dict[str, Any] = {"prune": 0}
    first = epoch_of(trainer_of(data, **settings), 2)
    torch.randn(17)  # whatever else draws
    assert torch.equal(epoch_of(trainer_of(data, **settings), 2), first)
    assert not torch.equal(epoch_of(trainer_of(data, **settings), 3), first)
    assert not torch.equal(epoch_of(trainer_of(data, seed=1, **settings), 2), first)


def test_training_leaves_the_global_generator_as_it_was(data):
    trainer = trainer_of(data)
    before = torch.get_rng_state()
    trainer.train()
    assert torch.equal(torch.get_rng_state(), before)
    v2.RandomCrop((28, 28), padding=2)(data.train.images[0])  # as it would without its stream
    assert not torch.equal(torch.get_rng_state(), before)


# --- sides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "epochs", "expected"),
    [
        ([16, 20, 28], 6, [16, 16, 20, 20, 28, 28]),
        ([16, 20, 28], 7, [16, 16, 16, 20, 20, 28, 28]),
        ([9, 28], 3, [9, 9, 28]),
        ([28], 3, [28, 28, 28]),
    ],
)
def test_each_side_has_an_equal_part_of_training(sides, epochs, expected, data):
    trainer = trainer_of(data, sides=sides, epochs=epochs, shift=0, flip=False)
    history = trainer.train()
    assert [row["side"] for row in history] == expected
    steps = [math.ceil(row["images"] / data.batch_size) for row in history]
    seen = [tuple(x.shape[1:]) for x in shown(trainer)]
    assert seen == [(1, side, side) for side, num in zip(expected, steps, strict=True) for _ in range(num)]


def test_images_are_scaled_with_their_proportions_and_brightness(data):
    middle = data.train.images[:, :, 4:24, 9:19].contiguous()
    data.train, data.image_shape = Split("train", middle, data.train.labels), (1, 20, 10)
    images = epoch_of(trainer_of(data, sides=[12, 20], shift=0, flip=False, seed=2), 1)
    assert images.shape == (NUM_TRAIN, 1, 12, 6)
    order = torch.randperm(NUM_TRAIN, generator=rng.stream(2, "shuffle", 1))
    brightness = middle[order].float().div(255).mean((1, 2, 3))
    torch.testing.assert_close(images.mean((1, 2, 3)), brightness, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "sides",
    [
        [],
        [16],
        [28, 16],
        [8, 28],
        [29, 28],
        [16, 28, 29],
        [16.0, 28],
        [16.5, 28],
        ["16", 28],
        [True, 28],
        [None, 28],
    ],
    ids=str,
)
def test_sides_that_no_image_can_have_are_refused(sides, data):
    with pytest.raises(ConfigError, match=r"trainer.sides: .*; give 9 to 28, 28 last") as caught:
        trainer_of(data, sides=sides)
    assert str(sides) in caught.value.problem


def test_more_sizes_than_epochs_are_refused(data):
    """The images' own size would never be trained on."""
    with pytest.raises(ConfigError, match=r"trainer.sides: 2 sizes in 1 epochs"):
        trainer_of(data, sides=[16, 28], epochs=1)


# --- resuming -------------------------------------------------------------------------------------------------

EPOCHS, CUT = 8, 3


def long_trainer(data: FashionMNISTManager, **settings: Any) -> ClassifierTrainer:
    return trainer_of(data, **{"epochs": EPOCHS, "sides": [16, 28], "seed": 5} | settings)


def resumed(data, tmp_path, change: Callable[[dict[str, Tensor]], object] = lambda tensors: None):
    """A fresh trainer that goes on from a file written after the third epoch of another."""
    first = long_trainer(data)
    path = tmp_path / "last.safetensors"

    class Stop(Observer):
        def on_epoch_end(self, trainer, row):
            if row["epoch"] == CUT:
                save_checkpoint(path, *trainer.state())
                raise KeyboardInterrupt

    first.observers.append(Stop())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    tensors, meta, _ = load_checkpoint(path)
    change(tensors)
    second = long_trainer(data, init_seed=9)
    second.load_state(tensors, meta)
    assert second.epoch == CUT
    second.train()
    return second


def test_a_resumed_training_is_the_undisturbed_one_to_the_last_bit(data, tmp_path):
    whole = long_trainer(data)
    whole.train()
    second = resumed(data, tmp_path)
    assert same(snapshot(second), snapshot(whole))  # parameters, running averages, momenta and last losses
    assert {"trainer.last_loss", "model.norm.running_var", "optimizer.0.momentum_buffer"} <= snapshot(whole).keys()
    assert second.history == whole.history
    assert second.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("other", ["infinite", "shuffled"])
def test_negative_control_without_the_last_losses_it_would_differ(other, data, tmp_path):
    def forget(tensors: dict[str, Tensor]) -> None:
        loss = tensors["trainer.last_loss"]
        tensors["trainer.last_loss"] = torch.full_like(loss, math.inf) if other == "infinite" else loss.roll(1)

    whole = long_trainer(data)
    whole.train()
    second = resumed(data, tmp_path, forget)
    assert second.history[:CUT] == whole.history[:CUT]
    assert second.history[CUT:] != whole.history[CUT:]
    assert not same(snapshot(second), snapshot(whole))


def test_a_trainer_that_was_resumed_does_not_write_into_the_checkpoint_it_came_from(data):
    first = long_trainer(data)
    first.train()
    tensors = {name: t.clone() for name, t in first.state().tensors.items()}
    before = {name: t.clone() for name, t in tensors.items()}
    second = long_trainer(data, epochs=EPOCHS + 2)
    second.load_state(tensors, first.state().meta)
    second.train()
    assert torch.equal(tensors["trainer.last_loss"], before["trainer.last_loss"])
    assert not torch.equal(second.last_loss, before["trainer.last_loss"])
    assert len(first.history) == EPOCHS


# --- measuring ------------------------------------------------------------------------------------------------


def test_mean_and_std_are_the_training_pixels(data):
    model = trainer_of(data).model
    pixels = data.train.images.double().numpy() / 255
    assert model.mean.item() == pytest.approx(pixels.mean(), rel=1e-6)
    assert model.std.item() == pytest.approx(pixels.std(ddof=1), rel=1e-6)
    others = torch.cat([data.val.images, data.test.images]).double().numpy() / 255
    assert model.mean.item() != pytest.approx(others.mean(), rel=1e-4)


def test_loss_and_accuracy_are_those_counted_by_hand(data, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 7)
    trainer = trainer_of(data)
    trainer.train()
    trainer.model.eval()
    for split in (data.test, data.val):
        losses, right = [], 0
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            with torch.no_grad():
                logits = trainer.model(image[None].float() / 255).logits[0].double().tolist()
            losses.append(math.log(sum(map(math.exp, logits))) - logits[label])
            right += logits.index(max(logits)) == label
        measured = trainer.evaluate(split)
        assert measured == pytest.approx({"loss": np.mean(losses), "accuracy": right / len(split)}, rel=1e-5)
    assert trainer.evaluate() == trainer.evaluate(data.test) != trainer.evaluate(data.val)


def test_measuring_changes_nothing_and_does_not_smooth_labels(data):
    trainer = trainer_of(data)
    before, state = snapshot(trainer), torch.get_rng_state()
    for training in (True, False):
        trainer.model.train(training)
        trainer.evaluate()
        assert trainer.model.training == training
    assert same(snapshot(trainer), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert trainer_of(data, label_smoothing=0.0).evaluate() == trainer.evaluate()


def test_it_learns(data):
    trainer = trainer_of(data, epochs=25, shift=0, flip=False)
    before = trainer.evaluate(data.train)
    history = trainer.train()
    after = trainer.evaluate(data.train)
    assert after["loss"] < 0.8 * before["loss"]
    assert after["accuracy"] > 0.2  # a tenth by chance
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    assert trainer.best == min(history, key=lambda row: row["val/loss"])


def test_a_row_holds_the_means_over_the_images_of_its_epoch(data):
    trainer = trainer_of(data, epochs=20, norm=False, lr=0.0, shift=0, flip=False, label_smoothing=0.0)
    row = trainer._train_epoch(1)
    expected = trainer.evaluate(data.train)
    assert row["train/loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert row["train/accuracy"] == pytest.approx(expected["accuracy"], rel=1e-5)
    assert row["images"] == NUM_TRAIN


# --- numbers that are none ------------------------------------------------------------------------------------


def test_a_nan_stops_training_before_the_weights_have_it(data, monkeypatch):
    trainer = trainer_of(data)
    batches = trainer._batches

    def second_batch_broken(*arguments: Any):
        for step, (x, *others) in enumerate(batches(*arguments)):
            if step == 1:
                x[3, 0, 5, 5] = math.nan
            yield x, *others

    monkeypatch.setattr(trainer, "_batches", second_batch_broken)
    steps = []
    trainer.observers.append(Watch(lambda t, step: steps.append([p.detach().clone() for p in t.parameters])))
    state = torch.get_rng_state()
    with pytest.raises(NumericsError, match="epoch 1, step 2: loss is nan"):
        trainer.train()
    assert len(steps) == 1
    assert all(torch.equal(p, before) for p, before in zip(trainer.parameters, steps[0], strict=True))
    assert trainer.history == []
    assert torch.equal(torch.get_rng_state(), state)


# --- precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "able", "expected"),
    [("fp32", True, False), ("bf16", False, True), ("auto", True, True), ("auto", False, False)],
)
def test_precision_says_what_convolutions_compute_in(precision, able, expected, data, monkeypatch):
    monkeypatch.setattr(module, "has_fast_bf16", lambda device: able)
    trainer = trainer_of(data, precision=precision, epochs=1)
    trainer.train()
    trainer.evaluate()
    model: Any = trainer.model
    assert trainer.bf16 == expected
    assert model.dtypes == {torch.bfloat16 if expected else torch.float32}
    assert {p.dtype for p in trainer.parameters} == {trainer.last_loss.dtype} == {torch.float32}
    assert classify(trainer.model, data.test).dtype == torch.float32


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("instructions", [True, False])
def test_a_processor_has_bfloat16_if_it_has_tiles_or_instructions_for_it(tiles, instructions, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    assert has_bf16(torch.device("cpu")) == (tiles or instructions)
    assert has_fast_bf16(torch.device("cpu")) == tiles  # which classifiers are trained with by default


def test_bfloat16_is_close_and_not_the_same(data):
    exact = trainer_of(data, precision="fp32").evaluate()["loss"]
    rounded = trainer_of(data, precision="bf16").evaluate()["loss"]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=1e-2)
