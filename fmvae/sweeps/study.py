"""The study of a search: its trials, and the samplers and pruners of Optuna.

What a trial draws follows from the sampler's seed, the trial's number and the trials before it. So a search asks
for the same runs, whether it was interrupted or not.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fmvae.config.project import CONF
from fmvae.config.schema import shown
from fmvae.config.space import Choice, Interval
from fmvae.errors import ConfigError
from fmvae.experiments.search_target import Direction
from fmvae.sweeps.database import quiet

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage

OLDEST = 4  # Optuna's major version
BEGUN = "begun with"  # what is stored with a study: the settings of a run of its first command
JOB, RUN = "job", "run"  # what is stored with a trial: Hydra's number of its job, the name of its run


def check_installed() -> None:
    """Refuse to search without Optuna, or with a version that is too old.

    Raises:
        ConfigError: says what to install.
    """
    key, way_out = "hydra/sweeper=optuna", "pip install -e '.[optuna]'"
    try:
        import optuna
    except ImportError:
        raise ConfigError(key, "Optuna is not installed", way_out) from None
    if int(optuna.__version__.partition(".")[0]) < OLDEST:
        raise ConfigError(key, f"Optuna {optuna.__version__} is too old", way_out)


def study_name(given: str | None, objectives: Sequence[str]) -> str:
    """Return the name of a search's study: as given, or else by its objectives."""
    return given or ",".join(objectives)


def settings_of(kind: str, value: Any) -> dict[str, Any]:
    """Return the settings of a sampler or pruner, for :func:`made`; empty for none.

    Args:
        kind: ``sampler`` or ``pruner``.
        value: these settings, or the name of an option in conf/hydra/sweeper.

    Raises:
        ConfigError: there is no such option; lists them.
    """
    if isinstance(value, str):
        options = {path.stem: path for path in (CONF / "hydra" / "sweeper" / kind).glob("*.yaml")}
        if value not in options:
            way_out = f"choose from {', '.join(sorted(options))}"
            raise ConfigError(f"hydra.sweeper.{kind}", f"{value!r} is no {kind}", way_out)
        value = yaml.safe_load(options[value].read_text(encoding="utf-8"))
    settings = {str(key): each for key, each in (value or {}).items()}
    return settings if kind == "sampler" or settings.get("_target_") else {}


def made(kind: str, settings: Mapping[str, Any], **more: Any) -> Any:
    """Make a sampler or a pruner of Optuna.

    Args:
        kind: ``sampler`` or ``pruner``.
        settings: the arguments of its constructor, and its class as ``_target_``.
        more: arguments that replace those.

    Raises:
        ConfigError: there is no such class, or it does not take these arguments.
    """
    import optuna

    key, package = f"hydra.sweeper.{kind}", f"optuna.{kind}s"
    target, module = str(settings.get("_target_")), getattr(optuna, f"{kind}s")
    base = optuna.samplers.BaseSampler if kind == "sampler" else optuna.pruners.BasePruner
    found = getattr(module, target.removeprefix(f"{package}."), None)
    if not (inspect.isclass(found) and issubclass(found, base)):
        problem = f"{target!r} is not the name of a {kind} of Optuna"
        raise ConfigError(f"{key}._target_", problem, f"give hydra/sweeper/{kind}=<option>")
    own = {name: value for name, value in settings.items() if name != "_target_"}
    known = set(inspect.signature(found).parameters)
    for name in own:
        if name not in known:
            raise ConfigError(
                f"{key}.{name}", f"{target} does not take it", f"it takes {', '.join(sorted(known))}"
            )
    try:
        with quiet():
            return found(**own, **{name: value for name, value in more.items() if name in known})
    except (TypeError, ValueError, ImportError) as error:
        way_out = "correct its settings, or choose another"
        raise ConfigError(key, f"{target}: {' '.join(str(error).split())}", way_out) from None


def check_sampler(settings: Mapping[str, Any], objectives: Sequence[str]) -> None:
    """Refuse a sampler that can't be made, or can't search by so many objectives.

    Raises:
        ConfigError: says which can.
    """
    made("sampler", settings)
    if len(objectives) > 1 and settings["_target_"].endswith("CmaEsSampler"):
        raise ConfigError("hydra.sweeper.sampler", "cmaes optimises one objective", "choose nsga2, tpe or gp")


class Study:
    """Trials of one search: ask for them, and tell what became of them.

    Args:
        storage: from :func:`fmvae.sweeps.database.opened`.
        name: of the study.
        directions: ``minimize`` or ``maximize``, for each objective.
        sampler: settings for :func:`made`; with ``seed``, each trial has a sampler with a seed of its own.
        space: by key.

    Raises:
        ConfigError: the study was begun with other directions, or other choices of a key.
    """

    def __init__(
        self,
        storage: RDBStorage,
        name: str,
        directions: Sequence[Direction],
        sampler: Mapping[str, Any],
        space: Mapping[str, Interval | Choice],
    ):
        import optuna

        self.sampler, self.space = dict(sampler), {key: _distribution(values) for key, values in space.items()}
        first = made("sampler", self.sampler)
        with quiet():
            self.optuna = optuna.create_study(
                storage=storage, study_name=name, directions=list(directions), load_if_exists=True, sampler=first
            )
        begun = [each.name.lower() for each in self.optuna.directions]
        if begun != list(directions):
            problem = f"{', '.join(directions)}, but the study {name} was begun with {', '.join(begun)}"
            raise ConfigError(
                "hydra.sweeper.direction", problem, "give hydra.sweeper.study_name a name of its own"
            )
        self._check_choices()
        for trial in self.optuna.get_trials(
            deepcopy=False
        ):  # an interrupted trial keeps its values, and comes first
            if trial.state == optuna.trial.TrialState.RUNNING:
                storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.WAITING)

    def _check_choices(self) -> None:
        """Refuse choices that differ from those of earlier trials, which Optuna can't compare."""
        for trial in self.optuna.get_trials(deepcopy=False):
            for key, known in trial.distributions.items():
                now = self.space.get(key)
                of = getattr(known, "choices", None), getattr(now, "choices", None)
                if now is not None and (type(now) is not type(known) or of[0] != of[1]):
                    problem = f"{_told(now)}, but the study {self.optuna.study_name} was begun with {_told(known)}"
                    raise ConfigError(key, problem, "give hydra.sweeper.study_name=<name> to begin another study")

    def check_settings(self, settings_of_run: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Refuse runs that differ from those of the study's first command in what the search does not vary.

        Their values could not be compared: other images under the same name, or other epochs.

        Args:
            settings_of_run: returns what can change a trained bit, by dotted key, for values of the varied keys.

        Raises:
            ConfigError: names the first key that differs.
        """
        known = self.optuna.user_attrs.get(BEGUN)
        params = known["params"] if known else {key: _first(values) for key, values in self.space.items()}
        now = json.loads(json.dumps(dict(settings_of_run(params))))
        if known is None:  # a new study, or one of an earlier version
            self.optuna.set_user_attr(BEGUN, {"params": params, "settings": now})
            return
        varied = tuple(f"{key.lstrip('+')}." for key in {**params, **self.space})
        for key in {**known["settings"], **now}:
            if f"{key}.".startswith(varied) or now.get(key) == known["settings"].get(key):
                continue
            told = f"the study {self.optuna.study_name} was begun with {shown(known['settings'].get(key))}"
            problem = f"{shown(now.get(key))}, but {told}, so their runs don't compare"
            raise ConfigError(key, problem, "give hydra.sweeper.study_name=<name> to begin another study")

    def of_state(self, *names: str) -> list[optuna.trial.FrozenTrial]:
        """Return the trials in these of Optuna's states, such as ``COMPLETE``, by number."""
        return [trial for trial in self.optuna.get_trials(deepcopy=False) if trial.state.name in names]

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


def _distribution(values: Interval | Choice) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return FloatDistribution(values.low, values.high, log=values.log, step=None if values.log else values.step)


def _first(distribution: Any) -> Any:
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low


def _told(distribution: Any) -> str:
    if (choices := getattr(distribution, "choices", None)) is not None:
        return f"choice({','.join(map(str, choices))})"
    return f"{type(distribution).__name__.removesuffix('Distribution').lower()} interval"
