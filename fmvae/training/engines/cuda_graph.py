"""Run a whole epoch on a GPU: each step is one launch of a CUDA graph, and losses are read once per epoch.

With a small model, the CPU needs more time to launch a step's hundred kernels one by one than the GPU needs to run
them. A graph launches all of them at once. Everything that changes from step to step must then be on the device:
the order of the images, the values of the beta schedule, the generator's state, and the logged values.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD, Adam

from fmvae import rng
from fmvae.training.precision import step_in
from fmvae.training.step import add_up, not_finite, take_step
from fmvae.training.vae import VAETrainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger("fmvae")

EAGER_STEPS = 3  # training steps before the first capture, in which libraries and optimizers initialise


def can_stay(trainer: VAETrainer) -> bool:
    """Whether a trainer's steps can run without reading from the device: only with a fused Adam or SGD.

    Fused optimizers can skip a step depending on a tensor on the device (``found_inf``).
    """
    optimizers = [rule.optimizer for rule in trainer.rules]
    fused = all(group.get("fused") for optimizer in optimizers for group in optimizer.param_groups)
    return fused and all(isinstance(optimizer, Adam | SGD) for optimizer in optimizers)  # AdamW is an Adam


class CUDAGraph:
    """An engine that runs a trainer's epochs with bit-identical results and the same response to stop signals.

    A step that is not finite is reported at the end of its epoch; neither it nor any later step changes weights.

    Args:
        trainer: one for which ``can_stay`` is true.
        capture: whether to capture steps; if not, their kernels are launched one by one.
    """

    def __init__(self, trainer: VAETrainer, *, capture: bool = True):
        self.trainer, self.capture = trainer, capture
        data, device = trainer.data, trainer.data.device
        self.generator = torch.Generator(device)
        self.within_batch = torch.arange(data.batch_size, device=device)
        self.images = data.train
        self.order = torch.zeros(len(data.train), dtype=torch.long, device=device)
        self.scheduled = tuple(trainer.objective.numbers(0.0))  # names
        self.schedule = torch.zeros(trainer.num_steps, len(self.scheduled), device=device)
        self.names: tuple[str, ...] = ()  # of the values that a step records, known after the first step
        self.numbers = torch.zeros(trainer.num_steps, 0, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)  # the current step, from 0
        self.failed = torch.zeros((), device=device)  # becomes 1 with the first step that is not finite
        self.graph: Any = None
        self.captured_with: Any = None  # see _held
        self.eager_steps = 0
        self.is_current = False

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch; return its history row without the validation columns."""
        trainer = self.trainer
        trainer.training_mode()
        for rule in trainer.rules:
            setattr(rule.optimizer, "found_inf", self.failed)  # noqa: B010 - fused optimizers read it
        self.generator.set_state(rng.stream(trainer.seed, "noise", epoch, trainer.data.device).get_state())
        done, before, _ = trainer._begun(self.generator)
        self.images = trainer.data.train_of_epoch(epoch)  # at one address in all epochs
        self._lay_out(epoch, done)
        self.is_current = False

        def sums(steps: int = trainer.num_steps) -> dict[str, float]:
            return self._read(epoch, done, steps, before)

        for step in range(done, trainer.num_steps):
            self._take(self._size(step))
            trainer._end_step(step + 1, lambda step=step: sums(step + 1), self.generator)
        return trainer.row(epoch, sums())

    def _size(self, step: int) -> int:
        batch_size = self.trainer.data.batch_size
        return min(batch_size, len(self.order) - step * batch_size)

    def _lay_out(self, epoch: int, done: int) -> None:
        """Copy the epoch's image order and schedule values to the device."""
        trainer = self.trainer
        self.order.copy_(trainer.data.train.order(rng.stream(trainer.seed, "shuffle", epoch)))
        at = [trainer.progress(epoch, step) for step in range(trainer.num_steps)]
        self.schedule.copy_(torch.tensor([list(trainer.objective.numbers(progress).values()) for progress in at]))
        self.at.fill_(done)
        self.failed.zero_()

    def _step(self, size: int) -> None:
        """Take a step on the next ``size`` images without reading from the device."""
        trainer = self.trainer
        first = self.at * trainer.data.batch_size
        x, labels = self.images.batch(self.order.index_select(0, first + self.within_batch[:size]))
        batch = trainer.batch(x, labels, self.generator)
        said = dict(zip(self.scheduled, self.schedule.index_select(0, self.at)[0], strict=True))
        with step_in(trainer.precision):
            terms = trainer.compute(batch, said)
            recorded = trainer.recorded(terms)
            if not self.names:
                self.names = (*recorded, *(rule.norm for rule in trainer.rules))
                self.numbers = self.schedule.new_zeros(trainer.num_steps, len(self.names))
            take_step(trainer.rules, trainer.losses(terms), list(recorded.values()), self._note)
        self.at.add_(1)

    def _note(self, numbers: torch.Tensor) -> None:
        """Store a step's numbers, and whether they are finite, on the device."""
        self.numbers.index_copy_(0, self.at, numbers[None])
        self.failed.copy_(torch.maximum(self.failed, (~numbers.isfinite().all()).float()))

    def _read(self, epoch: int, done: int, steps: int, before: dict[str, float]) -> dict[str, float]:
        """Read the epoch's numbers up to a step from the device, summed over images.

        Raises:
            NumericsError: a number is not finite.
        """
        sums = dict(before)
        for step, row in enumerate(self.numbers[done:steps].tolist(), done):
            numbers: dict[str, float] = dict(zip(self.names, row, strict=True))
            if problem := not_finite(numbers, (), epoch, step + 1):
                raise problem
            add_up(sums, numbers, self._size(step))
        return sums

    # --- capturing ------------------------------------------------------------------------------------------

    def _take(self, size: int) -> None:
        if not self.capture or size < self.trainer.data.batch_size:
            self._step(size)
            return
        if self.eager_steps < EAGER_STEPS:
            self.eager_steps += 1
            self._step_aside(size)
            return
        if not self.is_current and self._held() != self.captured_with:
            self.graph = self._captured(size)
            self.captured_with = self._held()
        self.is_current = True
        if self.graph is None:
            self.capture = False
            self._step(size)
        else:
            self.graph.replay()

    def _held(self) -> list[Any]:
        """Return the settings and memory addresses that a captured graph contains; a change needs a new capture.

        They change between epochs only.
        """
        optimizers = [rule.optimizer for rule in self.trainer.rules]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        tensors = [t for module in self.trainer.trained.values() for t in module.state_dict().values()]
        states = [state for optimizer in optimizers for state in optimizer.state.values()]
        tensors += [t for state in states for t in state.values() if isinstance(t, torch.Tensor)]
        return [settings, [tensor.data_ptr() for tensor in tensors]]

    def _step_aside(self, size: int) -> None:
        """Take a step on a side stream, which CUDA graphs require before a capture."""
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._step(size)
        here.wait_stream(aside)

    def _captured(self, size: int) -> torch.cuda.CUDAGraph | None:
        """Capture a step as a graph; log the reason and return None where that is not possible."""
        self.graph = None  # free its memory first
        graph, place = torch.cuda.CUDAGraph(), self.generator.get_state()
        try:
            graph.register_generator_state(self.generator)
            optimizers = [rule.optimizer for rule in self.trainer.rules]
            with _capturable(optimizers), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(size)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.info("steps can't be captured in a CUDA graph; kernels are launched one by one: %s", reason)
            # after a failed capture, the old generator may still be in capture mode
            self.generator = torch.Generator(self.trainer.data.device)
            self.generator.set_state(place)
            return None
        return graph


@contextmanager
def _capturable(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Set ``capturable`` inside: fused optimizers can always be captured, but some check the flag."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group.get("capturable") for group in groups]
    try:
        for group in groups:
            group["capturable"] = True
        yield
    finally:
        for group, was in zip(groups, before, strict=True):
            if was is None:
                del group["capturable"]
            else:
                group["capturable"] = was
