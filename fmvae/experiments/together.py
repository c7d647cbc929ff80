"""Train several runs in one process with stacked models; each gives the run it would be alone, up to rounding."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fmvae.common.stop import Stop
from fmvae.config.building import build, find_class
from fmvae.config.identity import NEWER, is_vae, semantic
from fmvae.errors import NumericsError, of_a_run
from fmvae.experiments.lifecycle import attempt, results
from fmvae.experiments.run_log import only_of
from fmvae.models import VAE
from fmvae.objectives import BetaSchedule
from fmvae.runs.directory import RunDirectory
from fmvae.training import VAETrainer
from fmvae.training.engines.padding import can_widen
from fmvae.training.engines.stack import Numbers, Stack
from fmvae.training.vae import Epoch, Step

T = TypeVar("T")
log = logging.getLogger("fmvae")
_OPTIMIZERS = "Adadelta Adagrad Adam Adamax AdamW ASGD NAdam RAdam RMSprop Rprop SGD"
ELEMENTWISE = [f"torch.optim.{name}" for name in _OPTIMIZERS.split()]
# keys of data that determine shape and number of batches; for other datasets, all keys must be equal
BATCHES = {"fmvae.data.FashionMNISTManager": ("_target_", "batch_size", "num_train", "val_size", "image_shape")}
Settings = tuple[dict[str, Any], Sequence[str]]  # a config and its overrides


def stackable(config: Mapping[str, Any]) -> str | None:
    """Return a key that is equal for runs that can be stacked with each other; None if the run can't be stacked.

    Runs of a stack need models of the same structure and batches of the same size. Their optimizers must update
    weights elementwise, as other entries of the same tensor may be padding.
    """
    if not is_vae(config) or config["optimizer"]["_target_"] not in ELEMENTWISE:
        return None
    whole = semantic(config)
    widened = _can_widen(config)
    keys = BATCHES.get(whole["data"].get("_target_"), [key for key in whole["data"] if key != "seed"])
    data = {key: whole["data"].get(key) for key in keys}
    others = [config["device"], config["threads"], config["trainer"]["precision"], whole.get("prior")]
    model = {key: value for key, value in whole["model"].items() if key != "latent_dim" or not widened}
    objective = [whole.get("loss"), whole["likelihood"], _formula_of(config["beta"])]
    return json.dumps([model, objective, data, *others], sort_keys=True)


def _formula_of(node: Mapping[str, Any]) -> Any:
    """Return a value that is equal for schedules whose penalties differ in ``numbers`` only.

    For a penalty of the user's own, it is the whole node, as the formula may use other arguments of the class.
    """
    kind = find_class(node["_target_"], "beta")
    if not issubclass(kind, BetaSchedule) or not kind.penalty.__module__.startswith("fmvae."):
        return dict(node)  # a class that is no schedule is reported when its run begins
    return [kind.penalty.__qualname__, kind.numbers.__module__, kind.numbers.__qualname__]


def _can_widen(config: Mapping[str, Any]) -> bool:
    """Whether a config's model can be padded to more latents, and so stacked with runs of another latent_dim."""
    node = config["model"]
    try:
        if not find_class(config["loss"]["_target_"], "loss").ignores_unused_latents:
            return False
        if config["prior"] != NEWER["prior"]:  # its tensors have latents, too
            return False
        return can_widen(lambda z: build({**node, "latent_dim": z}, "model", VAE), node["latent_dim"])
    except Exception:  # any error of the model is reported when its run begins
        return False


@contextmanager
def _named(run: RunDirectory | None) -> Iterator[None]:
    """Prefix log lines inside with the name of the run."""

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
    """A run of a stack, from taking its lock to its results.

    Attributes:
        outcome: its results, or the exception that ended it; None while it runs.
        row: the history row of the current epoch, when all its steps are done.
    """

    def __init__(self, settings: Settings, tell: Callable[[Exception], object]):
        self.config, overrides = settings
        self.tell = tell
        # several progress bars at once would be unreadable
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
        """Lock the run, build its objects, and load its last checkpoint."""
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
            self.end()  # already complete

    def fail(self, error: Exception) -> None:
        """Report at once the error that ended this run, as the others may take hours."""
        self.outcome = error
        with _named(self.run):
            self.tell(error)

    def end(self, error: BaseException | None = None) -> None:
        """Measure and complete the run, or record the error that ended it."""
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
                    raise  # stop signal while measuring: the others stop too

    def call(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function for this run; an exception ends this run only."""
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
        """Return the next step; None when the epoch or the run has ended."""
        self.step = self.call(next, self.epoch, None) if self.active else None
        if self.active and self.step is None:
            self.row = self.epoch.row()
        return self.step

    def take(self, numbers: Numbers | NumericsError) -> None:
        """Record the result of the step; an error ends the run."""
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
        """Finish an epoch that was stopped before its end; the other runs are not at the same step."""
        self.trainer.abreast = 1
        self.row = self.call(self.trainer._train_epoch, self.trainer.epoch + 1)
        self.end_epoch()


def train_together(
    runs: Iterable[Settings], tell: Callable[[Exception], object] = lambda error: None
) -> list[dict[str, Any] | Exception]:
    """Complete runs that are ``stackable`` with each other; return the results or the error of each.

    Args:
        runs: configs and overrides of different runs.
        tell: called with the error of a run as soon as it fails.

    Raises:
        KeyboardInterrupt, Terminated: after a stop signal; every run is saved at its last step.
    """
    jobs, stop = [_Job(settings, tell) for settings in runs], Stop()
    try:
        with of_a_run():
            for job in jobs:
                job.begin(stop)
            for group in _of_one_length(jobs):
                _train(group, stop)
    except BaseException as error:  # not an error of a single run
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


def _of_one_length(jobs: Iterable[_Job]) -> list[list[_Job]]:
    """Group the active jobs by the size of their training splits, which can depend on the seed in own data."""
    groups: dict[int, list[_Job]] = {}
    for job in jobs:
        if job.active:
            groups.setdefault(len(job.trainer.data.train), []).append(job)
    return [*groups.values()]


def _train(jobs: Sequence[_Job], stop: Stop) -> None:
    stack: Stack | None = None
    with stop:
        for job in jobs:
            if job.active and job.trainer.within:
                job.finish_epoch_alone()
    while True:
        for job in jobs:
            if job.active and job.trainer.finished:
                job.end()  # measures; outside of `stop`, so that a signal ends it at once
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
        stop.heed()  # a signal may have come after the last check


def _train_epoch(stack: Stack, jobs: Sequence[_Job]) -> None:
    """Train one epoch of every run, step by step together."""
    stack.load()
    for job in jobs:
        job.begin_epoch(len(jobs))
    while True:
        steps = [job.next_step() for job in jobs]
        live = [step for step in steps if step]
        if not live:
            break
        # the stack needs a step of every run: one that has ended gets another's, and its result is ignored
        for job, numbers in zip(jobs, stack.step([step or live[0] for step in steps]), strict=True):
            job.take(numbers)
    stack.unload()
