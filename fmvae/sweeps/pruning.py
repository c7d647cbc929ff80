"""End training runs of a search that fall behind the others, as the search's pruner decides."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from fmvae.common.text import one_line
from fmvae.errors import ConfigError, Pruned
from fmvae.runs.observer import Observer, also_observed_by
from fmvae.sweeps.database import database
from fmvae.sweeps.options import made, settings_of
from fmvae.sweeps.study import JOB, RUN, study_name

# launchers whose jobs share this machine's disk, as the study's database requires, and train one run each
LOCAL = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")
ENDED = "ended after epoch"  # stored with a trial when the pruner has decided
log = logging.getLogger("fmvae")
VALUES = {"val/neg_elbo": "validation −ELBO", "val/loss": "validation loss"}


def check_pruner(settings: Mapping[str, Any], launcher: str, objectives: Sequence[str]) -> None:
    """Refuse a pruner that could have no effect.

    Args:
        settings: of the pruner, for :func:`fmvae.sweeps.options.made`.
        launcher: the class of Hydra's launcher.

    Raises:
        ConfigError: there are several objectives, or the launcher's jobs can't ask the pruner.
    """
    key = "hydra.sweeper.pruner"
    made("pruner", settings)
    if len(objectives) > 1:
        problem = f"which run falls behind is not defined for several objectives ({', '.join(objectives)})"
        raise ConfigError(key, problem, "leave the pruner out, or search by one objective")
    if launcher.rpartition(".")[2] not in LOCAL:
        problem = f"runs of {launcher.rpartition('.')[2]} can't ask it"
        raise ConfigError(key, problem, "use hydra/launcher=basic, joblib or submitit_local, or no pruner")


class Judge(Observer):
    """Report the validation −ELBO of each epoch to the study, and end training if the pruner says so.

    The −ELBO can be compared between losses, strengths and schedules; the objective that a run is trained with
    can't. The judge stands behind the observer that saves checkpoints, so that a pruned run can be finished later.

    Args:
        trial: an ``optuna.trial.Trial``.
        known: epochs that were reported before.
        sign: 1 if the study minimises, and -1 if it maximises: the pruner takes the study's direction.
        command: finishes the run.
    """

    def __init__(self, trial: Any, known: Collection[int], sign: int, command: str):
        self.trial, self.known, self.sign, self.command = trial, set(known), sign, command
        self.lost = False

    def on_train_start(self, trainer: Any) -> None:
        """Report the epochs of a run that is resumed; end it again if the pruner had decided so."""
        for row in trainer.history:
            self._asked(lambda row=row: self._report(row))
        if trainer.history and self.trial.user_attrs.get(ENDED) == trainer.epoch:
            self._end(trainer, trainer.history[-1])

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        reported = self._asked(lambda: self._report(row))
        if reported and trainer.epoch < trainer.epochs and self._asked(self.trial.should_prune):
            self._asked(lambda: self.trial.set_user_attr(ENDED, trainer.epoch))
            self._end(trainer, row)

    def _report(self, row: Mapping[str, float]) -> bool:
        """Report an epoch, if it had a validation; return whether it had."""
        name = next((name for name in VALUES if name in row), None)
        if name and row["epoch"] not in self.known:
            self.trial.report(self.sign * row[name], int(row["epoch"]))
            self.known.add(int(row["epoch"]))
        return name is not None

    def _end(self, trainer: Any, row: Mapping[str, float]) -> NoReturn:
        name = next(name for name in VALUES if name in row)
        at = f"after epoch {trainer.epoch} of {trainer.epochs}"
        problem = f"pruned {at}: its {VALUES[name]} of {row[name]:.2f} falls behind that of other trials"
        raise Pruned(self.trial.user_attrs.get(RUN) or "trial", problem, f"to finish it: {self.command}")

    def _asked(self, question: Callable[[], bool | None]) -> bool:
        """Return the answer of the study; False, from now on, if it can't be asked: that fails no training."""
        if not self.lost:
            try:
                return bool(question())
            except Exception as error:  # of a database, or of a trial that another search has given up
                self.lost = True
                log.warning("the search's pruner can't be asked any more (%s)", one_line(str(error)))
        return False


@contextmanager
def judged(hydra_config: Any, objectives: Sequence[str]) -> Iterator[None]:
    """Have the run that is trained inside judged by the pruner of its search, if there is one.

    Args:
        hydra_config: of the job.
        objectives: of the search.
    """
    settings = settings_of("pruner", hydra_config.sweeper.get("pruner"))
    if not settings:
        yield
        return
    import optuna

    pruner = made("pruner", settings)
    name, storage = study_name(hydra_config.sweeper.study_name, objectives), database(Path(hydra_config.sweep.dir))
    study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    running = (optuna.trial.TrialState.RUNNING,)
    own = [
        trial
        for trial in study.get_trials(deepcopy=False, states=running)
        if trial.user_attrs.get(JOB) == hydra_config.job.num
    ]
    if not own:  # the study's file was removed while it runs
        yield
        return
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    command = shlex.join(["python", "train.py", *hydra_config.overrides.task])
    trial = optuna.trial.Trial(study, own[0]._trial_id)
    with also_observed_by(Judge(trial, own[0].intermediate_values, sign, command)):
        yield
