"""Runs trained side by side in one process, their models stacked; each is the run that it would be alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fmvae.common.stop import Stop
from fmvae.config.building import build, find_class
from fmvae.config.identity import is_vae, semantic
from fmvae.errors import NumericsError, of_a_run
from fmvae.experiments.lifecycle import attempt, only_of, results
from fmvae.models import VAE
from fmvae.runs.directory import RunDirectory
from fmvae.training import VAETrainer
from fmvae.training.engines.stack import Numbers, Stack, can_widen
from fmvae.training.vae import Epoch, Step

T = TypeVar("T")
log = logging.getLogger("fmvae")
_OPTIMIZERS = "Adadelta Adagrad Adam Adamax AdamW ASGD NAdam RAdam RMSprop Rprop SGD"
ELEMENTWISE = [f"torch.optim.{name}" for name in _OPTIMIZERS.split()]
# of Fashion-MNIST, what the shapes and numbers of batches depend on; of other data that is not known
BATCHES = {"fmvae.data.FashionMNISTManager": ("_target_", "batch_size", "num_train", "val_size", "image_shape")}
Settings = tuple[dict[str, Any], Sequence[str]]  # a config, and the overrides that made it


def stackable(config: Mapping[str, Any]) -> str | None:
    """A text that is equal for runs that can be stacked with each other; None for a run that can't be stacked.

    Their models must be of one structure, their batches of one size, and what their optimizers do to a weight must
    not depend on the others of its tensor, which may be padding.
    """
    if not is_vae(config) or config["optimizer"]["_target_"] not in ELEMENTWISE:
        return None
    whole = semantic(config)
    widened = _can_widen(config)
    keys = BATCHES.get(whole["data"].get("_target_"), [key for key in whole["data"] if key != "seed"])
    data = {key: whole["data"].get(key) for key in keys}
    model = {key: value for key, value in whole["model"].items() if key != "latent_dim" or not widened}
    objective = [whole.get("loss"), whole["likelihood"], _penalty_of(config["beta"])]
    others = [config["device"], config["threads"], config["trainer"]["precision"]]
    return json.dumps([model, objective, data, *others], sort_keys=True)


def _penalty_of(node: Mapping[str, Any]) -> str:
    """Which formula a schedule uses: schedules of one formula differ in numbers alone."""
    return find_class(node["_target_"], "beta").penalty.__qualname__


def _can_widen(config: Mapping[str, Any]) -> bool:
    """Whether a config's model can be widened to more latents, so that runs of different ``latent_dim`` stack."""
    node = config["model"]
    try:
        if not find_class(config["loss"]["_target_"], "loss").ignores_unused_latents:
            return False
        return can_widen(lambda z: build({**node, "latent_dim": z}, "model", VAE), node["latent_dim"])
    except Exception:  # whatever is wrong with the model is said when its run begins
        return False


@contextmanager
def _named(run: RunDirectory | None) -> Iterator[None]:
    """Lines that are logged inside say of which run they are."""

    def name(record: logging.LogRecord) -> bool:
        if run and run.path.name not in record.getMessage():
            record.msg, record.args = f"{run.path.name}: {record.getMessage()}", ()
        return True

    log.addFilter(name)
    try:
        yield
    finally:
        log.removeFilter(name)


class _Job:
    """A run on its way from its lock to its results.

    Attributes:
        outcome: its results, or what ended it; None while it is under way.
        row: of the epoch in progress, once that is over.
    """

    def __init__(self, settings: Settings, tell: Callable[[Exception], object]):
        self.config, overrides = settings
        self.tell = tell
        # one bar for each would be none to read
        self.config["trainer"] = {**self.config["trainer"], "progress": False}
        self.manager = attempt(self.config, overrides)
        self.outcome: dict[str, Any] | BaseException | None = None
        self.run: RunDirectory | None = None
        self.trainer: VAETrainer
        self.row: dict[str, float] | None = None
        self.epoch: Epoch
        self.step: Step | None = None

    @property
    def active(self) -> bool:
        return self.outcome is None

    def begin(self, stop: Stop) -> None:
        """Hold the run, build what its config says, and go where it stands."""
        try:
            with of_a_run():
                self.run, trainer = self.manager.__enter__()
        except Exception as error:
            self.fail(error)
            return
        if isinstance(trainer, VAETrainer):
            self.trainer, trainer.stop = trainer, stop
            self.call(trainer.begin)
        else:
            self.end()  # it is complete

    def fail(self, error: Exception) -> None:
        """Say at once what ended this run: the others may take hours."""
        self.outcome = error
        with _named(self.run):
            self.tell(error)

    def end(self, error: BaseException | None = None) -> None:
        """Measure what was trained, or leave why it wasn't."""
        with only_of(self.run), _named(self.run):
            try:
                with of_a_run():
                    self.manager.__exit__(error and type(error), error, error and error.__traceback__)
                    assert self.run
                    if isinstance(error, Exception):
                        raise error
                    self.outcome = error or results(self.run, self.config)
            except BaseException as raised:
                if isinstance(raised, Exception):
                    self.fail(raised)
                    return
                self.outcome = raised
                if not error:
                    raise  # asked to stop while measuring: the others stop too

    def call(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function for this run. What it raises ends this run, and no other."""
        with only_of(self.run), _named(self.run):
            try:
                return function(*arguments)
            except BaseException as error:
                self.end(error)
        return None

    def begin_epoch(self, abreast: int) -> None:
        self.trainer.abreast = abreast
        self.trainer.stacked_epochs += 1
        self.row, self.epoch, self.step = None, Epoch(self.trainer, self.trainer.epoch + 1), None

    def next_step(self) -> Step | None:
        """The next step; None when the epoch is over, or the run."""
        self.step = self.call(next, self.epoch, None) if self.active else None
        if self.active and self.step is None:
            self.row = self.epoch.row()
        return self.step

    def take(self, numbers: Numbers | NumericsError) -> None:
        """What came of the step."""
        if self.step is None or not self.active:
            return
        if isinstance(numbers, NumericsError):
            self.end(numbers)
        else:
            self.call(self.epoch.took, numbers, len(self.step.batch.x))

    def end_epoch(self) -> None:
        if self.active and self.row:
            self.call(self.trainer.end_epoch, self.row)

    def finish_epoch_alone(self) -> None:
        """The rest of an epoch that was stopped: its steps are not those of the others."""
        self.trainer.abreast = 1
        self.row = self.call(self.trainer._train_epoch, self.trainer.epoch + 1)
        self.end_epoch()


def train_together(
    runs: Iterable[Settings], tell: Callable[[Exception], object] = lambda error: None
) -> list[dict[str, Any] | Exception]:
    """Bring runs that are ``stackable`` with each other to their ends; returns the results of each, or its error.

    Args:
        runs: no two of the same run.
        tell: called with what ends a run, when it does.

    Raises:
        KeyboardInterrupt, Terminated: asked to stop; every run is saved where it stood.
    """
    jobs, stop = [_Job(settings, tell) for settings in runs], Stop()
    try:
        with of_a_run():
            for job in jobs:
                job.begin(stop)
            _train(jobs, stop)
    except BaseException as error:  # not of one of them
        for job in jobs:
            if job.active and job.run:
                job.end(error)
        raise
    outcomes: list[dict[str, Any] | Exception] = []
    for job in jobs:
        if not isinstance(job.outcome, dict | Exception):
            assert job.outcome
            raise job.outcome  # all were stopped
        outcomes.append(job.outcome)
    return outcomes


def _train(jobs: Sequence[_Job], stop: Stop) -> None:
    stack: Stack | None = None
    with stop:
        for job in jobs:
            if job.active and job.trainer.within:
                job.finish_epoch_alone()
    while True:
        for job in jobs:
            if job.active and job.trainer.finished:
                job.end()  # measures; a signal ends that at once
        active = [job for job in jobs if job.active]
        if not active:
            return
        if stack is None or stack.trainers != [job.trainer for job in active]:
            stack = Stack([job.trainer for job in active])
            if len(active) > 1:
                log.info("stacked: %d runs, each as it would be alone up to rounding", len(active))
        with stop:
            _train_epoch(stack, active)
            for job in active:
                job.end_epoch()
                if job.active:
                    job.call(stop.heed)
        stop.heed()  # it may have come after the last look


def _train_epoch(stack: Stack, jobs: Sequence[_Job]) -> None:
    """An epoch of each, in step."""
    stack.load()
    for job in jobs:
        job.begin_epoch(len(jobs))
    while True:
        steps = [job.next_step() for job in jobs]
        live = [step for step in steps if step]
        if not live:
            break
        # a run that has ended takes part with another's step, and nobody looks at what comes of it
        for job, numbers in zip(jobs, stack.step([step or live[0] for step in steps]), strict=True):
            job.take(numbers)
    stack.unload()
