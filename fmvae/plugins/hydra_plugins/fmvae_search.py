"""The sweeper of ``hydra/sweeper=optuna``: Hydra's Optuna sweeper, with checks before and a report after it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fmvae.cli import gate
from fmvae.config.grids import GRIDS
from fmvae.config.hydra_internals import OverridesParser, Plugins
from fmvae.config.project import groups
from fmvae.config.schema import validate
from fmvae.errors import ConfigError

OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


class FmvaeSearch(Sweeper):
    """A sweeper with the settings of ``OptunaSweeper``. It creates that, and opens the study, in ``sweep``."""

    def __init__(self, **settings: Any):
        """Ignore the settings: ``sweep`` reads them from the config."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        if self.config.hydra.sweeper.get("grids") is not None:
            way_out = (
                "leave out hydra/sweeper=optuna, or search with keys on the command line instead of this sweep"
            )
            raise ConfigError(GRIDS, "a search has no grids", way_out)
        if self.config.dry_run:
            way_out = "leave it out (hydra.sweeper.n_trials.total says how many there will be)"
            raise ConfigError("dry_run", "a search chooses each run by the results of those before", way_out)
        self._check_options(arguments)
        config = copy.deepcopy(self.config)
        with open_dict(config):
            config.hydra.sweeper._target_ = OPTUNA
            del config.hydra.sweeper._recursive_
            if config.hydra.sweeper.direction is None and "objective" in config:
                config.hydra.sweeper.direction = self._direction()
        plugins = Plugins.instance()
        optuna = plugins.instantiate_sweeper(
            config=config, hydra_context=self.hydra_context, task_function=self.task_function
        )
        optuna.sweep(arguments)

        from hydra_plugins.fmvae_sweeper import reported

        from fmvae.report.sweep import write_report
        from fmvae.sweeps.search import conclude  # imports torch

        chosen = config.hydra.sweeper.direction
        conclude(Path(self.config.hydra.sweep.dir), self.config, reported(write_report, self.config), str(chosen))

    def _direction(self) -> str:
        """Return ``minimize`` or ``maximize``, from the objective's column."""
        from fmvae.experiments.search_target import direction  # imports torch

        assert self.config is not None
        evaluation = OmegaConf.to_container(self.config.evaluation, resolve=True)
        return direction(validate({"objective": self.config.objective, "evaluation": evaluation}))

    def _check_options(self, arguments: list[str]) -> None:
        """Refuse to search over options whose files change Hydra's settings; these would have no effect."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader, options = self.hydra_context.config_loader, groups()
        space = [f"{key}={values}" for key, values in (self.config.hydra.sweeper.params or {}).items()]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*space, *arguments])
        fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        for override in overrides:
            if override.key_or_group in options and override.is_choice_sweep():
                for value in override.sweep_string_iterator():
                    asked = [*fixed, f"{override.get_key_element()}={value}"]
                    gate.check_job(self.config, loader.load_sweep_config(self.config, asked))
