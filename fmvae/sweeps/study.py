"""The study of a search: its trials, in Optuna's database.

What a trial draws follows from the sampler's seed, the trial's number and the trials before it. So a search that
was interrupted while runs trained asks for the same runs as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fmvae.config.schema import shown
from fmvae.config.space import Choice, Interval
from fmvae.errors import ConfigError
from fmvae.experiments.search_target import Direction
from fmvae.sweeps.database import of_what_is_stored, quiet
from fmvae.sweeps.options import distribution, made

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

BEGUN = "begun with"  # what is stored with a study: the settings of a run of its first command
JOB, RUN = "job", "run"  # what is stored with a trial: Hydra's number of its job, the name of its run


def study_name(given: str | None, objectives: Sequence[str]) -> str:
    """Return the name of a search's study: as given, or else by its objectives."""
    return given or ",".join(objectives)


class Study:
    """Trials of one search: ask for them, and tell what became of them.

    Trials that were interrupted wait to be asked for again, with the values that they have. One whose values were
    being chosen is given up.

    Args:
        storage: from :func:`fmvae.sweeps.database.opened`.
        name: of the study.
        directions: ``minimize`` or ``maximize``, for each objective.
        sampler: settings for :func:`fmvae.sweeps.options.made`; with ``seed``, each trial has a sampler with its
            own seed.
        space: by key.
        pruner: settings for the same; Hyperband chooses by it which trials a sampler learns from.

    Raises:
        ConfigError: the study was begun with other directions, or another space.
        RunError: the study is damaged.
    """

    def __init__(
        self,
        storage: RDBStorage,
        name: str,
        directions: Sequence[Direction],
        sampler: Mapping[str, Any],
        space: Mapping[str, Interval | Choice],
        pruner: Mapping[str, Any] | None = None,
    ):
        import optuna

        self.storage, self.sampler = storage, dict(sampler)
        self.space = {key: distribution(values) for key, values in space.items()}
        with quiet(), of_what_is_stored(storage):
            self.optuna = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=list(directions),
                load_if_exists=True,
                sampler=made("sampler", self.sampler),
                pruner=made("pruner", pruner) if pruner else None,
            )
            self._check_stored()
        begun = [each.name.lower() for each in self.optuna.directions]
        if begun != list(directions):
            self._refuse("hydra.sweeper.direction", ", ".join(directions), ", ".join(begun))
        for trial in self.of_state("RUNNING"):
            if set(trial.params) == set(self.space):
                self.put_back(trial)
            else:
                self.optuna.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        self._check_space()

    def _check_stored(self) -> None:
        """Read all that a search will read, so that damage is found before anything is trained."""
        for trial in self.of_state("COMPLETE"):
            values, run = trial.values, trial.user_attrs.get(RUN, "")
            if len(values) != len(self.optuna.directions) or not isinstance(run, str):
                raise ValueError(f"trial {trial.number} has the values {values} and the run {run!r}")
        if (known := self.optuna.user_attrs.get(BEGUN)) is not None:
            known["params"].items()
            known["settings"].items()

    def _check_space(self) -> None:
        """Refuse another space than that of earlier trials: of most samplers, they would count no more."""
        for trial in self.of_state("COMPLETE", "PRUNED", "WAITING"):
            known = trial.distributions
            for key in {**known, **self.space}:
                if known.get(key) != self.space.get(key) and known:
                    self._refuse(key, _told(self.space.get(key)), _told(known.get(key)))

    def _refuse(self, key: str, now: str, begun: str, why: str = "") -> NoReturn:
        problem = f"{now}, but the study {self.optuna.study_name} was begun with {begun}{why}"
        raise ConfigError(key, problem, "give hydra.sweeper.study_name=<name> to begin another study")

    def begun(self) -> dict[str, Any] | None:
        """Return the values of the varied keys to which :meth:`check_settings` refers; None for a new study."""
        known = self.optuna.user_attrs.get(BEGUN)
        return known["params"] if known else None

    def begin(self, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Store the settings of a trial with these values as those of the study, if it has none yet."""
        if self.begun() is None:
            self.optuna.set_user_attr(BEGUN, {"params": dict(params), "settings": dict(settings)})

    def check_settings(self, now: Mapping[str, Any]) -> None:
        """Refuse runs that differ from those of the study's first command in what the search does not vary.

        Their values could not be compared: other images under the same name, other epochs, another measure.

        Args:
            now: the settings of a run with the values :meth:`begun`, by dotted key.

        Raises:
            ConfigError: names the first key that differs.
        """
        known, now = self.optuna.user_attrs[BEGUN]["settings"], json.loads(json.dumps(dict(now)))
        varied = tuple(f"{key.lstrip('+')}." for key in self.space)
        for key in {**known, **now}:
            if not f"{key}.".startswith(varied) and now.get(key) != known.get(key):
                self._refuse(key, shown(now.get(key)), shown(known.get(key)), ", so their runs don't compare")

    def put_back(self, trial: Any) -> None:
        """Have a trial that was begun asked for again."""
        from optuna.trial import TrialState

        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def of_state(self, *names: str) -> list[optuna.trial.FrozenTrial]:
        """Return the trials in these of Optuna's states, such as ``COMPLETE``, by number."""
        return [trial for trial in self.optuna.get_trials(deepcopy=False) if trial.state.name in names]

    def numbers(self) -> list[int]:
        """Return the numbers of all trials."""
        return [trial.number for trial in self.optuna.get_trials(deepcopy=False)]

    def ask(self, number: int) -> list[optuna.trial.Trial]:
        """Return trials to run next: those that were interrupted, or else at most ``number`` new ones."""
        waiting = len(self.of_state("WAITING"))
        return [self._ask() for _ in range(min(waiting, number) or number)]

    def _ask(self) -> optuna.trial.Trial:
        seed = self.sampler.get("seed")
        if seed is not None:
            words = np.random.SeedSequence([seed, len(self.optuna.get_trials(deepcopy=False))])
            self.optuna.sampler = made("sampler", {**self.sampler, "seed": int(words.generate_state(1)[0])})
        with quiet():
            return self.optuna.ask(fixed_distributions=self.space)

    def tell(self, trial: optuna.trial.Trial, values: Sequence[float] | None, state: str = "COMPLETE") -> None:
        """Store what became of a trial; ``state`` may also be ``PRUNED`` or ``FAIL``."""
        from optuna.trial import TrialState

        complete = state == "COMPLETE"
        self.optuna.tell(trial, list(values or []) if complete else None, TrialState[state])

    def importances(self, objective: int) -> dict[str, float]:
        """Return the share of the objective's variance that each key explains (fANOVA, Hutter et al. 2014).

        Empty for fewer than 4 complete trials, or fewer than 2 keys that vary in all of them.
        """
        import optuna

        if len(self.of_state("COMPLETE")) < 4 or len(self.space) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            with quiet():
                return optuna.importance.get_param_importances(
                    self.optuna, evaluator=evaluator, target=lambda trial: trial.values[objective]
                )
        except (ValueError, RuntimeError):  # all values are equal, or the trials share no key
            return {}


def _told(known: Any) -> str:
    if known is None:
        return "no values"
    if (choices := getattr(known, "choices", None)) is not None:
        return f"choice({','.join(map(str, choices))})"
    text = f"interval({known.low:g},{known.high:g})"
    text = f"tag(log,{text})" if known.log else text
    whole = type(known).__name__.startswith("Int")
    step = f" in steps of {known.step:g}" if known.step and (not whole or known.step > 1) else ""
    return (f"int({text})" if whole else text) + step
