"""The sweeper of ``-m``. It extends Hydra's own: all runs are composed and checked before the first is launched.

Hydra finds plugins only in the package ``hydra_plugins``; ``fmvae.cli`` adds this folder to ``sys.path``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from fmvae.cli import gate
from fmvae.cli.arguments import check_removed
from fmvae.cli.main import IN_PROCESS, explain
from fmvae.common.command import say
from fmvae.common.text import expand_home
from fmvae.config import own_code
from fmvae.config.composing import composed_by, resolve
from fmvae.config.grids import blame, check_form, jobs_of
from fmvae.config.hydra_internals import BasicSweeper, ConfigLoader, OverridesParser
from fmvae.config.identity import FROM_FILES, NAMED_BY_CONTENT
from fmvae.config.schema import validate
from fmvae.errors import ConfigError

if TYPE_CHECKING:  # these import torch, but Hydra imports its plugins even for shell completion
    from fmvae.sweeps.directory import Plan, SweepDirectory
    from fmvae.sweeps.run import WriteReport


gate.install()  # also in the workers of launchers, which import Hydra's plugins before they read a job's config


class FmvaeSweeper(BasicSweeper):
    """Run every combination of the values, as ``BasicSweeper`` does, by ``fmvae.sweeps.run.run_sweep``.

    Args:
        params: values by key, as texts of the command line.
        grids: further values by key, each combined with ``params``, but not with the other grids: one sweep can
            vary another key for each loss. See ``fmvae.config.grids``, also for what the command line changes.
        max_batch_size: of a launch.
    """

    def __init__(
        self,
        params: dict[str, str] | None = None,
        grids: Sequence[dict[str, str]] | None = None,
        max_batch_size: int | None = None,
    ):
        if max_batch_size is not None and not (type(max_batch_size) is int and max_batch_size >= 1):
            key, way_out = "hydra.sweeper.max_batch_size", "give a whole number >= 1, or null"
            raise ConfigError(key, f"{max_batch_size!r} is not a number of jobs", way_out)
        check_form(params, grids)
        super().__init__(max_batch_size=max_batch_size, params=params)
        self.grids = grids

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
        jobs = jobs_of(self.params, self.grids, arguments, parser)
        sweep = SweepDirectory(Path(self.config.hydra.sweep.dir))
        if sweep.path.absolute() != _folder(self.config):
            way_out = "leave it out, and set output_root and sweep_name"
            raise ConfigError("hydra.sweep.dir", f"runs are not written to {sweep}", way_out)
        try:
            plans = dict(_plans(sweep, jobs, self.config, loader))
        except ConfigError as error:
            raise blame(error, self.grids, arguments) from None
        if not plans:
            raise ConfigError("command line", "a sweep over no values", "give at least one: seed=range(0,3)")
        if self.config.dry_run:
            say(forecast(sweep, plans, Path(expand_home(self.config.output_root)), self.config.restart))
        else:
            alone = self.config.hydra.launcher._target_.endswith(IN_PROCESS)
            follow = reported(write_report, self.config)
            run_sweep(sweep, plans, self._launch, follow, self.config.restart, in_process=alone)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> None:
        assert self.launcher is not None
        size = self.max_batch_size or len(jobs)
        for start in range(0, len(jobs), size):
            self.launcher.launch(jobs[start : start + size], initial_job_idx=first + start)


def reported(write_report: WriteReport, config: DictConfig) -> WriteReport:
    """Return a writer of a sweep's report that hands it to the tracker of the config, too."""
    from fmvae.runs.tracks import report_sweep

    tracker = OmegaConf.to_container(config.get("tracker") or OmegaConf.create(), resolve=True)

    def write(folders: Sequence[Path]) -> Path:
        page = write_report(folders)
        report_sweep(validate({"tracker": tracker}), folders[0])
        return page

    return write


def _folder(config: Any) -> Path:
    """Return the folder of a config's runs."""
    return Path(expand_home(config["output_root"]), str(config["sweep_name"] or "")).absolute()


def _plans(
    sweep: SweepDirectory, jobs: Sequence[Sequence[str]], main: DictConfig, loader: ConfigLoader
) -> Iterator[tuple[str, Plan]]:
    """Yield the name and plan of each run. Plans in sweep.json are reused: composing takes tens of ms per run."""
    from fmvae.sweeps.directory import Plan

    others = main.hydra.overrides.hydra
    folders = [Path(source.path) for source in main.hydra.runtime.config_sources if source.schema == "file"]
    code = own_code.digests()  # the user's constructors decide which keys are known
    composed = composed_by(main.hydra.job.config_name, *others, *code, folders=folders)
    planned = sweep.planned().items()
    known = {plan.overrides: (name, plan) for name, plan in planned if plan.composed_by == composed}
    # files that name a run may have changed; of data, a shape that only they know says so, in the main config or
    # in one that a job chooses
    anew = (*NAMED_BY_CONTENT, *FROM_FILES)
    of_files = main.data.get("image_shape") is None
    for overrides in map(tuple, jobs):
        if overrides in known and not of_files and not any(o.lstrip("+").startswith(anew) for o in overrides):
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
            raise ConfigError(
                "sweep_name, output_root", "all runs of a sweep share one value", "run one sweep for each value"
            )
        yield Plan.of(resolved, overrides, composed)
