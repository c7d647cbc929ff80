"""The sweeper of ``hydra/sweeper=optuna``: it composes and launches the trials of ``fmvae.sweeps.search``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from fmvae.cli import gate
from fmvae.cli.main import explain
from fmvae.common.trees import flat
from fmvae.config.composing import resolve
from fmvae.config.grids import GRIDS
from fmvae.config.hydra_internals import JobStatus, OverridesParser, Plugins
from fmvae.config.identity import RunIdentity, semantic
from fmvae.config.project import groups
from fmvae.config.rule import Rule
from fmvae.config.schema import shown, validate
from fmvae.config.space import Choice, Space, space_of
from fmvae.errors import ConfigError
from fmvae.evaluation.criteria import check_objectives

if TYPE_CHECKING:  # imports torch, but Hydra imports its plugins even for shell completion
    from fmvae.experiments.search_target import Direction
    from fmvae.sweeps.search import Limits, Outcome, Prepared

SWEEPER = "hydra.sweeper"
DIRECTION = Rule(str, choices=("minimize", "maximize"), optional=True, many=True)
NAME = Rule(str, optional=True, pattern=r"[^\0]{1,200}", called="a name")
NUMBER = Rule(int, minimum=1, maximum=10**6)
OF_A_COMMAND = Rule(int, minimum=0, maximum=10**6)
AT_A_TIME = Rule(int, minimum=1, maximum=4096)
SHARE = Rule(float, minimum=0, maximum=1)


class FmvaeSearch(Sweeper):
    """Search by the results of runs. Everything is read from the config in ``sweep``, when the search begins."""

    def __init__(self, **settings: Any):
        """Ignore the settings: what is wrong with them is said in ``sweep``, before anything is written."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        config = self.config
        self._check(config)
        loader = self.hydra_context.config_loader
        settings: Any = config.hydra.sweeper
        space = space_of(settings.params, arguments, OverridesParser.create(config_loader=loader))
        self._check_options(space)
        from fmvae.sweeps.database import opened
        from fmvae.sweeps.options import check_installed, check_sampler, settings_of
        from fmvae.sweeps.study import Study, study_name

        check_installed()
        from hydra_plugins.fmvae_sweeper import reported

        from fmvae.experiments.search_target import names_of
        from fmvae.report.sweep import write_report
        from fmvae.sweeps.pruning import check_pruner
        from fmvae.sweeps.record import keep_lost, read_studies
        from fmvae.sweeps.search import conclude, run_search

        whole: Any = validate(
            {key: _plain(config[key]) for key in ("evaluation", "objective", "sweep_name") if key in config}
        )
        if "objective" in whole:
            check_objectives(whole["objective"], whole["evaluation"].get("measures", {}))
        names, limits = names_of(whole), _limits(settings)
        better = _directions(settings, whole, names)
        sampler, pruner = settings_of("sampler", settings.sampler), settings_of("pruner", settings.pruner)
        check_sampler(sampler, space.varied, len(names))
        if pruner:
            check_pruner(pruner, config.hydra.launcher._target_, names)
        folder = Path(config.hydra.sweep.dir)
        name = study_name(_accepted("study_name", NAME, settings.study_name), names)
        launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=self.hydra_context, task_function=self.task_function
        )

        def launch(jobs: Sequence[Sequence[str]], first: int) -> list[Outcome]:
            return [_outcome(ended) for ended in launcher.launch(jobs, initial_job_idx=first)]

        def prepare(params: Mapping[str, Any]) -> Prepared:
            return self._prepared([*(f"{key}={value}" for key, value in params.items()), *space.fixed])

        with opened(folder) as storage:
            study = Study(storage, name, better, sampler, space.varied, pruner)
            if (params := study.begun()) is not None:
                study.check_settings(prepare(params).settings)
            keep_lost(folder, name, study.numbers())
            problem = run_search(study, folder, names, limits, launch, prepare)
            conclude(folder, read_studies(folder).get(name), reported(write_report, config))
        if problem:
            raise problem

    def _check(self, config: DictConfig) -> None:
        """Refuse settings that a search can't have."""
        if config.hydra.sweeper.get("grids") is not None:
            way_out = (
                "leave out hydra/sweeper=optuna, or search with keys on the command line instead of this sweep"
            )
            raise ConfigError(GRIDS, "a search has no grids", way_out)
        if config.dry_run:
            way_out = "leave it out (hydra.sweeper.n_trials.total says how many there will be)"
            raise ConfigError("dry_run", "a search chooses each run by the results of those before", way_out)

    def _check_options(self, space: Space) -> None:
        """Refuse to search over options whose files change Hydra's settings; these would have no effect."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader, options = self.hydra_context.config_loader, groups()
        for key, values in space.varied.items():
            if key.lstrip("+") in options and isinstance(values, Choice):
                for value in values.values:
                    asked = [*space.fixed, f"{key}={value}"]
                    gate.check_job(self.config, loader.load_sweep_config(self.config, asked))

    def _prepared(self, overrides: Sequence[str]) -> Prepared:
        """Compose the job of a trial.

        Raises:
            FmvaeError: its config is wrong.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        from fmvae.experiments.search_target import measured
        from fmvae.sweeps.search import Prepared

        try:
            composed: Any = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        except HydraException as error:
            explained = explain(error, overrides)
            assert explained
            raise explained from None
        with open_dict(composed):
            own = composed.pop("hydra")
        config = resolve(composed, own.runtime)
        settings = {**flat(semantic(config)), **measured(config)}
        return Prepared(overrides, RunIdentity.of(config).name, settings)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig | DictConfig) else value


def _accepted(key: str, rule: Rule, value: Any) -> Any:
    """Return a value that a rule accepts.

    Raises:
        ConfigError: it does not.
    """
    try:
        return rule.accept(value)
    except (ValueError, OverflowError):
        raise ConfigError(f"{SWEEPER}.{key}", f"{shown(value)} is not {rule}", rule.way_out(value)) from None


def _limits(settings: Any) -> Limits:
    from fmvae.sweeps.search import Limits

    asked, total, trials = _plain(settings.n_trials), None, None
    if isinstance(asked, Mapping):
        if set(asked) != {"total"}:
            problem = f"{', '.join(map(str, asked)) or 'nothing'} given"
            raise ConfigError(f"{SWEEPER}.n_trials", problem, "give hydra.sweeper.n_trials.total=20, or a number")
        total = _accepted("n_trials.total", NUMBER, asked["total"])
    else:
        trials = _accepted("n_trials", OF_A_COMMAND, asked)
    at_a_time = _accepted("n_jobs", AT_A_TIME, settings.n_jobs)
    failing = _accepted("max_failure_rate", SHARE, settings.max_failure_rate)
    return Limits(total, trials, at_a_time, failing)


def _directions(settings: Any, config: Mapping[str, Any], names: Sequence[str]) -> tuple[Direction, ...]:
    """Return the direction of each objective, as given or else by its column."""
    from fmvae.experiments.search_target import directions

    given: Any = _accepted("direction", DIRECTION, _plain(settings.direction))
    if given is None:
        return directions(config)
    given = (given,) if isinstance(given, str) else given
    if len(given) != len(names):
        problem = f"{len(given)} given for {len(names)} objectives ({', '.join(names)})"
        raise ConfigError(f"{SWEEPER}.direction", problem, "give one for each, as [minimize,maximize]")
    return tuple(given)


def _outcome(ended: Any) -> Outcome:
    """Return the values of a job that has ended, or its error."""
    value = ended._return_value  # the public property writes to stderr what the job has said before
    if ended.status != JobStatus.COMPLETED:
        return value if isinstance(value, Exception) else RuntimeError(str(value))
    return [float(each) for each in value] if isinstance(value, Sequence) else [float(value)]
