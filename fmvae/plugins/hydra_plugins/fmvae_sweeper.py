"""The sweeper of ``-m``: Hydra's own, but that runs are known, and checked, before the first is launched.

Hydra takes plugins from the package ``hydra_plugins`` alone; ``fmvae.cli`` puts this folder on the search path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from fmvae.cli import gate
from fmvae.cli.arguments import check_removed
from fmvae.cli.main import explain
from fmvae.common.command import say
from fmvae.common.text import expand_home
from fmvae.config import own_code
from fmvae.config.composing import composed_by, resolve
from fmvae.config.hydra_internals import BasicSweeper, ConfigLoader, OverridesParser
from fmvae.config.identity import NAMED_BY_CONTENT
from fmvae.config.shorthand import expand_shorthand
from fmvae.errors import ConfigError

if TYPE_CHECKING:  # they bring torch, and Hydra imports its plugins even to complete a word
    from fmvae.sweeps.directory import Plan, SweepDirectory


gate.install()  # in the processes of launchers, too: they import Hydra's plugins before they read a job's config


class FmvaeSweeper(BasicSweeper):
    """Every combination of the values, as ``BasicSweeper``; ``fmvae.sweeps.run`` says what happens to them."""

    def __init__(self, params: dict[str, str] | None = None, max_batch_size: int | None = None):
        if max_batch_size is not None and not (type(max_batch_size) is int and max_batch_size >= 1):
            key, way_out = "hydra.sweeper.max_batch_size", "give a whole number >= 1, or null"
            raise ConfigError(key, f"no such batch: {max_batch_size!r}", way_out)
        super().__init__(max_batch_size=max_batch_size, params=params)

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        from fmvae.report.sweep import write_report
        from fmvae.sweeps.directory import SweepDirectory
        from fmvae.sweeps.run import run_sweep
        from fmvae.sweeps.status import forecast

        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*expand_shorthand(self._parse_config()), *arguments])
        (jobs,) = self.split_arguments(overrides, None)
        sweep = SweepDirectory(Path(self.config.hydra.sweep.dir))
        if sweep.path.absolute() != _folder(self.config):
            way_out = "leave it out; output_root and sweep_name say where"
            raise ConfigError("hydra.sweep.dir", f"runs are not written to {sweep}", way_out)
        plans = dict(_plans(sweep, jobs, self.config, loader))
        if not plans:
            raise ConfigError("command line", "a sweep over no values", "give at least one: seed=range(0,3)")
        if self.config.dry_run:
            say(forecast(sweep, plans, Path(expand_home(self.config.output_root)), self.config.restart))
        else:
            run_sweep(sweep, plans, self._launch, write_report, self.config.restart)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        assert self.launcher is not None
        size = self.max_batch_size or len(jobs)
        for start in range(0, len(jobs), size):
            self.launcher.launch(jobs[start : start + size], initial_job_idx=first + start)


def _folder(config: Any) -> Path:
    """Where the runs of a config lie."""
    return Path(expand_home(config["output_root"]), str(config["sweep_name"] or "")).absolute()


def _plans(
    sweep: SweepDirectory, jobs: Sequence[Sequence[str]], main: DictConfig, loader: ConfigLoader
) -> Iterator[tuple[str, Plan]]:
    """The runs by name. Composing takes tens of milliseconds each, and a large sweep is asked for often."""
    from fmvae.sweeps.directory import Plan

    others = main.hydra.overrides.hydra
    folders = [Path(source.path) for source in main.hydra.runtime.config_sources if source.schema == "file"]
    code = own_code.digests()  # which says what keys its constructors take
    composed = composed_by(main.hydra.job.config_name, *others, *code, folders=folders)
    planned = sweep.planned().items()
    known = {plan.overrides: (name, plan) for name, plan in planned if plan.composed_by == composed}
    for overrides in map(tuple, jobs):
        if overrides in known and not any(o.lstrip("+").startswith(NAMED_BY_CONTENT) for o in overrides):
            yield known[overrides]
            continue
        check_removed(overrides)
        try:
            config: Any = loader.load_sweep_config(main, list(overrides))
        except HydraException as error:
            explained = explain(error, overrides)
            assert explained
            raise explained from None
        gate.check_job(main, config)
        with open_dict(config):
            own = config.pop("hydra")
        resolved = resolve(config, own.runtime)
        if _folder(resolved) != _folder(main):
            raise ConfigError("sweep_name, output_root", "a sweep has one of each", "start a sweep for each")
        yield Plan.of(resolved, overrides, composed)
