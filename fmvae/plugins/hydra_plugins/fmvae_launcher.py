"""The launcher of ``hydra/launcher=stacked``. It trains jobs of equal structure as one model, in one process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from typing import Any

from omegaconf import open_dict

from fmvae.cli.main import ends_search, prepare, tell
from fmvae.config.hydra_internals import BasicLauncher, JobReturn, JobStatus, configure_log, setup_globals
from fmvae.config.identity import RunIdentity
from fmvae.errors import ConfigError, of_a_run

log = logging.getLogger("fmvae")


def _check_environment(hydra_config: Any) -> None:
    if hydra_config.job.env_set:
        problem = "the runs of a stack share one process, which has already started"
        raise ConfigError("hydra.job.env_set", problem, "set it in the shell, or use another launcher")


class StackedLauncher(BasicLauncher):
    """Train jobs together that can be stacked, and the others one by one, as ``BasicLauncher`` does.

    Args:
        size: largest number of runs in a stack.
    """

    def __init__(self, size: int = 32):
        if not (type(size) is int and size >= 1):
            raise ConfigError(
                "hydra.launcher.size", f"{size!r} is not a number of runs", "give a whole number >= 1"
            )
        super().__init__()
        self.size = size

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        assert self.config is not None
        _check_environment(self.config.hydra)
        from fmvae.experiments import stackable  # imports torch

        setup_globals()
        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
        returns: dict[int, JobReturn] = {}
        settings: dict[int, Any] = {}
        groups: dict[str | None, list[int]] = {}
        first: dict[str, int] = {}  # job of each run: a search may ask for a run twice
        same: dict[int, int] = {}
        for number, overrides in enumerate(job_overrides):
            try:
                settings[number] = self._prepared(overrides, initial_job_idx + number)
                if (again := first.setdefault(self._name(settings[number][0]), number)) != number:
                    same[number] = again
                    continue
                with of_a_run():
                    groups.setdefault(stackable(settings[number][0]), []).append(number)
            except Exception as error:
                returns[number] = self._ended(error)
        for kind, numbers in groups.items():
            if kind and len(numbers) > 1:
                for start in range(0, len(numbers), self.size):
                    chosen = numbers[start : start + self.size]
                    returns |= self._train([settings[number] for number in chosen], chosen)
                continue
            for number in numbers:
                why = "no other job has its model and sizes" if len(job_overrides) > 1 else "it is the only job"
                if not kind:
                    why = "it is not a VAE, or its optimizer does not update each weight independently"
                log.info("not stacked: %s (%s)", self._name(settings[number][0]), why)
                (returns[number],) = super().launch([job_overrides[number]], initial_job_idx + number)
        for number, overrides in enumerate(job_overrides):
            if number in same:
                returns[number] = copy(returns[same[number]])
            returns[number].overrides = list(overrides)
        return [returns[number] for number in range(len(job_overrides))]

    @staticmethod
    def _name(config: dict[str, Any]) -> str:

        return RunIdentity.of(config).name

    def _prepared(self, overrides: Sequence[str], number: int) -> tuple[dict[str, Any], list[str]]:
        assert self.hydra_context is not None
        assert self.config is not None
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.num = number
            own = composed.pop("hydra")
        _check_environment(own)
        return prepare(composed, own)

    def _train(self, settings: Sequence[Any], numbers: Sequence[int]) -> dict[int, JobReturn]:
        from fmvae.experiments import objective, train_together

        returns = {}
        outcomes = train_together(settings, tell)
        for number, (config, _), outcome in zip(numbers, settings, outcomes, strict=True):
            if isinstance(outcome, Exception):
                returns[number] = self._ended(outcome, told=True)
                continue
            try:
                with of_a_run():
                    number_of_search = objective(config, outcome)
                returns[number] = JobReturn(status=JobStatus.COMPLETED, _return_value=number_of_search)
            except Exception as error:
                returns[number] = self._ended(error)
        return returns

    def _ended(self, error: Exception, told: bool = False) -> JobReturn:
        assert self.config is not None
        if ends_search(error, self.config.hydra):
            raise error
        if not told:
            tell(error)
        return JobReturn(status=JobStatus.FAILED, _return_value=error)
